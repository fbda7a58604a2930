//! Problems of the API, and their responses: an operator sees errors in full, with the id of the trace.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use serde::{Deserialize, Serialize};

use crate::agent::AdmitError;
use crate::api_types::FileError;
use crate::message::{Diagnostics, Fault};
use crate::problem::{Audience, Problem, ProblemParts};
use crate::reconcile::handle::ReconcilerError;
use crate::store::CommitError;
use crate::telemetry::trace::Trace;

/// The body of an error response.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Details)]
pub(crate) struct ProblemDetails {
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

/// Creates the problem of a failure of the host.
pub(super) fn host_error(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "host-error", detail)
}

/// Creates the problem of an unknown agent, with the nearest of the known names as a suggestion.
pub(super) fn no_agent<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Problem {
    let mut known: Vec<&str> = known.into_iter().collect();
    // Sorted, so that the same one of several near names is suggested each time.
    known.sort_unstable();
    let hint = match caxton_control::config::nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`caxton ps` lists the agents".to_owned(),
    };
    Problem::new(StatusCode::NOT_FOUND, "no-agent", format!("there is no agent `{}`; {hint}", name.escape_debug()))
}

/// Creates the problem of a missing, wrong or expired token.
pub(super) fn unauthorised(detail: impl Into<Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorised", detail)
        // Required with 401 (RFC 9110, section 11.6.1).
        .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

impl From<AdmitError> for Problem {
    fn from(error: AdmitError) -> Self {
        Self::of_admission(&error, Audience::Operator)
    }
}

impl From<ReconcilerError> for Problem {
    fn from(error: ReconcilerError) -> Self {
        let detail = error.to_string();
        match error {
            ReconcilerError::File(errors) => {
                Self::new(StatusCode::CONFLICT, "file-errors", format!("{detail}; fix the file")).with_errors(errors)
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
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "quota", detail).with_limit(limit)
            }
            CommitError::NotANumber(_)
            | CommitError::KeyReused
            | CommitError::Repeated { .. }
            | CommitError::Illegal(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", error.to_string()),
            CommitError::Ahead | CommitError::Store(_) => host_error(error.to_string()),
        }
    }
}

/// Leaves the body to [`write()`], which knows the trace of the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        // Passed in the extensions, because the layer outside alone knows the trace.
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the response that is a problem, and passes others through.
pub(super) fn write(mut response: Response, trace: &Trace) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let ProblemParts { status, code, detail, limit, agent, message_id, fault, errors, headers: own } =
        problem.into_parts();
    let diagnostics = fault.as_ref().and_then(Fault::diagnostics);
    let some = |text: &str| (!text.trim().is_empty()).then(|| text.trim_end().to_owned());
    let details = ProblemDetails {
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        code: code.to_owned(),
        detail: detail.into_owned(),
        limit,
        message_id,
        agent,
        stderr: diagnostics.map(Diagnostics::stderr).and_then(some),
        backtrace: diagnostics.map(Diagnostics::backtrace).and_then(some),
        errors,
        trace_id: trace.id(),
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
