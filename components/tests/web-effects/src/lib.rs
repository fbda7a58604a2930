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
//! | `/late-error` | the same, with the status 500 |
//! | `/late-trap` | sets its response, writes, and traps |
//! | `/late-asking` | begins its body, adds one to `late`, and ends once the peer has answered |
//! | `/late-asking-whole` | the same, with its body whole and its length in the head before it asks |
//! | `/late-commit` | commits after its response was set, and then writes and traps |
//! | `/ask` | status 200 and what the peer answers to `request` |

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::OutputStream;

use self::caxton::agent::types::{Delivery, Draft, Performative, Priority};
use self::caxton::agent::{effects, messaging, state};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: r#"
        package caxton:web-effects;

        world effects {
            import caxton:agent/messaging@0.1.0;
            import caxton:agent/state@0.1.0;
            import caxton:agent/effects@0.1.0;
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
            "/late" | "/late-error" => {
                let body = begin(out, if path == "/late" { 200 } else { 500 });
                let written = state::set("late", b"1");
                // Without the id, which is another in a copy.
                let sent = messaging::send(&draft(Performative::Inform, "late")).map(drop);
                finish(body, &format!("{written:?} {sent:?}"));
            }
            "/late-trap" => {
                let _body = begin(out, 200);
                let _ = state::set("late", b"1");
                panic!("told to trap later");
            }
            "/late-asking" => {
                let body = begin(out, 200);
                let stream = body.write().expect("the stream is taken once");
                write(&stream, "first, ");
                let late = state::increment("late", 1).expect("the host keeps state");
                let _ = messaging::request(&draft(Performative::Request, "asked"), 60_000);
                write(&stream, &late.to_string());
                end(stream, body);
            }
            "/late-asking-whole" => {
                let body = begin_with(out, 200, &[("content-length", "5")]);
                let stream = body.write().expect("the stream is taken once");
                let late = state::increment("late", 1).expect("the host keeps state");
                write(&stream, &format!("{late:05}"));
                let _ = messaging::request(&draft(Performative::Request, "asked"), 60_000);
                end(stream, body);
            }
            "/late-commit" => {
                let body = begin(out, 200);
                let stream = body.write().expect("the stream is taken once");
                let _ = state::set("late", b"committed");
                write(&stream, &format!("{:?}", effects::commit()));
                let _ = state::set("late", b"lost");
                panic!("told to trap after the commit");
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
    begin_with(out, status, &[])
}

fn begin_with(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let response = OutgoingResponse::new(Fields::from_list(&headers).expect("they are headers"));
    response.set_status_code(status).expect("it is a status");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    body
}

fn write(stream: &OutputStream, text: &str) {
    // A client that has gone is no error of this agent's.
    let _ = stream.blocking_write_and_flush(text.as_bytes());
}

fn end(stream: OutputStream, body: OutgoingBody) {
    // A body is finished once its stream is gone.
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn finish(body: OutgoingBody, text: &str) {
    let stream = body.write().expect("the stream is taken once");
    write(&stream, text);
    end(stream, body);
}

wasip2::http::proxy::export!(WebEffects);
