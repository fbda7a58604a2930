//! The problems of an answer, each with a code and a text that says what to do.

use std::io::Read;

use caxton_sdk::http::{CallError, IncomingResponse};
use caxton_sdk::prelude::*;
use serde_json::{Value, json};

/// The bytes of an error of the API that are repeated.
const MAX_DETAIL: usize = 500;
/// The longest wait that is passed on to the client, in seconds.
const MAX_WAIT: u64 = 24 * 60 * 60;

/// The reason why there is no answer.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The status, if nothing was sent before.
    status: u16,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    /// The seconds after which the same question may be answered.
    retry_after: Option<u64>,
}

/// The early end of a conversation.
pub(crate) enum Ended {
    /// The client has left, so that nobody is told.
    Client(Failure),
    Problem(Problem),
}

impl From<Problem> for Ended {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Client(failure)
    }
}

impl Problem {
    pub(crate) fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None }
    }

    /// Returns the problem of an answer that is not as the API has them.
    pub(crate) fn malformed(what: impl std::fmt::Display) -> Self {
        Self::new(502, "api-malformed", format!("the answer of the API is not as expected: {what}"))
    }

    /// Returns the problem of a call that failed.
    pub(crate) fn of_call(error: &CallError) -> Self {
        let (status, code) = match error.code {
            "HTTP-request-denied" | "destination-IP-prohibited" | "configuration-error" => (500, "api-not-allowed"),
            _ if error.is_timeout() => (504, "api-timeout"),
            _ => (502, "api-unreachable"),
        };
        Self::new(status, code, format!("the API was not reached: {error}"))
    }

    /// Returns the problem of a status that is no success.
    pub(crate) fn of_status(response: IncomingResponse) -> Self {
        let status = response.status;
        let wait = response.header("retry-after").and_then(|wait| wait.trim().parse::<u64>().ok());
        let told = told(response);
        let (own, code, what) = match status {
            401 | 403 => (502, "api-key-refused", "the API refused the key (`headers` of its place in `allow.http`)"),
            404 => (502, "api-not-found", "the API does not know the path or the model (`config.api`, `config.model`)"),
            408 | 504 => (504, "api-timeout", "the API was too slow"),
            429 => (503, "api-busy", "the API takes no more requests at present"),
            500.. => (503, "api-failed", "the API failed"),
            _ => (502, "api-refused", "the API refused the request"),
        };
        let retry_after = (own == 503).then(|| wait.unwrap_or(1).clamp(1, MAX_WAIT));
        Self { retry_after, ..Self::new(own, code, format!("{what}: {status} {told}")) }
    }

    /// Returns the problem as problem details (RFC 9457).
    pub(crate) fn response(&self) -> Result<Response, Failure> {
        let body = json!({
            "title": "No answer of the language model", "status": self.status, "code": self.code, "detail": self.detail,
        });
        let response = Response::bytes(body.to_string(), "application/problem+json").status(self.status);
        Ok(match self.retry_after {
            Some(seconds) => response.header("retry-after", seconds.to_string()),
            None => response,
        })
    }

    /// Returns the problem as the data of an event.
    pub(crate) fn event(&self) -> Value {
        let mut event = json!({ "code": self.code, "detail": self.detail });
        if let Some(seconds) = self.retry_after {
            event["retry_after"] = seconds.into();
        }
        event
    }
}

/// Returns the API's own words: `error.message`, or the beginning of the body.
fn told(response: IncomingResponse) -> String {
    let mut body = Vec::new();
    // What came until an error says as much as the whole would.
    let _ = response.take(64 << 10).read_to_end(&mut body);
    let value: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let text = match value["error"]["message"].as_str() {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&body).into_owned(),
    };
    cut(&text, MAX_DETAIL).to_owned()
}

/// Returns the beginning of a text, of so many bytes at most.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}
