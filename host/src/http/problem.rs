//! Error responses as problem details (RFC 9457).
//!
//! The codes are those of the errors themselves ([`AdmitError::code`], [`Fault::code`](crate::wasm::Fault::code) and so
//! on), so that logs, receipts and responses agree. Details of a fault inside an agent go to its log; a client sees the
//! text of an agent only where the agent returned it as the reason of a failure.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

use super::body::ReplyBody;
use super::reply::BadStatus;
use crate::agent::{AdmitError, HttpError, MEANINGS, Meaning, code, describe, meaning};
use crate::telemetry::trace::Trace;
use crate::wasm::{BodyError, Fault, HttpFailure, Outcome, Trail, wit};

/// The codes that only this listener has. Those of messages and calls are [`agent::MEANINGS`](crate::agent::MEANINGS).
/// `docs/http.md` lists both.
const TABLE: &[Meaning] = &[
    meaning("bad-request", 400, false, "the request is malformed"),
    meaning("body-broken", 400, false, "the body could not be read to its end"),
    meaning("no-route", 404, false, "no agent is called by this path"),
    meaning(
        "unknown-message",
        404,
        false,
        "no message of this id is known; only the newest are kept, and none from before a restart",
    ),
    meaning("wrong-method", 405, false, "the path takes other methods"),
    meaning("body-stalled", 408, true, "nothing more of the body came in time"),
    meaning("bad-status", 502, false, "the agent's reply asks for an invalid status"),
];

/// The `retry-after` of errors without a more exact time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Returns the meaning of a code. An unknown code is a bug, reported in release builds as an error of the host.
pub(super) fn find(code: &str) -> &'static Meaning {
    let of = |code: &str| TABLE.iter().chain(MEANINGS).find(|row| row.code == code);
    debug_assert!(of(code).is_some(), "`{code}` is not in the table");
    of(code).or_else(|| of("host-error")).unwrap_or(&TABLE[0])
}

/// An error response before it is written.
#[derive(Debug)]
pub(super) struct Problem {
    row: &'static Meaning,
    detail: Option<String>,
    limit: Option<u64>,
    allow: Option<String>,
    again_after: Option<Duration>,
    /// The fault of the agent, shown only if `http.details` allows it.
    inside: Option<Box<Fault>>,
}

/// The context of an error response.
#[derive(Debug, Default)]
pub(super) struct About<'a> {
    pub(super) agent: Option<&'a str>,
    pub(super) message: Option<&'a str>,
    pub(super) trace: Option<&'a Trace>,
    /// Set if details of a fault may be shown (`http.details`).
    pub(super) details: bool,
}

/// The JSON body of an error response.
#[derive(Serialize)]
struct Details<'a> {
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

impl Problem {
    /// Creates the problem of a code, with the text of the table.
    pub(super) fn new(code: &str) -> Self {
        let row = find(code);
        let again_after = row.again.then_some(AGAIN_AFTER);
        Self { row, detail: None, limit: None, allow: None, again_after, inside: None }
    }

    /// Creates a `bad-request` problem with this detail.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new("bad-request").saying(detail)
    }

    /// Creates the problem of a body that is larger than `limit` bytes, the value of `setting`.
    pub(super) fn too_large(limit: u64, setting: &str) -> Self {
        let problem = Self::new("too-large").saying(format!("the body is larger than {limit} bytes ({setting})"));
        Self { limit: Some(limit), ..problem }
    }

    /// Creates the problem of a reply that asks for an invalid status.
    pub(super) fn bad_status(error: &BadStatus) -> Self {
        Self::new("bad-status").saying(format!("the message was handled, and the agent's reply says {error}"))
    }

    /// Creates the problem of a method that the path does not take. `allow` lists those it takes.
    pub(super) fn wrong_method(allow: String) -> Self {
        let problem = Self::new("wrong-method").saying(format!("the path takes {allow}"));
        Self { allow: Some(allow), ..problem }
    }

    fn saying(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Creates the problem of a message that was not admitted.
    pub(super) fn of_admission(error: &AdmitError) -> Self {
        match error {
            AdmitError::TooLarge { limit } => Self::too_large(*limit, "limits.message"),
            AdmitError::UnknownReceiver(_)
            | AdmitError::NotAllowed { .. }
            | AdmitError::Full { .. }
            | AdmitError::TooManyTimers { .. }
            | AdmitError::TooManyHops { .. }
            | AdmitError::Invalid(_)
            | AdmitError::Unavailable(_)
            | AdmitError::KeyReused
            | AdmitError::NotUnderstood(_) => Self::new(error.code()).saying(error.to_string()),
            AdmitError::BreakerOpen { after } => {
                Self { again_after: Some(*after), ..Self::new(error.code()).saying(error.to_string()) }
            }
            // The error of the store names files and states of the host, which are not for clients.
            AdmitError::NotKept(_) => Self::new(error.code()),
        }
    }

    /// Creates the problem of an outcome; `None` if the message was handled.
    pub(super) fn of_outcome(outcome: &Outcome) -> Option<Self> {
        let inside = if let Outcome::Fault(fault) = outcome { Some(Box::new(fault.clone())) } else { None };
        let problem = Self { inside, ..Self::new(code(outcome)?) };
        Some(match outcome {
            Outcome::Reply(_) | Outcome::Done => return None,
            Outcome::Gave(wit::Failure { reason, retry_after_ms, .. }) => {
                let again_after = problem.again_after.map(|usual| retry_after_ms.map_or(usual, Duration::from_millis));
                Self { again_after, ..problem.saying(reason.as_str()) }
            }
            Outcome::Fault(Fault::Time { limit, .. } | Fault::Patience { limit }) => {
                problem.saying(format!("the agent did not answer within {} ms", limit.as_millis()))
            }
            Outcome::Gone(why) => problem.saying(*why),
            Outcome::Conflict(_) => problem.saying(describe(outcome)),
            Outcome::Refused(why) => problem.saying(format!("what the agent did was refused: {why}")),
            Outcome::BadReply(why) => problem.saying(format!("the agent's reply was refused: {why}")),
            Outcome::Fault(_) | Outcome::NotCommitted(_) => problem,
        })
    }

    /// Creates the problem of a failed call of an HTTP agent.
    pub(super) fn of_call(error: HttpError) -> Self {
        match error {
            HttpError::Admit(error) => Self::of_admission(&error),
            HttpError::Call(failure) => {
                let problem = Self::new(failure.code());
                let problem =
                    if let HttpFailure::Conflict(_) = &failure { problem.saying(failure.to_string()) } else { problem };
                let inside = if let HttpFailure::Fault(fault) = failure { Some(Box::new(fault)) } else { None };
                Self { inside, ..problem }
            }
        }
    }

    /// Creates the problem of a body that could not be read. `setting` names the bound of its size.
    pub(super) fn of_body(error: &BodyError, setting: &str) -> Self {
        match error {
            BodyError::TooLarge { limit } => Self::too_large(*limit, setting),
            BodyError::Stalled { .. } => Self::new("body-stalled").saying(error.to_string()),
            BodyError::Broken(_) => Self::new("body-broken"),
        }
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.row.code
    }

    /// Writes the response.
    pub(super) fn respond(self, about: &About<'_>) -> Response<ReplyBody> {
        let status = StatusCode::from_u16(self.row.status).expect("the table has proper status codes");
        // A fault of the host has no output of the guest, and its text is not for clients.
        let inside = self.inside.as_deref().filter(|fault| about.details && fault.is_guests());
        let words = inside.and_then(Fault::trail).map(Trail::words).filter(|words| !words.is_empty());
        let details = Details {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: self.row.code,
            detail: self.detail.as_deref().unwrap_or(self.row.text),
            limit: self.limit,
            agent: about.agent,
            message_id: about.message,
            trace_id: about.trace.map(Trace::id),
            error: inside.map(ToString::to_string),
            stderr: words,
            log: inside.and(about.agent).map(|agent| format!("caxton logs {agent}")),
        };
        let mut body = serde_json::to_vec(&details).expect("texts and numbers can be written");
        body.push(b'\n');
        let mut response = Response::new(ReplyBody::Whole(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        if let Some(after) = self.again_after {
            // Rounded up, so that a client never comes back too early.
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_millis().div_ceil(1_000).max(1) as u64));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_documented() {
        let codes: BTreeSet<&str> = TABLE.iter().chain(MEANINGS).map(|row| row.code).collect();
        assert_eq!(codes.len(), TABLE.len() + MEANINGS.len());
        let page = include_str!("../../../docs/http.md");
        for row in TABLE.iter().chain(MEANINGS) {
            let line = format!("| {} | `{}` |", row.status, row.code);
            assert!(page.contains(&line), "docs/http.md lacks {line}");
            assert!(StatusCode::from_u16(row.status).is_ok());
        }
    }

    #[test]
    fn errors_are_in_the_table() {
        let time = Duration::from_millis(20);
        for fault in [
            Fault::Trap { message: String::new(), trail: Trail::default() },
            Fault::Cpu { limit: time, trail: Trail::default() },
            Fault::Fuel { limit: 1, trail: Trail::default() },
            Fault::Time { limit: time, trail: Trail::default() },
            Fault::Patience { limit: time },
            Fault::Start(String::new()),
            Fault::Restore(String::new()),
            Fault::Interrupted,
            Fault::NoResponse { why: String::new(), trail: Trail::default() },
            Fault::Abandoned,
            Fault::Overloaded,
            Fault::Host(String::new()),
        ] {
            assert_eq!(find(fault.code()).code, fault.code());
        }
        for error in [
            AdmitError::UnknownReceiver(String::new()),
            AdmitError::NotAllowed { sender: String::new(), receiver: String::new() },
            AdmitError::TooLarge { limit: 1 },
            AdmitError::Full { depth: 1 },
            AdmitError::TooManyHops { limit: 1 },
            AdmitError::Invalid(String::new()),
            AdmitError::Unavailable(""),
            AdmitError::BreakerOpen { after: time },
            AdmitError::NotKept(String::new()),
            AdmitError::KeyReused,
            AdmitError::NotUnderstood(String::new()),
        ] {
            assert_eq!(Problem::of_admission(&error).code(), error.code());
        }
    }

    #[test]
    fn outcomes_map_to_status_and_retry_after() {
        let gave = |cause, retry_after_ms| {
            Outcome::Gave(wit::Failure { cause, reason: "no such ticket".to_owned(), retry_after_ms })
        };
        for (outcome, status, retry) in [
            (gave(wit::Cause::Rejected, Some(7)), 422, None),
            (gave(wit::Cause::Unavailable, Some(2_500)), 503, Some("3")),
            (gave(wit::Cause::Unavailable, None), 503, Some("1")),
            (gave(wit::Cause::Fault, None), 500, None),
            (Outcome::Fault(Fault::Time { limit: Duration::from_secs(1), trail: Trail::default() }), 504, None),
            (Outcome::Fault(Fault::Cpu { limit: Duration::from_secs(1), trail: Trail::default() }), 500, None),
            (Outcome::NotCommitted("the disk is full".to_owned()), 503, Some("1")),
            (Outcome::Gone("the agent was removed"), 503, Some("1")),
        ] {
            let response = Problem::of_outcome(&outcome).unwrap().respond(&About::default());
            assert_eq!(response.status(), status, "{outcome:?}");
            let found = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(found, retry, "{outcome:?}");
        }
        assert!(Problem::of_outcome(&Outcome::Done).is_none());
    }

    #[test]
    fn the_body_follows_rfc_9457() {
        let trace = Trace::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        let about = About { agent: Some("triage"), message: Some("m-1"), trace: trace.as_ref(), details: false };
        let response = Problem::too_large(5, "limits.message").respond(&about);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let ReplyBody::Whole(body) = response.into_body() else { panic!("no body") };
        assert_eq!(
            String::from_utf8_lossy(&body),
            concat!(
                r#"{"title":"Payload Too Large","status":413,"code":"too-large","#,
                r#""detail":"the body is larger than 5 bytes (limits.message)","limit":5,"agent":"triage","#,
                r#""message_id":"m-1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#,
                "\n"
            )
        );
    }
}
