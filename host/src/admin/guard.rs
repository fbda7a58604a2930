//! Access control: the trace of a request, its host name, its token, its rate, the role of its token, and the record of
//! what it did.

use std::fmt;
use std::net::IpAddr;

use axum::Extension;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use caxton_control::access::{AuditEntry, AuditRequest, Role, TokenName, cut_target, role_of};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, REFERRER_POLICY, USER_AGENT,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::api::{Api, RATE};
use super::problem;
use crate::access::{AccessRefusal, AuditLog, Identity, bearer_token};
use crate::bounds;
use crate::problem::Problem;
use crate::store::lacks_room;
use crate::telemetry::trace::Trace;

/// The start of the `user-agent` of the command line.
pub(crate) const CLI_AGENT: &str = "caxton-cli";

/// Headers of all responses, for a browser that is led here: nothing is shown in a frame, run, guessed to be of another
/// type, read by another site, or kept.
const SECURITY_HEADERS: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

/// The address of the client of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// The identity of a caller, for the event log and as the sender of messages: `api:` or `cli:`, and the name of its
/// token.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    way: &'static str,
    identity: Identity,
}

impl Caller {
    /// Returns the name of the token.
    pub(super) fn name(&self) -> &TokenName {
        &self.identity.name
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.way, self.identity.name)
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
    let mut response = problem::write(response, &trace);
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
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

/// Passes requests with a token, within its rate.
pub(super) async fn authorise(State(api): State<Api>, mut request: Request, next: Next) -> Result<Response, Problem> {
    // Before the rate: requests without a token must not use up that of an operator.
    let identity = match api.access.identify(bearer(request.headers()), peer(&request)) {
        Ok(identity) => identity,
        Err(refusal) => {
            let problem = refused(&refusal);
            // A reader without a token is a probe or a browser, and would only fill the log.
            if refusal != AccessRefusal::Missing || changes(request.method()) {
                let by = if let AccessRefusal::Expired(name) = refusal { Some(name) } else { None };
                record_refused(&api, by, &problem, peer(&request), describe(&request)).await;
            }
            return Err(problem);
        }
    };
    api.take_request(&identity.name, api.access.now()).map_err(|wait| {
        let detail = format!("more than {RATE} requests in a second with the token `{}`; wait a moment", identity.name);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail).with_retry_after(wait)
    })?;
    // Part of the name of the caller only: nothing is allowed because of it.
    let cli = request.headers().get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(CLI_AGENT.as_bytes()));
    request.extensions_mut().insert(Caller { way: if cli { "cli" } else { "api" }, identity });
    Ok(next.run(request).await)
}

/// Returns the token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    bearer_token(headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok())?)
}

/// Returns the problem of a caller that is turned away.
fn refused(refusal: &AccessRefusal) -> Problem {
    match refusal {
        AccessRefusal::Missing | AccessRefusal::Wrong => problem::unauthorised(
            "the token is missing or wrong; that of this machine is in the file `token` of the data folder, and `caxton token make` makes others; it goes into the header `Authorization: Bearer TOKEN`",
        ),
        AccessRefusal::Expired(name) => {
            problem::unauthorised(format!("the token `{name}` has expired; `caxton token rotate {name}` makes another"))
        }
        AccessRefusal::TooMany(wait) => {
            let detail = "too many wrong tokens came from this address; wait a moment";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail).with_retry_after(*wait)
        }
    }
}

/// The path of the compaction, which makes the room that the audit log may lack.
const MAKES_ROOM: &str = "/v1/store/compact";

/// Passes requests whose token has the role that the route needs, and records those that may change something. A layer of
/// each route, so that it runs only for methods that the path takes: others are answered with 405, whatever the role.
///
/// A change is recorded before it acts, and once more with its result. The first record makes that nothing happens
/// unrecorded, also if the host is killed in the middle; the second tells what came of it.
pub(super) async fn require_role(
    State(api): State<Api>,
    path: MatchedPath,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (needed, identity) = (role_of(request.method().as_str(), path.as_str()), caller.identity);
    if identity.role < needed {
        let problem = missing_role(request.method(), path.as_str(), needed, &identity);
        record_refused(&api, Some(identity.name), &problem, peer(&request), describe(&request)).await;
        return Err(problem);
    }
    if !changes(request.method()) {
        return Ok(next.run(request).await);
    }
    let entry = AuditEntry::Asked { by: identity.name, role: identity.role, request: describe(&request) };
    let (audit, makes_room) = (&api.access.audit, path.as_str() == MAKES_ROOM);
    let of = match audit.record(entry.clone()).await {
        Ok(number) => Some(number),
        // It changes nothing that the store says, and without it a full disk would stay full, for the audit log as well.
        Err(error) if makes_room && lacks_room(&error) => None,
        Err(error) => {
            let detail = format!("the audit log cannot be written, and nothing is done without it: {error}");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-audited", detail));
        }
    };
    let mut open = OpenRecord { audit: audit.clone(), of };
    let response = next.run(request).await;
    if of.is_none() {
        // Now that there is room.
        open.of = audit.record(entry).await.ok();
    }
    open.close(response.status()).await;
    Ok(response)
}

/// Returns `true` if a request with this method may change something (RFC 9110, section 9.2.1).
fn changes(method: &Method) -> bool {
    !method.is_safe()
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// Describes a request for the audit log.
fn describe(request: &Request) -> AuditRequest {
    let extensions = request.extensions();
    let target = request.uri().path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    AuditRequest {
        from: peer(request).map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
        method: request.method().to_string(),
        route: extensions.get::<MatchedPath>().map_or("-", MatchedPath::as_str).replace("{*", "{"),
        target: cut_target(target),
        trace: extensions.get::<Trace>().map_or_else(String::new, Trace::id),
    }
}

async fn record_refused(
    api: &Api,
    by: Option<TokenName>,
    problem: &Problem,
    peer: Option<IpAddr>,
    request: AuditRequest,
) {
    api.access.record_refused(by, problem.status().as_u16(), peer, request).await;
}

/// A request in the audit log that has no result yet.
struct OpenRecord {
    audit: AuditLog,
    of: Option<u64>,
}

impl OpenRecord {
    async fn close(mut self, status: StatusCode) {
        if let Some(of) = self.of.take() {
            self.audit.note(AuditEntry::Answered { of, status: status.as_u16() }).await;
        }
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        // The client is gone, and the handler with it.
        if let Some(of) = self.of.take() {
            self.audit.note_now(AuditEntry::Unanswered { of });
        }
    }
}

/// Returns the problem of a token whose role is not enough.
fn missing_role(method: &Method, path: &str, needed: Role, identity: &Identity) -> Problem {
    let path = path.replace("{*", "{");
    let detail =
        format!("{method} {path} needs a token with the role `{needed}`; `{}` has `{}`", identity.name, identity.role);
    Problem::new(StatusCode::FORBIDDEN, "role-needed", detail)
}

/// Answers requests for unknown paths.
pub(super) async fn no_path(method: Method, uri: Uri) -> Problem {
    let (method, path) = (bounds::quoted(method.as_str()), bounds::quoted(uri.path()));
    let detail = format!("nothing is at {method} {path}; /v1/openapi.json describes what there is");
    Problem::new(StatusCode::NOT_FOUND, "no-path", detail)
}

/// Answers requests with a method that the path does not take.
pub(super) async fn wrong_method(method: Method) -> Problem {
    let method = bounds::quoted(method.as_str());
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
