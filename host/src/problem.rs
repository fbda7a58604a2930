//! The error responses as problem details (RFC 9457), for both listeners.
//!
//! A problem has the code of the error itself ([`AdmitError::code`], [`Fault::code`] and so on), so that logs, receipts
//! and responses agree. The listeners write different members: see `http::problem` and `admin::problem`. The text
//! depends on the [`Audience`].

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONNECTION, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};

use crate::agent::{AdmitError, MEANINGS, Meaning, code, describe, meaning};
use crate::api_types::FileError;
use crate::bounds;
use crate::message::{Fault, Outcome};
use crate::net::LateBody;

/// The codes that follow from the request or the listener. Those of messages and calls are
/// [`MEANINGS`]. `docs/http.md` lists both.
const REQUEST_CODES: &[Meaning] = &[
    meaning("bad-request", 400, false, "the request is malformed"),
    meaning("body-broken", 400, false, "the body could not be read to its end"),
    meaning("unauthorised", 401, false, "the route needs a credential that the request does not have"),
    meaning("budget-not-allowed", 403, false, "the caller may not name this budget"),
    meaning("no-route", 404, false, "no agent is called by this path"),
    meaning(
        "unknown-message",
        404,
        false,
        "no message of this id is known; only the newest are kept, and none from before a restart",
    ),
    meaning("wrong-host", 421, false, "requests for this host name are not served here"),
    meaning("wrong-method", 405, false, "the path takes other methods"),
    meaning("body-stalled", 408, true, "nothing more of the body came in time"),
    meaning("body-late", 408, true, "the body was not whole in time"),
    meaning("too-many-requests", 429, true, "too many requests came from this caller"),
    meaning("keys-unavailable", 503, true, "the host cannot check callers of this route at present"),
    meaning("bad-status", 502, false, "the agent's reply asks for an invalid status"),
];

/// The `retry-after` of errors without a more exact time.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Returns the meaning of a code. An unknown code is a bug, reported in release builds as an error of the host.
pub(crate) fn find_meaning(code: &str) -> &'static Meaning {
    let find = |code: &str| REQUEST_CODES.iter().chain(MEANINGS).find(|row| row.code == code);
    // Not an `expect`: a missing row must not turn an error response into a panic.
    debug_assert!(find(code).is_some(), "`{code}` is not in the table");
    find(code).or_else(|| find("host-error")).unwrap_or(&REQUEST_CODES[0])
}

/// Cuts the text of a problem, which may quote the request or the agent, and escapes what would turn it around.
fn bounded(detail: Cow<'static, str>) -> Cow<'static, str> {
    match detail {
        Cow::Owned(text) => {
            let text = bounds::cut(text, bounds::ERROR);
            // Cut again: an escaped character has up to eight.
            Cow::Owned(bounds::cut(bounds::plain(&text).into_owned(), bounds::ERROR))
        }
        Cow::Borrowed(text) => Cow::Borrowed(text),
    }
}

/// The reader of an error response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A client of an agent. Of the host it sees no files and states, and of the agent only the text that the agent
    /// returned as the reason of a failure. The rest is in the logs.
    Client,
    /// An operator of the host, who sees errors in full.
    Operator,
}

/// An error response before it is written. Boxed, so that results stay small.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<ProblemParts>);

/// The parts of a problem, for the listener that writes it.
#[derive(Debug, Clone)]
pub(crate) struct ProblemParts {
    pub(crate) status: StatusCode,
    /// The stable code for programs.
    pub(crate) code: &'static str,
    /// The text for a person.
    pub(crate) detail: Cow<'static, str>,
    /// The bound that was exceeded.
    pub(crate) limit: Option<u64>,
    /// The agent that failed.
    pub(crate) agent: Option<String>,
    /// The message at which it failed.
    pub(crate) message_id: Option<String>,
    /// The fault of the agent. Listeners decide how much of it they show.
    pub(crate) fault: Option<Fault>,
    /// The errors of the declaration.
    pub(crate) errors: Vec<FileError>,
    /// Headers such as `retry-after`.
    pub(crate) headers: HeaderMap,
}

impl Problem {
    /// Creates a problem with a status, a code and a detail.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(ProblemParts {
            status,
            code,
            detail: bounded(detail.into()),
            limit: None,
            agent: None,
            message_id: None,
            fault: None,
            errors: Vec::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// Creates the problem of a code in the table, with its status and text.
    pub(crate) fn of_code(code: &str) -> Self {
        let row = find_meaning(code);
        let status = StatusCode::from_u16(row.status).expect("the table has proper status codes");
        let problem = Self::new(status, row.code, row.text);
        if row.is_retryable { problem.with_retry_after(DEFAULT_RETRY_AFTER) } else { problem }
    }

    /// Creates a `bad-request` problem.
    pub(crate) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// Creates the problem of a body that is larger than `limit` bytes, the value of `setting`.
    pub(crate) fn too_large(limit: u64, setting: &str) -> Self {
        let detail = format!("the body is larger than {limit} bytes ({setting})");
        Self::of_code("too-large").with_detail(detail).with_limit(limit)
    }

    /// Creates the problem of a body that did not come in time. `bound` names what bounds its whole time.
    pub(crate) fn late_body(late: &LateBody, bound: &str) -> Self {
        let problem = match late {
            LateBody::Stalled(_) => Self::of_code("body-stalled").with_detail(late.to_string()),
            LateBody::Unfinished(_) => Self::of_code("body-late").with_detail(format!("{late} ({bound})")),
        };
        // The rest of the body may still come, and would be taken for the next request (RFC 9110, section 15.5.9). Taken
        // out of responses of HTTP/2, where only the stream ends.
        problem.with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// Creates the problem of a message that was not admitted.
    pub(crate) fn of_admission(error: &AdmitError, audience: Audience) -> Self {
        let problem = Self::of_code(error.code());
        let is_client = audience == Audience::Client;
        match error {
            // Clients know bodies and not messages.
            AdmitError::TooLarge { limit } if is_client => Self::too_large(*limit, "limits.message"),
            AdmitError::TooLarge { limit } => problem.with_detail(error.to_string()).with_limit(*limit),
            AdmitError::BreakerOpen { after } => problem.with_detail(error.to_string()).with_retry_after(*after),
            // The store's error names files and states of the host.
            AdmitError::NotKept(_) if is_client => problem,
            // In the API every request that contradicts an earlier one has the status 409.
            AdmitError::KeyReused if !is_client => {
                problem.with_detail(error.to_string()).with_status(StatusCode::CONFLICT)
            }
            AdmitError::UnknownReceiver(_)
            | AdmitError::NotAllowed { .. }
            | AdmitError::Full { .. }
            | AdmitError::TooManyTimers { .. }
            | AdmitError::TooManyHops { .. }
            | AdmitError::OverBudget(_)
            | AdmitError::Invalid(_)
            | AdmitError::Unavailable(_)
            | AdmitError::NotKept(_)
            | AdmitError::KeyReused
            | AdmitError::NotUnderstood(_) => problem.with_detail(error.to_string()),
        }
    }

    /// Creates the problem of an outcome; `None` if the message was handled.
    pub(crate) fn of_outcome(outcome: &Outcome, audience: Audience) -> Option<Self> {
        let mut problem = Self::of_code(code(outcome)?);
        if let Outcome::Fault(fault) = outcome {
            problem = problem.with_fault(fault.clone());
        }
        problem = match audience {
            Audience::Operator => problem.with_detail(describe(outcome)),
            Audience::Client => problem.with_client_detail(outcome),
        };
        let after = match outcome {
            Outcome::Failed(failure) => failure.retry_after_ms.map(Duration::from_millis),
            _ => None,
        };
        // The time that the agent gives counts only where the code says that a retry may help.
        Some(match after.filter(|_| problem.0.headers.contains_key(RETRY_AFTER)) {
            Some(after) => problem.with_retry_after(after),
            None => problem,
        })
    }

    /// Replaces the text of the code by one of the outcome, if clients may see it.
    fn with_client_detail(self, outcome: &Outcome) -> Self {
        match outcome {
            // The agent wrote it for its caller.
            Outcome::Failed(failure) => self.with_detail(failure.reason.clone()),
            Outcome::Fault(fault @ (Fault::Restarting { .. } | Fault::OverBudget(_))) => {
                self.with_detail(fault.to_string())
            }
            Outcome::Fault(Fault::Time { limit, .. } | Fault::CallerTimeout { limit }) => {
                self.with_detail(format!("the agent did not answer within {} ms", limit.as_millis()))
            }
            Outcome::Cancelled(why) => self.with_detail(*why),
            Outcome::Conflict(_) => self.with_detail(describe(outcome)),
            Outcome::Refused(why) => self.with_detail(format!("what the agent did was refused: {why}")),
            Outcome::BadReply(why) => self.with_detail(format!("the agent's reply was refused: {why}")),
            // A fault may quote the guest's stderr, and an error of the store the host's files.
            Outcome::Reply(_) | Outcome::Done | Outcome::Fault(_) | Outcome::NotCommitted(_) => self,
        }
    }

    /// Replaces the status.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Replaces the text.
    pub(crate) fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = bounded(detail.into());
        self
    }

    /// Adds the bound that was exceeded.
    pub(crate) fn with_limit(mut self, limit: u64) -> Self {
        self.0.limit = Some(limit);
        self
    }

    /// Adds the agent that failed and the message at which it did.
    pub(crate) fn with_message(mut self, agent: &str, id: &str) -> Self {
        self.0.agent = Some(agent.to_owned());
        self.0.message_id = Some(id.to_owned());
        self
    }

    /// Adds the fault of the agent.
    pub(crate) fn with_fault(mut self, fault: Fault) -> Self {
        let problem = match fault {
            Fault::Restarting { after } => self.with_retry_after(after),
            _ => self,
        };
        self = problem;
        self.0.fault = Some(fault);
        self
    }

    /// Adds the errors of the declaration.
    pub(crate) fn with_errors(mut self, errors: Vec<FileError>) -> Self {
        self.0.errors = errors;
        self
    }

    /// Sets a header.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Sets `retry-after`, rounded up to seconds: a client must not come back too early.
    pub(crate) fn with_retry_after(self, time: Duration) -> Self {
        // At least 1: a 0 would invite the client to try again at once.
        let seconds = u64::try_from(time.as_millis().div_ceil(1_000).max(1)).unwrap_or(u64::MAX);
        self.with_header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Returns the parts, for the listener that writes them.
    pub(crate) fn into_parts(self) -> ProblemParts {
        *self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::message::{Cause, Diagnostics, ExceededBound, Failure};

    #[test]
    fn codes_are_unique_and_documented() {
        let codes: BTreeSet<&str> = REQUEST_CODES.iter().chain(MEANINGS).map(|row| row.code).collect();
        assert_eq!(codes.len(), REQUEST_CODES.len() + MEANINGS.len());
        let page = include_str!("../../docs/http.md");
        for row in REQUEST_CODES.iter().chain(MEANINGS) {
            let line = format!("| {} | `{}` |", row.status, row.code);
            assert!(page.contains(&line), "docs/http.md lacks {line}");
            assert!(StatusCode::from_u16(row.status).is_ok());
        }
    }

    #[test]
    fn errors_are_in_the_table() {
        let time = Duration::from_millis(20);
        for fault in [
            Fault::Trap { message: String::new(), diagnostics: Diagnostics::default() },
            Fault::Exceeded { exceeded: ExceededBound::Handles, diagnostics: Diagnostics::default() },
            Fault::Exceeded { exceeded: ExceededBound::Random(1), diagnostics: Diagnostics::default() },
            Fault::Exceeded { exceeded: ExceededBound::Copies, diagnostics: Diagnostics::default() },
            Fault::Cpu { limit: time, diagnostics: Diagnostics::default() },
            Fault::Fuel { limit: 1, diagnostics: Diagnostics::default() },
            Fault::Time { limit: time, diagnostics: Diagnostics::default() },
            Fault::CallerTimeout { limit: time },
            Fault::Start(String::new()),
            Fault::Restore(String::new()),
            Fault::Interrupted,
            Fault::NoResponse { why: String::new(), diagnostics: Diagnostics::default() },
            Fault::Abandoned,
            Fault::Overloaded,
            Fault::Restarting { after: time },
            Fault::HostMemory,
            Fault::OverBudget(String::new()),
            Fault::Host(String::new()),
        ] {
            assert_eq!(find_meaning(fault.code()).code, fault.code());
        }
        for error in [
            AdmitError::UnknownReceiver(String::new()),
            AdmitError::NotAllowed { sender: String::new(), receiver: String::new() },
            AdmitError::TooLarge { limit: 1 },
            AdmitError::Full { limit: 1 },
            AdmitError::TooManyHops { limit: 1 },
            AdmitError::Invalid(String::new()),
            AdmitError::Unavailable(""),
            AdmitError::BreakerOpen { after: time },
            AdmitError::OverBudget(String::new()),
            AdmitError::NotKept(String::new()),
            AdmitError::KeyReused,
            AdmitError::NotUnderstood(String::new()),
        ] {
            for audience in [Audience::Client, Audience::Operator] {
                assert_eq!(Problem::of_admission(&error, audience).into_parts().code, error.code());
            }
        }
    }

    #[test]
    fn outcomes_map_to_status_and_retry_after() {
        let gave = |cause, retry_after_ms| {
            Outcome::Failed(Failure { cause, reason: "no such ticket".to_owned(), retry_after_ms })
        };
        for (outcome, status, retry) in [
            (gave(Cause::Rejected, Some(7)), 422, None),
            (gave(Cause::Unavailable, Some(2_500)), 503, Some("3")),
            (gave(Cause::Unavailable, None), 503, Some("1")),
            (gave(Cause::Fault, None), 500, None),
            (
                Outcome::Fault(Fault::Time { limit: Duration::from_secs(1), diagnostics: Diagnostics::default() }),
                504,
                None,
            ),
            (
                Outcome::Fault(Fault::Cpu { limit: Duration::from_secs(1), diagnostics: Diagnostics::default() }),
                500,
                None,
            ),
            (Outcome::NotCommitted("the disk is full".to_owned()), 503, Some("1")),
            (Outcome::Cancelled("the agent was removed"), 503, Some("1")),
        ] {
            for audience in [Audience::Client, Audience::Operator] {
                let parts = Problem::of_outcome(&outcome, audience).unwrap().into_parts();
                assert_eq!(parts.status, status, "{outcome:?}");
                let found = parts.headers.get(RETRY_AFTER).map(|value| value.to_str().unwrap());
                assert_eq!(found, retry, "{outcome:?}");
            }
        }
        assert!(Problem::of_outcome(&Outcome::Done, Audience::Client).is_none());
    }

    #[test]
    fn details_are_plain_and_short() {
        let detail = |text: String| Problem::bad_request(text).into_parts().detail;
        assert_eq!(detail("no \u{202e}txt.exe\u{1b}[2J".to_owned()), "no \\u{202e}txt.exe\\u{1b}[2J");
        assert_eq!(detail("\u{202e}".repeat(1 << 20)).chars().count(), bounds::ERROR);
    }

    #[test]
    fn clients_see_less_of_a_failure_than_operators() {
        let full = Outcome::NotCommitted("/data/caxton.db is full".to_owned());
        let trap = Outcome::Fault(Fault::Trap { message: "secret".to_owned(), diagnostics: Diagnostics::default() });
        for outcome in [&full, &trap] {
            let detail = |audience| Problem::of_outcome(outcome, audience).unwrap().into_parts().detail;
            assert_eq!(detail(Audience::Client), find_meaning(code(outcome).unwrap()).text);
            assert_eq!(detail(Audience::Operator), describe(outcome));
        }
    }
}
