//! An agent with two faces: it handles messages and answers HTTP, on one state.
//!
//! | HTTP | answer |
//! |---|---|
//! | `/counts` | the calls and the messages so far, with this call |
//! | `/tell` | the same, and sends this agent itself a message |
//! | `/fail` | counts, and has the status 500 |
//!
//! A message is counted, and a request answered with the counts; one with the content `fail` fails.

use wasip2::exports::http::incoming_handler::Guest as HttpGuest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

use self::caxton::agent::types::{Cause, Delivery, Draft, Failure, Message, Performative, Priority, Reply};
use self::caxton::agent::{messaging, state};
use self::exports::caxton::agent::handler::Guest;

wit_bindgen::generate!({
    path: "../../../wit",
    inline: r#"
        package caxton:two-faces;

        world faces {
            import caxton:agent/messaging@0.1.0;
            import caxton:agent/state@0.1.0;
            export caxton:agent/handler@0.1.0;
        }
    "#,
    world: "caxton:two-faces/faces",
    generate_all,
});

struct TwoFaces;

impl Guest for TwoFaces {
    fn handle(message: Message) -> Result<Option<Reply>, Failure> {
        let counts = count("messages");
        if message.content == b"fail" {
            return Err(Failure { cause: Cause::Rejected, reason: "told to fail".to_owned(), retry_after_ms: None });
        }
        // An answer to its own message would come back, and be answered.
        if message.performative != Performative::Request {
            return Ok(None);
        }
        Ok(Some(Reply {
            performative: Performative::Inform,
            content: counts.into_bytes(),
            content_type: "text/plain".to_owned(),
            ontology: None,
            reply_with: None,
            reply_by: None,
            headers: Vec::new(),
        }))
    }
}

impl HttpGuest for TwoFaces {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let counts = count("calls");
        let path = request.path_with_query().unwrap_or_default();
        let status = if path == "/fail" { 500 } else { 200 };
        if path == "/tell" {
            messaging::send(&to_itself()).expect("an agent may send to itself");
        }
        let response = OutgoingResponse::new(Fields::new());
        response.set_status_code(status).expect("it is a status");
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));
        // A client that has gone is no error of this agent's.
        let _ = body.write().expect("the stream is taken once").blocking_write_and_flush(counts.as_bytes());
        let _ = OutgoingBody::finish(body, None);
    }
}

/// Adds one to a count, and tells both.
fn count(key: &str) -> String {
    state::increment(key, 1).expect("the host keeps state");
    let of = |key| state::increment(key, 0).expect("the host keeps state");
    format!("{} calls, {} messages", of("calls"), of("messages"))
}

fn to_itself() -> Draft {
    Draft {
        receiver: String::new(),
        performative: Performative::Inform,
        content: b"told".to_vec(),
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

export!(TwoFaces);
wasip2::http::proxy::export!(TwoFaces);
