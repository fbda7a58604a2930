//! A component of wasmCloud: it answers messages, counts them in a key-value store, and asks others. It knows nothing of
//! Caxton.
//!
//! | body | what it does |
//! |---|---|
//! | `fail` | counts, and then fails |
//! | `ask SUBJECT` | publishes the answer to a request there |
//! | `tell SUBJECT` | publishes a message there, and gives no reply |
//! | `twice` | publishes two replies, and tells what came of the second in the count's store |
//! | `list` | publishes the number of keys in each page of the store `many`, of which it sets 2,500 |
//! | another | publishes it again behind the greeting of its configuration, with the count |

use wasmcloud_component::wasi::config::store as config;
use wasmcloud_component::wasi::keyvalue::{atomics, batch, store};
use wasmcloud_component::wasmcloud::messaging::consumer::{self, BrokerMessage};

use self::bindings::exports::wasmcloud::messaging::handler::{BrokerMessage as IncomingMessage, Guest};

mod bindings {
    wit_bindgen::generate!({
        path: "../wit/messaging",
        inline: r#"
            package caxton:wasmcloud-guest;

            world guest {
                export wasmcloud:messaging/handler@0.2.0;
            }
        "#,
        world: "caxton:wasmcloud-guest/guest",
        generate_all,
    });
}

struct Echo;

impl Guest for Echo {
    fn handle_message(message: IncomingMessage) -> Result<(), String> {
        let bucket = store::open("echo").map_err(|error| format!("{error:?}"))?;
        let count = atomics::increment(&bucket, "count", 1).map_err(|error| format!("{error:?}"))?;
        let text = String::from_utf8_lossy(&message.body).into_owned();
        let publish = |subject: String, body: String| {
            consumer::publish(&BrokerMessage { subject, body: body.into_bytes(), reply_to: None })
        };
        let reply_to = message.reply_to.clone().unwrap_or_default();
        match text.split_once(' ').unwrap_or((&text, "")) {
            ("fail", _) => Err(format!("told to fail at {count}")),
            ("ask", subject) => {
                let answer = consumer::request(subject, b"asked", 10_000);
                let answer = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
                publish(reply_to, format!("{answer:?}"))
            }
            ("tell", subject) => publish(subject.to_owned(), "told".to_owned()),
            ("twice", _) => {
                publish(reply_to.clone(), "first".to_owned())?;
                let second = publish(reply_to, "second".to_owned()).expect_err("a message has one reply");
                store::Bucket::set(&bucket, "second", second.as_bytes()).map_err(|error| format!("{error:?}"))
            }
            ("list", _) => publish(reply_to, pages().map_err(|error| format!("{error:?}"))?),
            _ => {
                let greeting = config::get("greeting").ok().flatten().unwrap_or_default();
                publish(reply_to, format!("{greeting}{text} {count} at {}", message.subject))
            }
        }
    }
}

fn pages() -> Result<String, store::Error> {
    let bucket = store::open("many")?;
    let pairs: Vec<_> = (0..2_500).map(|number| (format!("key-{number}"), b"1".to_vec())).collect();
    batch::set_many(&bucket, &pairs)?;
    let (mut counts, mut cursor) = (Vec::new(), None);
    loop {
        let page = bucket.list_keys(cursor)?;
        counts.push(page.keys.len().to_string());
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(counts.join(" "));
        }
    }
}

bindings::export!(Echo with_types_in bindings);
