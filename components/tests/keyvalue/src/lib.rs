//! An HTTP component for `wasi:keyvalue@0.2.0-draft2`, in all of its functions, and for `wasi:config` of Spin's draft.
//!
//! | path | answer |
//! |---|---|
//! | `/open/NAME` | if there is such a bucket |
//! | `/increment/N` | the sum at `count` |
//! | `/increment-asking` | the sum at `count`, told after the agent `echo` has answered a request |
//! | `/swap/VALUE` | the value of `swapped` before a compare-and-swap |
//! | `/swap-stale` | swaps a value that this call has changed meanwhile, and then with the new handle |
//! | `/set-many/N/SIZE` | sets N keys of the bucket `many` |
//! | `/get-many/N`, `/delete-many/N` | how many of them are there; removes them |
//! | `/pages/BUCKET` | the number of keys in each page of a list |
//! | `/set/BYTES`, `/set-key/BYTES` | sets a value, or a key, of this size |
//! | `/config/KEY` | a value, and the number of all |
//! | `/fail` | sets `failed`, and then has the status 500 |

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

use self::caxton::agent::messaging;
use self::caxton::agent::types::{Delivery, Draft, Performative, Priority};
use self::wasi::config0_2_0_draft_2024_09_27::store as config;
use self::wasi::keyvalue::atomics::{Cas, CasError, increment, swap};
use self::wasi::keyvalue::batch::{delete_many, get_many, set_many};
use self::wasi::keyvalue::store::{Bucket, Error, open};

wit_bindgen::generate!({
    path: ["../../../wit", "../../hosts/wit/keyvalue-draft2", "../../hosts/wit/config"],
    inline: r#"
        package caxton:keyvalue-guest;

        world guest {
            import caxton:agent/messaging@0.1.0;
            import wasi:config/store@0.2.0-draft-2024-09-27;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
        }
    "#,
    world: "caxton:keyvalue-guest/guest",
    generate_all,
});

struct KeyValue;

impl Guest for KeyValue {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let status = if parts[0] == "fail" { 500 } else { 200 };
        let text = answer(&parts).unwrap_or_else(|error| format!("{error:?}"));
        respond(out, status, &text);
    }
}

fn answer(parts: &[&str]) -> Result<String, Error> {
    let bucket = open("default")?;
    let number = |at: usize| parts.get(at).and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    Ok(match parts[0] {
        "open" => open(parts.get(1).copied().unwrap_or_default()).map(|_| "opened".to_owned())?,
        "increment" => {
            let by = parts.get(1).and_then(|text| text.parse().ok()).unwrap_or(1);
            increment(&bucket, "count", by)?.to_string()
        }
        "increment-asking" => {
            let sum = increment(&bucket, "count", 1)?;
            let _ = messaging::request(&question(), 60_000);
            sum.to_string()
        }
        "swap" => {
            let cas = Cas::new(&bucket, "swapped")?;
            let before = cas.current()?.map(|value| String::from_utf8_lossy(&value).into_owned());
            let swapped = swap(cas, parts.get(1).copied().unwrap_or_default().as_bytes());
            format!("{before:?} {}", told(&swapped))
        }
        "swap-stale" => {
            let cas = Cas::new(&bucket, "swapped")?;
            bucket.set("swapped", b"changed")?;
            match swap(cas, b"lost") {
                Err(CasError::CasFailed(cas)) => {
                    let now = cas.current()?.map(|value| String::from_utf8_lossy(&value).into_owned());
                    format!("failed with {now:?}, then {}", told(&swap(cas, b"won")))
                }
                swapped => told(&swapped).to_owned(),
            }
        }
        "set-many" => {
            let value = vec![b'x'; number(2)];
            let pairs: Vec<_> = keys(number(1)).into_iter().map(|key| (key, value.clone())).collect();
            set_many(&open("many")?, &pairs)?;
            "set".to_owned()
        }
        "get-many" => {
            let found = get_many(&open("many")?, &keys(number(1)))?;
            found.iter().filter(|(_, value)| value.is_some()).count().to_string()
        }
        "delete-many" => {
            delete_many(&open("many")?, &keys(number(1)))?;
            "deleted".to_owned()
        }
        "pages" => pages(&open(parts.get(1).copied().unwrap_or_default())?)?,
        "set" => {
            bucket.set("large", &vec![b'x'; number(1)])?;
            let (is_there, value) = (bucket.exists("large")?, bucket.get("large")?);
            bucket.delete("large")?;
            format!("{is_there} {:?} {}", value.map(|value| value.len()), bucket.exists("large")?)
        }
        "set-key" => {
            bucket.set(&"k".repeat(number(1)), b"1")?;
            "set".to_owned()
        }
        "config" => {
            let all = config::get_all().map_or(0, |all| all.len());
            format!("{:?} of {all}", config::get(parts.get(1).copied().unwrap_or_default()).ok().flatten())
        }
        "fail" => {
            bucket.set("failed", b"1")?;
            "told to fail".to_owned()
        }
        _ => "no such path".to_owned(),
    })
}

fn told(swapped: &Result<(), CasError>) -> &'static str {
    match swapped {
        Ok(()) => "swapped",
        Err(CasError::StoreError(_)) => "store error",
        Err(CasError::CasFailed(_)) => "changed meanwhile",
    }
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key-{number:05}")).collect()
}

fn pages(bucket: &Bucket) -> Result<String, Error> {
    let (mut counts, mut cursor) = (Vec::new(), None);
    loop {
        let page = bucket.list_keys(cursor.as_deref())?;
        counts.push(page.keys.len().to_string());
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(counts.join(" "));
        }
    }
}

fn question() -> Draft {
    Draft {
        receiver: "echo".to_owned(),
        performative: Performative::Request,
        content: b"asked".to_vec(),
        content_type: "text/plain".to_owned(),
        ontology: None,
        protocol: None,
        conversation_id: None,
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        priority: Priority::Normal,
        delivery: Delivery::Now,
        headers: Vec::new(),
    }
}

fn respond(out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("it is a status");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    // A client that has gone is no error of this component's.
    let _ = body.write().expect("the stream is taken once").blocking_write_and_flush(text.as_bytes());
    let _ = OutgoingBody::finish(body, None);
}

wasip2::http::proxy::export!(KeyValue);
