//! Problems of this listener, and their responses. A client of an agent sees what [`Audience::Client`] may see.

use bytes::Bytes;
use http::Response;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;

use super::body::ReplyBody;
use super::reply::BadStatus;
use crate::agent::{AdmitError, HttpError};
use crate::message::{Diagnostics, Fault};
use crate::problem::{Audience, Problem, ProblemParts};
use crate::telemetry::trace::Trace;
use crate::wasm::{BodyError, HttpFailure};

/// The context of an error response.
#[derive(Debug, Default)]
pub(super) struct ProblemContext<'a> {
    pub(super) agent: Option<&'a str>,
    pub(super) message: Option<&'a str>,
    pub(super) trace: Option<&'a Trace>,
    /// Set if details of a fault may be shown (`http.details`).
    pub(super) details: bool,
}

/// The JSON body of an error response. The order of the members is that of the text, so it differs from the API's.
#[derive(Serialize)]
struct ClientDetails<'a> {
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

/// Creates the problem of a message that was not admitted.
pub(super) fn of_admission(error: &AdmitError) -> Problem {
    Problem::of_admission(error, Audience::Client)
}

/// Creates the problem of a reply that asks for an invalid status.
pub(super) fn of_bad_status(error: &BadStatus) -> Problem {
    let detail = format!("the message was handled, and the agent's reply says {error}");
    Problem::of_code("bad-status").with_detail(detail)
}

/// Creates the problem of a method that the path does not take. `allow` lists those it takes.
pub(super) fn wrong_method(allow: &str) -> Problem {
    let problem = Problem::of_code("wrong-method").with_detail(format!("the path takes {allow}"));
    // Declared methods are tokens of HTTP, so that the header is only left out for a bug.
    match HeaderValue::try_from(allow) {
        Ok(allow) => problem.with_header(ALLOW, allow),
        Err(_) => problem,
    }
}

/// Creates the problem of a failed call of an HTTP agent.
pub(super) fn of_call(error: HttpError) -> Problem {
    let failure = match error {
        HttpError::Admit(error) => return of_admission(&error),
        HttpError::Call(failure) => failure,
    };
    let problem = Problem::of_code(failure.code());
    match failure {
        HttpFailure::Conflict(_) => problem.with_detail(failure.to_string()),
        HttpFailure::Fault(fault) => problem.with_fault(fault),
        // The store's error names files and states of the host.
        HttpFailure::NotCommitted(_) => problem,
    }
}

/// Creates the problem of a body that could not be read. `setting` names the bound of its size; that of its time is
/// `limits.time`.
pub(super) fn of_body(error: &BodyError, setting: &str) -> Problem {
    match error {
        BodyError::TooLarge { limit } => Problem::too_large(*limit, setting),
        BodyError::Late(late) => Problem::late_body(late, "limits.time"),
        BodyError::Broken(_) => Problem::of_code("body-broken"),
        BodyError::NotHeld(_) => Problem::of_code("host-memory"),
    }
}

/// Writes the response of a problem.
pub(super) fn respond(problem: Problem, context: &ProblemContext<'_>) -> Response<ReplyBody> {
    let ProblemParts { status, code, detail, limit, fault, headers, .. } = problem.into_parts();
    // A fault of the host has no output of the guest, and its text is not for clients.
    let fault = fault.as_ref().filter(|fault| context.details && fault.is_guests());
    let stderr = fault.and_then(Fault::diagnostics).map(Diagnostics::stderr).filter(|words| !words.is_empty());
    let details = ClientDetails {
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        code,
        detail: &detail,
        limit,
        agent: context.agent,
        message_id: context.message,
        trace_id: context.trace.map(Trace::id),
        error: fault.map(ToString::to_string),
        stderr,
        log: fault.and(context.agent).map(|agent| format!("caxton logs {agent}")),
    };
    let mut body = serde_json::to_vec(&details).expect("texts and numbers can be written");
    // Keeps the prompt of a terminal off the line of the body.
    body.push(b'\n');
    let mut response = Response::new(ReplyBody::Whole(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().extend(headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_follows_rfc_9457() {
        let trace = Trace::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        let context =
            ProblemContext { agent: Some("triage"), message: Some("m-1"), trace: trace.as_ref(), details: false };
        let response = respond(Problem::too_large(5, "limits.message"), &context);
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
