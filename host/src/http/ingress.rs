//! The way of a request: finds its agent, calls it, and finishes the response.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use caxton_control::desired::ResponseMode;
use caxton_control::names::BudgetName;
use caxton_control::route::RESERVED_PREFIX;
use caxton_control::template::Template;
use http::header::{ALLOW, CONTENT_LENGTH, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;

use super::body::{GuardedBody, ReplyBody};
use super::call::{Call, HttpReply};
use super::callers::RouteCaller;
use super::connection::ConnectionContext;
use super::problem::{self, ProblemContext};
use super::{cors, http_agent, message_agent, message_status, path, request_head};
use crate::agent::Agent;
use crate::directory::routes::{RouteGuard, RouteMatch};
use crate::memory_budget::MemoryShortage;
use crate::net::{ClientBody, RequestGuard};
use crate::problem::Problem;
use crate::telemetry::trace::Trace;
use crate::wasm::Kind;

/// The result of routing a request.
enum Routing {
    Agent {
        agent: Arc<Agent>,
        shared: bool,
        mode: ResponseMode,
        streams: bool,
        route: String,
        params: Vec<(String, String)>,
        naming: (Option<Arc<Template>>, Option<BudgetName>),
        guard: Option<Arc<RouteGuard>>,
    },
    Methods(String),
    NoRoute,
}

/// Answers a request. Never fails: every error becomes a response.
pub(super) async fn answer(
    connection: Arc<ConnectionContext>,
    guard: RequestGuard,
    request: Request<Incoming>,
) -> Result<Response<GuardedBody>, Infallible> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let body = ClientBody::new(body, &head);
    let method = head.method.clone();
    let trace = request_head::trace(&head.headers);
    let origin = head.headers.get(ORIGIN).cloned();
    let Answered { agent, shared, mut reply } = reply(&connection, head, body, trace).await;
    // After the agent has answered, so that its own headers of these names are replaced.
    if shared {
        cors::add_headers(&connection.listener.settings.load().cors, origin.as_ref(), reply.response.headers_mut());
    }
    let status = reply.response.status();
    connection.listener.count_response(agent.as_deref(), status, began.elapsed());
    tracing::debug!(
        method = method.as_str(),
        status = status.as_u16(),
        agent = agent.as_ref().map(|agent| agent.name().as_str()),
        took_us = began.elapsed().as_micros(),
        "answered"
    );
    if is_bodiless(&method, status) {
        remove_body(&mut reply.response, guard.is_multiplexed());
    }
    let HttpReply { response, deadline } = reply;
    let ahead = connection.listener.settings.load().buffer_bytes;
    Ok(response.map(|body| GuardedBody::new(body.counted(connection.memory(), ahead), guard, deadline)))
}

/// A reply with the agent that gave it. `shared` is set if the headers of `http.cors` apply.
struct Answered {
    agent: Option<Arc<Agent>>,
    shared: bool,
    reply: HttpReply,
}

impl Answered {
    /// Wraps a response of the host, which belongs to no agent.
    fn host_response(response: Response<ReplyBody>) -> Self {
        Self { agent: None, shared: true, reply: response.into() }
    }
}

async fn reply(connection: &ConnectionContext, mut head: request::Parts, body: ClientBody, trace: Trace) -> Answered {
    let refuse = |problem: Problem, agent: Option<&Agent>| {
        let agent = agent.map(|agent| agent.name().as_str());
        let about = ProblemContext { agent, trace: Some(&trace), ..ProblemContext::default() };
        problem::respond(problem, &about)
    };
    // First of all: what follows quotes and keeps parts of the head.
    if let Err(problem) = request_head::check(&connection.listener.settings.load().hosts, &head) {
        return Answered::host_response(refuse(problem, None));
    }
    // Before anything looks at the path: an agent must see the one that its route was found by.
    request_head::remove_dots(&mut head);
    let directory = &connection.listener.directory;
    // Before routing: the method of a preflight is not the one that the page asks about.
    if let Some(response) = cors::preflight(&connection.listener.settings.load().cors, &directory.routes.load(), &head)
    {
        // A preflight's response has its CORS headers already.
        return Answered { shared: false, ..Answered::host_response(response) };
    }
    if let Some(path) = head.uri.path().strip_prefix(RESERVED_PREFIX) {
        let response = message_status::answer(directory, &head.method, path, &trace);
        // A receipt may still be uncommitted; the status must not show what a crash could take back.
        directory.context.store.wait_durable().await;
        return Answered::host_response(response);
    }
    if head.method == Method::CONNECT {
        // CONNECT names no path, and a response that grants it would turn the connection into a tunnel.
        let problem = Problem::of_code("unsupported").with_detail("the host makes no tunnels (CONNECT)");
        return Answered::host_response(refuse(problem, None));
    }
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        // `OPTIONS *` asks about the server as a whole, which has no methods of its own.
        return Answered::host_response(options(""));
    }
    let (agent, shared, (mode, streams), route, params, (conversation, budget), guard) = match find(connection, &head) {
        Routing::Agent { agent, shared, mode, streams, route, params, naming, guard } => {
            (agent, shared, (mode, streams), route, params, naming, guard)
        }
        Routing::Methods(allow) if head.method == Method::OPTIONS => return Answered::host_response(options(&allow)),
        Routing::Methods(allow) => return Answered::host_response(refuse(problem::wrong_method(&allow), None)),
        Routing::NoRoute => return Answered::host_response(refuse(Problem::of_code("no-route"), None)),
    };
    // Before anything of the agent: who may not call it learns nothing of it.
    let caller = match admit(connection, guard, &mut head).await {
        Ok(caller) => caller,
        Err(problem) => {
            let reply = refuse(problem, Some(&agent)).into();
            return Answered { agent: Some(agent), shared, reply };
        }
    };
    // The kind of the agent, message or HTTP, is known only from its first ready revision.
    let Some(revision) = agent.current() else {
        let reply = refuse(Problem::of_code("unavailable"), Some(&agent)).into();
        return Answered { agent: Some(agent), shared, reply };
    };
    let to = Arc::clone(&agent);
    let call =
        Call { head, body, agent: to, revision, mode, streams, route, params, conversation, budget, caller, trace };
    let reply = call_agent(connection, call).await;
    Answered { agent: Some(agent), shared, reply }
}

/// Calls the agent. The call is expected from the head on, so that a stop waits for it while its body comes.
async fn call_agent(connection: &ConnectionContext, call: Call) -> HttpReply {
    let _expected = call.agent.expect_call();
    match call.revision.kind() {
        // A route that only enqueues has no use for the response of the HTTP face.
        Kind::Both if call.mode != ResponseMode::Enqueue => Box::pin(http_agent::call(connection, call)).await,
        Kind::Message | Kind::Stateful | Kind::Both => {
            let mut response = message_agent::call(connection, call).await;
            // The content type is the agent's word: a browser must not guess another, and run the content.
            let nosniff = HeaderValue::from_static("nosniff");
            response.headers_mut().entry(X_CONTENT_TYPE_OPTIONS).or_insert(nosniff);
            response.into()
        }
        // Boxed, because this future is large and would make that of every message call as large.
        Kind::Http => Box::pin(http_agent::call(connection, call)).await,
    }
}

/// Admits a call by its caller, and by the memory that the host has left.
async fn admit(
    connection: &ConnectionContext,
    guard: Option<Arc<RouteGuard>>,
    head: &mut request::Parts,
) -> Result<RouteCaller, Problem> {
    let caller = RouteCaller::admit(connection, guard, head)?;
    // Before the body is read: what was not sent takes no memory.
    connection.admit_call().await.map_err(|MemoryShortage| Problem::of_code("host-memory"))?;
    Ok(caller)
}

fn find(connection: &ConnectionContext, head: &request::Parts) -> Routing {
    let path = path::normal(head.uri.path());
    // Everything needed is copied out: the snapshot of the routes must not be held during the call.
    let routes = connection.listener.directory.routes.load();
    match routes.find_for(&path, &head.method) {
        RouteMatch::Target(target, params) => Routing::Agent {
            agent: Arc::clone(&target.agent),
            shared: target.is_shared(),
            mode: target.mode,
            streams: target.stream,
            route: target.pattern.as_str().to_owned(),
            naming: (target.conversation.clone(), target.budget.clone()),
            guard: target.guard.clone(),
            params: params.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        },
        RouteMatch::OtherMethods(methods) => Routing::Methods(allowed(&methods)),
        RouteMatch::Nothing => Routing::NoRoute,
    }
}

/// Returns the methods of a path with those that the host adds: HEAD beside GET, and OPTIONS.
fn allowed(methods: &str) -> String {
    let mut names: Vec<&str> = methods.split(", ").collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    names.push("OPTIONS");
    names.join(", ")
}

/// Returns the response to OPTIONS on a path whose agent does not declare the method.
fn options(allow: &str) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let (false, Ok(allow)) = (allow.is_empty(), HeaderValue::from_str(allow)) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// Returns `true` if a response to `method` with this status has no body.
fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Removes the body. The head keeps the length it would have had, where it is known and allowed (RFC 9110, section
/// 8.6).
fn remove_body(response: &mut Response<ReplyBody>, multiplexed: bool) {
    let body = std::mem::replace(response.body_mut(), ReplyBody::Empty);
    match response.status() {
        StatusCode::NO_CONTENT => {
            // Forbidden with 204, also in the response to HEAD.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        StatusCode::NOT_MODIFIED => {
            // Without any body, hyper omits the length in HTTP/1.1.
            if !multiplexed && response.headers().contains_key(CONTENT_LENGTH) {
                *response.body_mut() = ReplyBody::Unseen;
            }
        }
        _ => {
            // An agent that wrote nothing for HEAD has not told the length of its response to GET.
            let length = body.length().filter(|length| *length > 0 || !matches!(body, ReplyBody::Agent(_)));
            if let Some(length) = length {
                response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::AheadBody;

    #[test]
    fn allow_includes_methods_of_the_host() {
        for (methods, expected) in
            [("POST", "POST, OPTIONS"), ("GET, POST", "GET, POST, HEAD, OPTIONS"), ("GET, HEAD", "GET, HEAD, OPTIONS")]
        {
            assert_eq!(allowed(methods), expected, "{methods}");
        }
    }

    #[test]
    fn stripped_responses_keep_their_content_length() {
        let agents = || ReplyBody::Agent(Box::new(AheadBody::whole(None)));
        for (status, body, said, expected) in [
            (200, ReplyBody::Whole("12345".into()), None, Some("5")),
            (200, ReplyBody::Whole(bytes::Bytes::new()), None, Some("0")),
            (200, agents(), None, None),
            (200, agents(), Some("1234"), Some("1234")),
            (304, agents(), Some("1234"), Some("1234")),
            (304, agents(), None, None),
            (204, agents(), Some("0"), None),
            (204, ReplyBody::Empty, None, None),
        ] {
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.headers_mut().extend(said.map(|said| (CONTENT_LENGTH, HeaderValue::from_static(said))));
            remove_body(&mut response, false);
            let found = response.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "{status} {said:?}");
            assert!(matches!(response.body(), ReplyBody::Empty | ReplyBody::Unseen));
        }
    }
}
