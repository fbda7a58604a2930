//! From a request to whom it is for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use caxton_control::desired::Mode;
use caxton_control::route::OWN;
use caxton_control::template::Template;
use http::header::{ALLOW, CONTENT_LENGTH, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;

use super::body::{Answering, ReplyBody};
use super::listen::Line;
use super::problem::{About, Problem};
use super::{cors, head, message, path, status, web};
use crate::agent::{Agent, Revision};
use crate::listener::Visit;
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
    /// The template that names its conversation, where the route has one.
    pub(super) conversation: Option<Arc<Template>>,
    pub(super) trace: Trace,
}

impl Call {
    /// The conversation that the request belongs to, where it or its route says so.
    pub(super) fn conversation(&self) -> Result<Option<String>, Problem> {
        let header = |name: &str| self.head.headers.get(name).and_then(|value| value.to_str().ok());
        let Some(template) = &self.conversation else {
            return Ok(header("caxton-conversation").map(str::to_owned));
        };
        let param = |name: &str| self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        template.fill(param, header).map(Some).map_err(|missing| {
            Problem::bad_request(format!("the header {missing} names the conversation of this route, and is missing"))
        })
    }
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
    Agent {
        agent: Arc<Agent>,
        shared: bool,
        mode: Mode,
        route: String,
        params: Vec<(String, String)>,
        conversation: Option<Arc<Template>>,
    },
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
    let origin = head.headers.get(ORIGIN).cloned();
    let Answered { agent, shared, mut reply } = reply(&line, head, body, trace).await;
    if shared {
        cors::share(&line.server.settings.load().cors, origin.as_ref(), reply.response.headers_mut());
    }
    let status = reply.response.status();
    line.server.answered(agent.as_deref(), status, began.elapsed());
    tracing::debug!(
        method = method.as_str(),
        status = status.as_u16(),
        agent = agent.as_ref().map(|agent| agent.name().as_str()),
        took_us = began.elapsed().as_micros(),
        "answered"
    );
    if is_bodiless(&method, status) {
        strip(&mut reply.response, visit.is_multiplexed());
    }
    let Reply { response, deadline } = reply;
    Ok(response.map(|body| Answering::new(body, visit, deadline)))
}

/// A reply, whose it is, and whether `http.cors` holds for it.
struct Answered {
    agent: Option<Arc<Agent>>,
    shared: bool,
    reply: Reply,
}

impl Answered {
    /// Of the host's own.
    fn by_host(response: Response<ReplyBody>) -> Self {
        Self { agent: None, shared: true, reply: response.into() }
    }
}

async fn reply(line: &Line, head: request::Parts, body: Incoming, trace: Trace) -> Answered {
    let refuse = |problem: Problem, agent: Option<&Agent>| {
        let agent = agent.map(|agent| agent.name().as_str());
        let about = About { agent, trace: Some(&trace), ..About::default() };
        problem.respond(&about)
    };
    if let Err(problem) = head::check_host(&head) {
        return Answered::by_host(refuse(problem, None));
    }
    let commons = &line.server.commons;
    if let Some(response) = cors::preflight(&line.server.settings.load().cors, &commons.routes.load(), &head) {
        return Answered { shared: false, ..Answered::by_host(response) };
    }
    if let Some(path) = head.uri.path().strip_prefix(OWN) {
        let response = status::answer(commons, &head.method, path, &trace);
        commons.store.safe().await;
        return Answered::by_host(response);
    }
    if head.method == Method::CONNECT {
        // It names no path, and what follows a response would not be HTTP.
        return Answered::by_host(refuse(Problem::new("no-route"), None));
    }
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        // About the host as a whole, of which there is nothing to say.
        return Answered::by_host(options(""));
    }
    let (agent, shared, mode, route, params, conversation) = match find(line, &head) {
        Whom::Agent { agent, shared, mode, route, params, conversation } => {
            (agent, shared, mode, route, params, conversation)
        }
        Whom::Methods(allow) if head.method == Method::OPTIONS => return Answered::by_host(options(&allow)),
        Whom::Methods(allow) => return Answered::by_host(refuse(Problem::wrong_method(allow), None)),
        Whom::Nobody => return Answered::by_host(refuse(Problem::new("no-route"), None)),
    };
    // Before the first revision is ready nobody knows what the agent understands.
    let Some(revision) = agent.current() else {
        let reply = refuse(Problem::new("unavailable"), Some(&agent)).into();
        return Answered { agent: Some(agent), shared, reply };
    };
    let kind = revision.kind();
    let call = Call { head, body, agent: Arc::clone(&agent), revision, mode, route, params, conversation, trace };
    let reply = match kind {
        Kind::Message | Kind::Stateful => message::call(line, call).await.into(),
        // Large, and not what has to be fast above all.
        Kind::Http => Box::pin(web::call(line, call)).await,
    };
    Answered { agent: Some(agent), shared, reply }
}

fn find(line: &Line, head: &request::Parts) -> Whom {
    let path = path::normal(head.uri.path());
    let routes = line.server.commons.routes.load();
    match routes.find_for(&path, &head.method) {
        Found::Target(target, params) => Whom::Agent {
            agent: Arc::clone(&target.agent),
            shared: target.is_shared(),
            mode: target.mode,
            route: target.pattern.as_str().to_owned(),
            conversation: target.conversation.clone(),
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

/// Whether a response to this method with this status has no body.
fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Takes the body away. The head says how long it would have been, where that is known and may be said (RFC 9110,
/// section 8.6).
fn strip(response: &mut Response<ReplyBody>, multiplexed: bool) {
    let body = std::mem::replace(response.body_mut(), ReplyBody::Empty);
    match response.status() {
        StatusCode::NO_CONTENT => {
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        StatusCode::NOT_MODIFIED => {
            // HTTP/1.1 leaves a length out where there is no body at all.
            if !multiplexed && response.headers().contains_key(CONTENT_LENGTH) {
                *response.body_mut() = ReplyBody::Unseen;
            }
        }
        _ => {
            // An agent that wrote nothing has not said what it would write for a GET.
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
    use crate::wasm::ResponseBody;

    #[test]
    fn methods_that_the_host_answers_are_allowed_as_well() {
        for (methods, expected) in
            [("POST", "POST, OPTIONS"), ("GET, POST", "GET, POST, HEAD, OPTIONS"), ("GET, HEAD", "GET, HEAD, OPTIONS")]
        {
            assert_eq!(allowed(methods), expected, "{methods}");
        }
    }

    #[test]
    fn a_response_without_a_body_says_how_long_it_would_have_been_where_it_may() {
        let agents = || ReplyBody::Agent(ResponseBody::Whole(None));
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
            strip(&mut response, false);
            let found = response.headers().get(CONTENT_LENGTH).map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "{status} {said:?}");
            assert!(matches!(response.body(), ReplyBody::Empty | ReplyBody::Unseen));
        }
    }
}
