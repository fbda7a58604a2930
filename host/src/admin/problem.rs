//! Error responses as problem details (RFC 9457), with a stable code and the id of the trace.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::agent::{AdmitError, Meaning, describe};
use crate::api_types::FileError;
use crate::reconcile::handle::ReconcilerError;
use crate::store::CommitError;
use crate::telemetry::trace::Trace;
use crate::wasm::{Outcome, Trail};

/// The `retry-after` of errors without a more exact time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The body of an error response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Details {
    /// The reason phrase of the status.
    pub(crate) title: String,
    pub(crate) status: u16,
    /// A stable code for programs.
    pub(crate) code: String,
    /// The error and a suggestion, for a person.
    pub(crate) detail: String,
    /// The bound that was exceeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    /// The id of the message that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message_id: Option<String>,
    /// The name of the agent that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<String>,
    /// The last lines that the agent wrote to stderr before it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stderr: Option<String>,
    /// The stack of the agent at the failure, innermost frame first, one frame a line, with its place in the source
    /// where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) backtrace: Option<String>,
    /// The errors of the declaration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) errors: Vec<FileError>,
    /// The id of the request's trace.
    #[serde(default)]
    pub(crate) trace_id: String,
}

/// An error response before it is written. Boxed, so that the results of handlers stay small.
#[derive(Debug, Clone)]
pub(super) struct Problem(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    status: StatusCode,
    details: Details,
    headers: HeaderMap,
}

impl Problem {
    /// Creates a problem with a status, a code and a detail.
    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        let details = Details { code: code.to_owned(), detail: detail.into(), ..Details::default() };
        Self(Box::new(Parts { status, details, headers: HeaderMap::new() }))
    }

    /// Creates a `bad-request` problem.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// Creates the problem of a failure of the host.
    pub(super) fn host(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "host-error", detail)
    }

    /// Creates the problem of an unknown agent, with the nearest of the known names as a suggestion.
    pub(super) fn no_agent<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known: Vec<&str> = known.into_iter().collect();
        known.sort_unstable();
        let hint = match caxton_control::config::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`caxton ps` lists the agents".to_owned(),
        };
        Self::new(StatusCode::NOT_FOUND, "no-agent", format!("there is no agent `{}`; {hint}", name.escape_debug()))
    }

    /// Creates the problem of a missing or wrong token.
    pub(super) fn unauthorised() -> Self {
        let mut problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorised",
            "the token is missing or wrong; it is in the file `token` of the data folder, and goes into the header `Authorization: Bearer TOKEN`",
        );
        // Required with 401 (RFC 9110, section 11.6.1).
        problem.0.headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        problem
    }

    /// Adds `retry-after`, rounded up to seconds.
    pub(super) fn after(mut self, time: Duration) -> Self {
        let seconds = time.as_millis().div_ceil(1_000).max(1);
        self.0.headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        self
    }

    /// Replaces the status.
    fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Adds the bound that was exceeded.
    pub(super) fn limit(mut self, limit: u64) -> Self {
        self.0.details.limit = Some(limit);
        self
    }

    /// Adds the agent that failed and the message at which it did.
    pub(super) fn at_message(mut self, agent: &str, id: &str) -> Self {
        self.0.details.agent = Some(agent.to_owned());
        self.0.details.message_id = Some(id.to_owned());
        self
    }

    /// Creates the problem of a code, with a detail that says more than its meaning.
    fn of(meaning: &Meaning, detail: String) -> Self {
        let status = StatusCode::from_u16(meaning.status).expect("the table has proper status codes");
        let problem = Self::new(status, meaning.code, detail);
        if meaning.again { problem.after(AGAIN_AFTER) } else { problem }
    }

    /// Creates the problem of an outcome; `None` if the message was handled.
    pub(super) fn of_outcome(outcome: &Outcome) -> Option<Self> {
        let mut problem = Self::of(Meaning::of_outcome(outcome)?, describe(outcome));
        if let Outcome::Fault(fault) = outcome {
            let some = |text: &str| (!text.trim().is_empty()).then(|| text.trim_end().to_owned());
            problem.0.details.stderr = fault.trail().map(Trail::words).and_then(some);
            problem.0.details.backtrace = fault.trail().map(Trail::backtrace).and_then(some);
        }
        let after = match outcome {
            Outcome::Gave(failure) => failure.retry_after_ms.map(Duration::from_millis),
            _ => None,
        };
        // The agent's time only counts where a retry may help.
        let after = after.filter(|_| problem.0.headers.contains_key(RETRY_AFTER));
        Some(match after {
            Some(after) => problem.after(after),
            None => problem,
        })
    }
}

impl From<AdmitError> for Problem {
    fn from(error: AdmitError) -> Self {
        let problem = Self::of(Meaning::of_admission(&error), error.to_string());
        match error {
            AdmitError::TooLarge { limit } => problem.limit(limit),
            // 422 elsewhere; here 409, like every other request that contradicts an earlier one.
            AdmitError::KeyReused => problem.with_status(StatusCode::CONFLICT),
            _ => problem,
        }
    }
}

impl From<ReconcilerError> for Problem {
    fn from(error: ReconcilerError) -> Self {
        let detail = error.to_string();
        match error {
            ReconcilerError::File(errors) => {
                let mut problem = Self::new(StatusCode::CONFLICT, "file-errors", format!("{detail}; fix the file"));
                problem.0.details.errors = errors;
                problem
            }
            ReconcilerError::Timeout(_) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                format!("{detail}; `caxton ps` says what it waits for"),
            ),
            ReconcilerError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", detail),
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::new(
                StatusCode::CONFLICT,
                "conflict",
                "the key changed at the same moment; read it again and repeat",
            ),
            CommitError::Quota(limit) => {
                let detail = format!("{error}; remove keys, or raise it");
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "quota", detail).limit(limit)
            }
            CommitError::NotANumber(_)
            | CommitError::KeyReused
            | CommitError::Repeated { .. }
            | CommitError::Illegal(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", error.to_string()),
            CommitError::Store(_) => Self::host(error.to_string()),
        }
    }
}

/// Leaves the body to [`write()`], which knows the trace of the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.0.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of a response that is a problem, and passes others through.
pub(super) fn write(mut response: Response, trace: &Trace) -> Response {
    let Some(Problem(parts)) = response.extensions_mut().remove::<Problem>() else { return response };
    let Parts { status, details, headers: own } = *parts;
    let details = Details {
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        trace_id: trace.id(),
        ..details
    };
    // An agent that is unavailable is a normal state and not worth a warning.
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::warn!(
            agent = details.agent,
            message = details.message_id,
            code = details.code,
            trace = details.trace_id,
            "{}",
            details.detail
        );
    }
    let mut body = serde_json::to_vec(&details).expect("texts and numbers can be written");
    body.push(b'\n');
    *response.body_mut() = Body::from(body);
    let headers = response.headers_mut();
    headers.extend(own);
    // That of the empty body which is replaced here.
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}
