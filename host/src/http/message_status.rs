//! The status of enqueued messages, served on the host's own paths of this listener.

use caxton_control::names::BudgetName;
use http::{Method, Response, StatusCode};
use serde_json::json;

use super::body::ReplyBody;
use super::problem::{ProblemContext, respond, wrong_method};
use super::reply;
use crate::agent::receipts::{Receipt, ReceiptState};
use crate::directory::HostDirectory;
use crate::problem::{Problem, find_meaning};
use crate::telemetry::trace::Trace;

/// Answers a request for `path`, given without the host's own prefix.
pub(super) fn answer(directory: &HostDirectory, method: &Method, path: &str, trace: &Trace) -> Response<ReplyBody> {
    let budget = |id: &str| directory.context.budget_of(id);
    status(|id| directory.shared.receipts.find(&directory.context.store, id), budget, (method, path, trace))
}

fn status(
    find: impl FnOnce(&str) -> Option<Receipt>,
    budget: impl FnOnce(&str) -> Option<(BudgetName, bool)>,
    (method, path, trace): (&Method, &str, &Trace),
) -> Response<ReplyBody> {
    let about = ProblemContext { trace: Some(trace), ..ProblemContext::default() };
    let Some(id) = path.strip_prefix("messages/") else { return respond(Problem::of_code("no-route"), &about) };
    // The host's own paths are read-only.
    if !matches!(*method, Method::GET | Method::HEAD) {
        return respond(wrong_method("GET, HEAD"), &about);
    }
    match find(id) {
        Some(receipt) => reply::json_response(StatusCode::OK, &describe(id, &receipt, budget(id))),
        None => respond(Problem::of_code("unknown-message"), &ProblemContext { message: Some(id), ..about }),
    }
}

fn describe(id: &str, receipt: &Receipt, budget: Option<(BudgetName, bool)>) -> serde_json::Value {
    let mut shown = json!({
        "id": id,
        "agent": *receipt.agent,
        "conversation": receipt.conversation,
        "accepted_at": receipt.accepted_at,
    });
    if let Some((name, is_exceeded)) = budget {
        shown["budget"] = json!({ "name": name.as_str(), "exceeded": is_exceeded });
    }
    match &receipt.state {
        ReceiptState::Pending => shown["state"] = "pending".into(),
        ReceiptState::Handled { at, revision } => {
            shown["state"] = "handled".into();
            shown["ended_at"] = (*at).into();
            shown["revision"] = revision.as_ref().map(ToString::to_string).into();
        }
        ReceiptState::Failed { at, revision, code, reason } => {
            shown["state"] = "failed".into();
            shown["ended_at"] = (*at).into();
            shown["revision"] = revision.as_ref().map(ToString::to_string).into();
            shown["code"] = (*code).into();
            // Only a text that the agent returned itself is shown. Everything else, such as a trap, is for its log.
            let own = matches!(*code, "rejected" | "agent-unavailable" | "agent-fault" | "gone");
            shown["reason"] = if own { reason.as_str() } else { find_meaning(code).text }.into();
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agent::receipts::Receipts;
    use crate::message::new_id;
    use crate::message::{Answer, Fault, Outcome};

    fn body(response: Response<ReplyBody>) -> serde_json::Value {
        let ReplyBody::Whole(body) = response.into_body() else { panic!("no body") };
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn receipts_are_shown() {
        let receipts = Arc::<Receipts>::default();
        let id = new_id();
        let waiter = receipts.open(&id, "c-1", "triage".into(), 7);
        let trace = Trace::start();
        let path = format!("messages/{id}");
        let budget = |_: &str| Some(("demo".parse().unwrap(), true));
        let shown = body(status(|id| receipts.get(id), budget, (&Method::GET, &path, &trace)));
        assert_eq!(shown["budget"], json!({ "name": "demo", "exceeded": true }));
        let shown = body(status(|id| receipts.get(id), |_| None, (&Method::GET, &path, &trace)));
        assert_eq!(
            shown,
            json!({ "id": id, "agent": "triage", "conversation": "c-1", "accepted_at": 7, "state": "pending" })
        );
        let fault = Fault::Trap { message: "secret".to_owned(), diagnostics: crate::message::Diagnostics::default() };
        waiter.resolve(Answer { revision: None, outcome: Outcome::Fault(fault) });
        let shown = body(status(|id| receipts.get(id), |_| None, (&Method::GET, &path, &trace)));
        assert_eq!(shown["state"], "failed");
        assert_eq!(shown["code"], "trap");
        assert_eq!(shown["reason"], "the agent stopped itself in the middle of its work");
        for (method, path, expected) in
            [(Method::POST, path.as_str(), 405), (Method::GET, "messages/none", 404), (Method::GET, "other", 404)]
        {
            let answered = status(|id| receipts.get(id), |_| None, (&method, path, &trace));
            assert_eq!(answered.status(), expected, "{method} {path}");
        }
    }
}
