//! Extractors of parts of a request, which reject invalid ones with problem details.

use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use caxton_control::units::{parse_duration, print_duration};
use http::StatusCode;
use http::request::Parts;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::memory_budget::MemoryShortage;
use crate::net::LateBody;
use crate::problem::Problem;

/// The largest body in bytes: the largest `limits.message` of any agent (SPEC §5).
pub(super) const MAX_BODY: usize = 10 << 20;

/// The most entries of a page.
pub(super) const MAX_PAGE: u32 = 1_000;
/// The longest time for which a request may wait.
const MAX_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The query, parsed.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(params) = Query::<T>::try_from_uri(&parts.uri)
            .map_err(|rejection| Problem::bad_request(format!("the query: {}", inner(&rejection))))?;
        Ok(Self(params))
    }
}

/// Returns the innermost error, without the wrapping of the extractor.
fn inner(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Checks that a number fits into the store's signed integers.
pub(super) fn bounded(name: &str, number: u64) -> Result<u64, Problem> {
    // A larger number would wrap around in SQLite and select everything.
    if i64::try_from(number).is_ok() {
        return Ok(number);
    }
    Err(Problem::bad_request(format!("{name}={number}: it has to be at most {}", i64::MAX)))
}

/// The parameters of the path, decoded.
pub(super) struct Named<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(named) = Path::<T>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::bad_request("the path is not valid: after decoding, its parts have to be UTF-8"))?;
        Ok(Self(named))
    }
}

/// Bytes that are read and dropped of a body that is too large: a client that is still sending may not see the response
/// otherwise.
const LINGER: u64 = 64 << 20;

/// Reads a body with a bound of its own.
///
/// # Errors
/// `too_large` if the body exceeds `bound` bytes, or `body-broken` if it could not be read.
pub(super) async fn body_within(request: Request, bound: u64, too_large: Problem) -> Result<Bytes, Problem> {
    // Read directly, because axum's limit is that of messages.
    let (mut body, mut all, mut dropped) = (request.into_body(), Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if dropped == 0 && (all.len() + data.len()) as u64 <= bound {
            all.extend_from_slice(&data);
            continue;
        }
        // Frees what was read: the rest is only drained.
        all = Vec::new();
        // Drained up to a bound: a client that sends without end is cut off.
        dropped += data.len() as u64;
        if dropped > LINGER {
            break;
        }
    }
    if dropped > 0 { Err(too_large) } else { Ok(all.into()) }
}

/// Returns the problem of a body that could not be read.
fn broken(error: &(dyn std::error::Error + 'static)) -> Problem {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(late) = error.downcast_ref::<LateBody>() {
            return Problem::late_body(late, "ten times http.stall-timeout");
        }
        if error.is::<MemoryShortage>() {
            return Problem::of_code("host-memory");
        }
        cause = error.source();
    }
    Problem::new(StatusCode::BAD_REQUEST, "body-broken", "the body could not be read to its end")
}

/// The whole body, up to [`MAX_BODY`].
pub(super) struct RequestContent(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for RequestContent {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Bytes::from_request(request, state).await.map(Self).map_err(|rejection| match rejection {
            // Any other failure is one of the connection.
            BytesRejection::FailedToBufferBody(failed) if failed.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    format!("the body is larger than {MAX_BODY} bytes"),
                )
                .with_limit(MAX_BODY as u64)
            }
            rejection => broken(&rejection),
        })
    }
}

/// Returns the number of entries on a page, within its bounds.
pub(super) fn page_size(asked: Option<u32>, usual: u32) -> Result<u32, Problem> {
    match asked {
        None => Ok(usual),
        Some(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        Some(limit) => Err(Problem::bad_request(format!("limit={limit}: it has to be between 1 and {MAX_PAGE}"))),
    }
}

/// Parses the `timeout` of a query, within its bounds.
pub(super) fn parse_timeout(text: &str) -> Result<Duration, Problem> {
    let time = parse_duration(text).map_err(|error| Problem::bad_request(format!("timeout=`{text}`: {error}")))?;
    if time.is_zero() || time > MAX_TIMEOUT {
        let most = print_duration(MAX_TIMEOUT);
        return Err(Problem::bad_request(format!("timeout=`{text}`: it has to be between 1ms and {most}")));
    }
    Ok(time)
}
