//! The sending of messages to agents through the API.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::api::Api;
use super::extract::{Named, Params, RequestContent, parse_timeout};
use super::guard::Caller;
use super::problem;
use crate::agent::{Accepted, Agent, Key, Submission};
use crate::api_types::AcceptedMessage;
use crate::message::Outcome;
use crate::problem::{Audience, Problem};
use crate::telemetry::trace::Trace;
use crate::wasm::Kind;
use caxton_control::access::CallerIdentity;

/// The time that an answer is waited for by default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The content type of a body whose request names none.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// The query of a message: all of it but the content.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MessageParams {
    /// The communicative act of FIPA00037; `request` by default.
    performative: Option<String>,
    /// The conversation that it belongs to. A new one starts by default.
    conversation: Option<String>,
    /// The interaction protocol that it is part of.
    protocol: Option<String>,
    /// The vocabulary of its content.
    ontology: Option<String>,
    /// The time to wait for the answer, such as `500ms` or `1m30s`; 60s by default, at most 1h.
    timeout: Option<String>,
}

/// Sends a message to an agent and waits for its answer.
///
/// The body is the content, `Content-Type` its type. The response has the content and the type of the answer, and the
/// headers `caxton-message-id`, `caxton-conversation`, `caxton-performative` and `caxton-revision`. 204 if the agent
/// gave no answer.
#[utoipa::path(
    post, path = "/v1/agents/{name}/invoke", tag = "messages",
    params(("name" = String, Path, description = "The agent"), MessageParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The content"),
    responses(
        (status = 200, description = "The content of the answer", content_type = "*/*", body = Vec<u8>),
        (status = 204, description = "Handled without an answer"),
    ),
)]
pub(super) async fn invoke(
    State(api): State<Api>,
    Named(name): Named<String>,
    draft: SubmissionDraft,
) -> Result<Response, Problem> {
    let agent = find_agent(&api, &name).await?;
    let (accepted, answer) = agent.ask(draft.0).await?;
    if let Some(problem) = Problem::of_outcome(&answer.outcome, Audience::Operator) {
        return Err(problem.with_message(&name, &accepted.id));
    }
    let mut response = match answer.outcome {
        Outcome::Reply(reply) => {
            let mut response = Response::new(Body::from(reply.content));
            insert(response.headers_mut(), CONTENT_TYPE, &reply.content_type);
            let performative = reply.performative.as_str();
            insert(response.headers_mut(), HeaderName::from_static("caxton-performative"), performative);
            response
        }
        // Failures became problems above, so that the message was handled without a reply.
        _ => StatusCode::NO_CONTENT.into_response(),
    };
    let headers = response.headers_mut();
    insert(headers, HeaderName::from_static("caxton-message-id"), &accepted.id);
    insert(headers, HeaderName::from_static("caxton-conversation"), &accepted.conversation);
    if let Some(revision) = answer.revision {
        insert(headers, HeaderName::from_static("caxton-revision"), &revision.to_string());
    }
    Ok(response)
}

/// Sends a message to an agent and returns when it is durable.
///
/// With `Idempotency-Key`, a repeated request within 24 hours returns the same message instead of sending another.
#[utoipa::path(
    post, path = "/v1/agents/{name}/messages", tag = "messages",
    params(
        ("name" = String, Path, description = "The agent"), MessageParams,
        ("Idempotency-Key" = Option<String>, Header, description = "A unique name for the message, chosen by the client"),
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The content"),
    responses((status = 202, description = "It is in the mailbox", body = AcceptedMessage)),
)]
pub(super) async fn send(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named(name): Named<String>,
    headers: HeaderMap,
    draft: SubmissionDraft,
) -> Result<(StatusCode, Json<AcceptedMessage>), Problem> {
    let agent = find_agent(&api, &name).await?;
    let caller = CallerIdentity::token(caller.name());
    let key = Key::of(&headers, &draft.0, Some(caller.as_str())).map_err(Problem::bad_request)?;
    // The default timeout is that of a caller that waits; this one does not.
    let submission = Submission { timeout: None, ..draft.0 };
    let Accepted { id, conversation, tree: _ } = agent.enqueue(submission, key).await?;
    Ok((StatusCode::ACCEPTED, Json(AcceptedMessage { id, conversation })))
}

/// Returns the agent of this name, unless it is an HTTP agent.
async fn find_agent(api: &Api, name: &str) -> Result<Arc<Agent>, Problem> {
    let agent = api.agent(name).await?;
    // An agent that was never ready may turn out to take messages, so that its mailbox accepts them.
    if agent.current().is_some_and(|current| current.kind() == Kind::Http) {
        let detail = format!("`{name}` is an HTTP agent and takes no messages; call it by one of its routes");
        return Err(Problem::new(StatusCode::CONFLICT, "http-agent", detail));
    }
    Ok(agent)
}

/// Sets a header. A value that HTTP cannot carry is left out.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// A message from a request.
pub(super) struct SubmissionDraft(Submission);

impl<S: Send + Sync> FromRequest<S> for SubmissionDraft {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let Params(params) = Params::<MessageParams>::from_request_parts(&mut parts, state).await?;
        // Set by the guard, in front of all handlers; without it the request came another way.
        let Ok(Extension(caller)) = Extension::<Caller>::from_request_parts(&mut parts, state).await else {
            return Err(problem::host_error("the request has passed no guard"));
        };
        // The message continues the trace of the request, which the outermost layer has set.
        let trace = parts.extensions.get::<Trace>().cloned();
        let content_type = match parts.headers.get(CONTENT_TYPE).map(HeaderValue::to_str) {
            None => UNKNOWN_TYPE.to_owned(),
            Some(Ok(text)) => text.to_owned(),
            Some(Err(_)) => return Err(Problem::bad_request("the header content-type has characters beyond ASCII")),
        };
        let performative = params.performative.as_deref().unwrap_or("request");
        let performative = performative.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
        let timeout = params.timeout.as_deref().map_or(Ok(DEFAULT_TIMEOUT), parse_timeout)?;
        // The body is read last: a bad query is refused without it.
        let request = Request::from_parts(parts, body);
        let RequestContent(content) = RequestContent::from_request(request, state).await?;
        Ok(Self(Submission {
            sender: caller.to_string(),
            performative,
            content: content.into(),
            held: None,
            content_type,
            ontology: params.ontology,
            protocol: params.protocol,
            conversation: params.conversation,
            timeout: Some(timeout),
            headers: Vec::new(),
            trace,
            // That of the agent, if it has one.
            budget: None,
        }))
    }
}
