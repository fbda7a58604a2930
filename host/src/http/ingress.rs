//! From a request to whom it is for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use caxton_control::desired::Mode;
use caxton_control::route::OWN;
use http::header::{ALLOW, CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;

use super::body::{Answering, ReplyBody};
use super::listen::Line;
use super::problem::{About, Problem};
use super::pulse::Visit;
use super::{head, message, path, status, web};
use crate::agent::{Agent, Revision};
use crate::routes::Found;
use crate::trace::Trace;
use crate::wasm::Kind;

/// A request whose agent is known.
pub(super) struct Call {
    pub(super) head: request::Parts,
    pub(super) body: Incoming,
    pub(super) agent: Arc<Agent>,
    pub(super) revision: Arc<Revision>,
    pub(super) mode: Mode,
    /// The route, as it was declared.
    pub(super) route: String,
    /// The values of the route's parameters, as they stand in the path.
    pub(super) params: Vec<(String, String)>,
    pub(super) trace: Trace,
}

/// What a request comes to.
pub(super) struct Reply {
    pub(super) response: Response<ReplyBody>,
    /// When the response's body has to be complete, if it is still being made.
    pub(super) deadline: Option<Instant>,
}

impl From<Response<ReplyBody>> for Reply {
    fn from(response: Response<ReplyBody>) -> Self {
        Self { response, deadline: None }
    }
}

/// Whom a request is for.
enum Whom {
    Agent { agent: Arc<Agent>, mode: Mode, route: String, params: Vec<(String, String)> },
    Methods(String),
    Nobody,
}

/// Answers a request.
pub(super) async fn answer(
    line: Arc<Line>,
    visit: Visit,
    request: Request<Incoming>,
) -> Result<Response<Answering>, Infallible> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let method = head.method.clone();
    let trace = head::trace(&head.headers);
    let (agent, mut reply) = reply(&line, head, body, trace).await;
    let status = reply.response.status();
    line.server.answered(agent.as_deref(), status, began.elapsed());
    tracing::debug!(
        method = method.as_str(),
        status = status.as_u16(),
        agent = agent.as_ref().map(|agent| agent.name().as_str()),
        took_us = began.elapsed().as_micros(),
        "answered"
    );
    if method == Method::HEAD {
        strip(&mut reply.response);
    }
    let Reply { response, deadline } = reply;
    Ok(response.map(|body| Answering::new(body, visit, deadline)))
}

async fn reply(line: &Line, head: request::Parts, body: Incoming, trace: Trace) -> (Option<Arc<Agent>>, Reply) {
    let refuse = |problem: Problem, agent: Option<&Agent>| {
        let about = About { agent: agent.map(|agent| agent.name().as_str()), message: None, trace: Some(&trace), details: false };
        Reply::from(problem.respond(&about))
    };
    if let Err(problem) = head::check_host(&head) {
        return (None, refuse(problem, None));
    }
    if let Some(path) = head.uri.path().strip_prefix(OWN) {
        let response = status::answer(&line.server.commons, &head.method, path, &trace);
        line.server.commons.store.safe().await;
        return (None, response.into());
    }
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        // About the host as a whole, of which there is nothing to say.
        return (None, options("").into());
    }
    let (agent, mode, route, params) = match find(line, &head) {
        Whom::Agent { agent, mode, route, params } => (agent, mode, route, params),
        Whom::Methods(allow) if head.method == Method::OPTIONS => return (None, options(&allow).into()),
        Whom::Methods(allow) => return (None, refuse(Problem::wrong_method(allow), None)),
        Whom::Nobody => return (None, refuse(Problem::new("no-route"), None)),
    };
    // Before the first revision is ready nobody knows what the agent understands.
    let Some(revision) = agent.current() else {
        let reply = refuse(Problem::new("unavailable"), Some(&agent));
        return (Some(agent), reply);
    };
    let kind = revision.kind();
    let call = Call { head, body, agent: Arc::clone(&agent), revision, mode, route, params, trace };
    let reply = match kind {
        Kind::Message | Kind::Stateful => message::call(line, call).await.into(),
        // Large, and not what has to be fast above all.
        Kind::Http => Box::pin(web::call(line, call)).await,
    };
    (Some(agent), reply)
}

fn find(line: &Line, head: &request::Parts) -> Whom {
    let path = path::normal(head.uri.path());
    let routes = line.server.commons.routes.load();
    let mut found = routes.find(&path, &head.method);
    if head.method == Method::HEAD && matches!(found, Found::OtherMethods(_)) {
        // What can be got can be asked for without its body (RFC 9110, section 9.3.2).
        found = routes.find(&path, &Method::GET);
    }
    match found {
        Found::Target(target, params) => Whom::Agent {
            agent: Arc::clone(&target.agent),
            mode: target.mode,
            route: target.pattern.as_str().to_owned(),
            params: params.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        },
        Found::OtherMethods(methods) => Whom::Methods(allowed(&methods)),
        Found::Nothing => Whom::Nobody,
    }
}

/// The methods that a path takes, with those that the host answers itself.
fn allowed(methods: &str) -> String {
    let mut names: Vec<&str> = methods.split(", ").collect();
    if names.contains(&"GET") && !names.contains(&"HEAD") {
        names.push("HEAD");
    }
    names.push("OPTIONS");
    names.join(", ")
}

/// Says which methods a path takes, for an agent that does not say itself.
fn options(allow: &str) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let (false, Ok(allow)) = (allow.is_empty(), HeaderValue::from_str(allow)) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// Takes the body away and says how long it would have been.
fn strip(response: &mut Response<ReplyBody>) {
    let length = response.body().length();
    *response.body_mut() = ReplyBody::Empty;
    if let (Some(length), true) = (length, response.status() != StatusCode::NO_CONTENT) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_that_the_host_answers_are_allowed_as_well() {
        for (methods, expected) in
            [("POST", "POST, OPTIONS"), ("GET, POST", "GET, POST, HEAD, OPTIONS"), ("GET, HEAD", "GET, HEAD, OPTIONS")]
        {
            assert_eq!(allowed(methods), expected, "{methods}");
        }
    }

    #[test]
    fn a_response_to_head_says_how_long_it_would_have_been() {
        let mut response = Response::new(ReplyBody::Whole("12345".into()));
        strip(&mut response);
        assert_eq!(response.headers()[CONTENT_LENGTH], "5");
        assert!(matches!(response.body(), ReplyBody::Empty));
    }
}
