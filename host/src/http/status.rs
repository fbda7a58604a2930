//! What became of a message that nobody waited for: the host's own paths on this listener.

use http::{Method, Response, StatusCode};
use serde_json::json;

use super::body::ReplyBody;
use super::problem::{self, About, Problem};
use super::reply;
use crate::commons::Commons;
use crate::receipts::{Receipt, State};
use crate::trace::Trace;

/// Where messages are looked up, with the id after it.
pub(super) const MESSAGES: &str = "/.caxton/messages/";

/// Answers a request for `path`, which stands below the host's own prefix.
pub(super) fn answer(commons: &Commons, method: &Method, path: &str, trace: &Trace) -> Response<ReplyBody> {
    respond(|id| commons.receipts.find(&commons.store, id), method, path, trace)
}

fn respond(
    find: impl FnOnce(&str) -> Option<Receipt>,
    method: &Method,
    path: &str,
    trace: &Trace,
) -> Response<ReplyBody> {
    let about = About { trace: Some(trace), ..About::default() };
    let Some(id) = path.strip_prefix("messages/") else { return Problem::new("no-route").respond(&about) };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Problem::wrong_method("GET, HEAD".to_owned()).respond(&about);
    }
    match find(id) {
        Some(receipt) => reply::json_response(StatusCode::OK, &describe(id, &receipt)),
        None => Problem::new("unknown-message").respond(&About { message: Some(id), ..about }),
    }
}

fn describe(id: &str, receipt: &Receipt) -> serde_json::Value {
    let mut told = json!({
        "id": id,
        "agent": *receipt.agent,
        "conversation": receipt.conversation,
        "accepted_at": receipt.accepted_at,
    });
    match &receipt.state {
        State::Pending => told["state"] = "pending".into(),
        State::Handled { at, revision } => {
            told["state"] = "handled".into();
            told["ended_at"] = (*at).into();
            told["revision"] = revision.as_ref().map(ToString::to_string).into();
        }
        State::Failed { at, revision, code, reason } => {
            told["state"] = "failed".into();
            told["ended_at"] = (*at).into();
            told["revision"] = revision.as_ref().map(ToString::to_string).into();
            told["code"] = (*code).into();
            // What went on inside the agent is for its log, unless it is what the agent itself says.
            let own = matches!(*code, "rejected" | "agent-unavailable" | "agent-fault" | "gone");
            told["reason"] = if own { reason.as_str() } else { problem::find(code).text }.into();
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::Accepted;
    use crate::receipts::Receipts;
    use crate::wasm::new_id;
    use crate::wasm::{Answer, Fault, Outcome};

    fn body(response: Response<ReplyBody>) -> serde_json::Value {
        let ReplyBody::Whole(body) = response.into_body() else { panic!("no body") };
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn messages_are_looked_up() {
        let receipts = Arc::<Receipts>::default();
        let accepted = Accepted { id: new_id(), conversation: "c-1".to_owned() };
        let waiter = receipts.open(&accepted, "triage".into(), 7);
        let trace = Trace::start();
        let path = format!("messages/{}", accepted.id);
        let told = body(respond(|id| receipts.get(id), &Method::GET, &path, &trace));
        assert_eq!(
            told,
            json!({ "id": accepted.id, "agent": "triage", "conversation": "c-1", "accepted_at": 7, "state": "pending" })
        );
        let fault = Fault::Trap { message: "secret".to_owned(), trail: crate::wasm::Trail::default() };
        waiter.tell(Answer { revision: None, outcome: Outcome::Fault(fault) });
        let told = body(respond(|id| receipts.get(id), &Method::GET, &path, &trace));
        assert_eq!(told["state"], "failed");
        assert_eq!(told["code"], "trap");
        assert_eq!(told["reason"], "the agent stopped itself in the middle of its work");
        for (method, path, status) in
            [(Method::POST, path.as_str(), 405), (Method::GET, "messages/none", 404), (Method::GET, "other", 404)]
        {
            assert_eq!(respond(|id| receipts.get(id), &method, path, &trace).status(), status, "{method} {path}");
        }
    }
}
