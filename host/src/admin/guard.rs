//! Access control: the trace of a request, its host name, its token, and its rate.

use std::fmt;
use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::api::Api;
use super::problem;
use super::rate::RATE;
use crate::problem::Problem;
use crate::telemetry::trace::Trace;

/// The start of the `user-agent` of the command line.
pub(crate) const CLI_AGENT: &str = "caxton-cli";

/// The identity of a caller, for the event log and as the sender of messages.
#[derive(Debug, Clone)]
pub(super) struct Caller(String);

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The outermost layer: adds the trace, and writes the body of problems.
pub(super) async fn enter(mut request: Request, next: Next) -> Response {
    let trace = trace(request.headers());
    // Kept for the log, because the handlers consume the request.
    let asked = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(trace.clone());
    let response = next.run(request).await;
    tracing::debug!(method = %asked.0, path = asked.1, status = response.status().as_u16(), trace = trace.id());
    problem::write(response, &trace)
}

/// Passes requests whose host name is one of this machine.
pub(super) async fn only_ours(request: Request, next: Next) -> Result<Response, Problem> {
    if host_is_ours(request.headers(), request.uri()) {
        return Ok(next.run(request).await);
    }
    let detail =
        "without TLS the management API answers to `localhost` and to addresses of the loopback interface only";
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong-host", detail))
}

fn trace(headers: &HeaderMap) -> Trace {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text("traceparent").and_then(|parent| Trace::parse(parent, text("tracestate"))).unwrap_or_else(Trace::start)
}

/// Returns `true` if the host name of a request always points to this machine. A page of another site whose name was
/// redirected to the loopback interface (DNS rebinding) sends that site's name.
fn host_is_ours(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => uri.authority().map(http::uri::Authority::as_str),
        // Two names: proxies and servers choose differently, which is a way around this check.
        (Some(_), Some(_)) => None,
    };
    let Some(host) = host.and_then(|host| host.parse::<http::uri::Authority>().ok()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Passes requests with the token, within the rate.
pub(super) async fn authorise(State(api): State<Api>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    // The scheme is case-insensitive (RFC 9110, section 11.1).
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    // Before the rate: requests without the token must not use up that of the operator.
    if !given.is_some_and(|given| api.token.is(given)) {
        return Err(problem::unauthorised());
    }
    api.take_request().map_err(|wait| {
        let detail = format!("more than {RATE} requests in a second; wait a moment");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail).with_retry_after(wait)
    })?;
    // Part of the name of the caller only: nothing is allowed because of it.
    let cli = request.headers().get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(CLI_AGENT.as_bytes()));
    let way = if cli { "cli" } else { "api" };
    request.extensions_mut().insert(Caller(format!("{way}:{}", api.token.fingerprint())));
    Ok(next.run(request).await)
}

/// Answers requests for unknown paths.
pub(super) async fn no_path(method: Method, uri: Uri) -> Problem {
    let detail = format!("nothing is at {method} {}; /v1/openapi.json describes what there is", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "no-path", detail)
}

/// Answers requests with a method that the path does not take.
pub(super) async fn wrong_method(method: Method) -> Problem {
    let detail = format!("the path does not take {method}; /v1/openapi.json describes what there is");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong-method", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_of_other_machines_are_refused() {
        for (hosts, uri, ours) in [
            (&["localhost"][..], "/", true),
            (&["LocalHost:8081"], "/", true),
            (&["127.0.0.1:8081"], "/", true),
            (&["127.9.9.9"], "/", true),
            (&["[::1]:8081"], "/", true),
            (&[], "http://127.0.0.1:8081/", true),
            (&["evil.example"], "/", false),
            (&["localhost.evil.example"], "/", false),
            (&["127.0.0.1.nip.example"], "/", false),
            (&["192.168.1.7"], "/", false),
            (&["0.0.0.0"], "/", false),
            (&["localhost", "evil.example"], "/", false),
            (&[""], "/", false),
            (&[], "/", false),
        ] {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, host.parse().unwrap());
            }
            assert_eq!(host_is_ours(&headers, &uri.parse().unwrap()), ours, "{hosts:?} {uri}");
        }
    }
}
