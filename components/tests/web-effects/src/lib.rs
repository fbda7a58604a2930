//! An HTTP agent that also keeps state and sends messages. Every request adds one to the key `visits` and sends
//! an `inform` to the agent that its configuration names as `peer`; the path says how it goes on.
//!
//! | path | effect |
//! |---|---|
//! | `/visit` | status 200 and the number of visits |
//! | `/status-404`, `/status-500` | that status, with the number |
//! | `/trap` | traps before there is a response |
//! | `/trap-later` | sets its response, then traps without having written its body |
//! | `/late` | sets its response, then writes and sends; the body is what the host said to that |
//! | `/ask` | status 200 and what the peer answers to `request` |

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

use self::caxton::agent::types::{Delivery, Draft, Performative, Priority};
use self::caxton::agent::{messaging, state};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: r#"
        package caxton:web-effects;

        world effects {
            import caxton:agent/messaging@0.1.0;
            import caxton:agent/state@0.1.0;
            import wasi:config/store@0.2.0-rc.1;
        }
    "#,
    world: "caxton:web-effects/effects",
    generate_all,
});

struct WebEffects;

impl Guest for WebEffects {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let visits = state::increment("visits", 1).expect("the host keeps state");
        messaging::send(&draft(Performative::Inform, &visits.to_string())).expect("the peer is granted");
        let visits = visits.to_string();
        match path.as_str() {
            "/visit" => finish(begin(out, 200), &visits),
            "/status-404" => finish(begin(out, 404), &visits),
            "/status-500" => finish(begin(out, 500), &visits),
            "/trap" => panic!("told to trap"),
            "/trap-later" => {
                let _body = begin(out, 200);
                panic!("told to trap later");
            }
            "/late" => {
                let body = begin(out, 200);
                let written = state::set("late", b"1");
                let sent = messaging::send(&draft(Performative::Inform, "late"));
                finish(body, &format!("{written:?} {sent:?}"));
            }
            "/ask" => {
                let answer = messaging::request(&draft(Performative::Request, "asked"), 5_000);
                let text = answer.map(|message| String::from_utf8_lossy(&message.content).into_owned());
                finish(begin(out, 200), &format!("{text:?}"));
            }
            _ => finish(begin(out, 400), "no such path"),
        }
    }
}

fn draft(performative: Performative, content: &str) -> Draft {
    Draft {
        receiver: wasi::config::store::get("peer").ok().flatten().unwrap_or_default(),
        performative,
        content: content.as_bytes().to_vec(),
        content_type: String::from("text/plain; charset=utf-8"),
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

/// Sets the head of the response, and with it commits.
fn begin(out: ResponseOutparam, status: u16) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("it is a status");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn finish(body: OutgoingBody, text: &str) {
    // A client that has gone is no error of this agent's.
    let _ = body.write().expect("the stream is taken once").blocking_write_and_flush(text.as_bytes());
    let _ = OutgoingBody::finish(body, None);
}

wasip2::http::proxy::export!(WebEffects);
