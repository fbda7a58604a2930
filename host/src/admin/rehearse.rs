//! Trying a component by hand on the last messages of an agent, beside what runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Deserialize;

use super::Api;
use super::extract::{Named, Params, body_within};
use super::problem::Problem;
use crate::status::{NotRehearsed, Rehearsal, RehearsalWish};
use crate::wasm::MAX_COMPONENT;

/// Messages of a rehearsal, when nothing else is asked and the agent declares none; and at most.
const MESSAGES: u32 = 100;
const MAX_MESSAGES: u32 = 10_000;

/// How much is rehearsed.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RehearseParams {
    /// With how many of the last messages: `rollback.rehearse` of the agent when left out, or else 100; 10000 at most.
    messages: Option<u32>,
}

/// Lets a component handle the last messages of an agent on a copy, with the agent's settings, its state and its memory
/// as they are. The body is the component.
///
/// Nothing of it leaves, and nothing is changed. One at a time (409); a component that cannot take the place of the
/// agent's is 409 as well.
#[utoipa::path(
    post, path = "/v1/agents/{name}/rehearse", tag = "rollouts",
    params(("name" = String, Path, description = "Whose messages"), RehearseParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Rehearsal)),
)]
pub(super) async fn rehearse(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(RehearseParams { messages }): Params<RehearseParams>,
    request: Request,
) -> Result<Json<Rehearsal>, Problem> {
    let agent = api.agent(&name).await?;
    let declared = agent.spec().rollout.rollback.rehearse;
    let messages = messages.unwrap_or(if declared > 0 { declared } else { MESSAGES });
    if messages == 0 || messages > MAX_MESSAGES {
        return Err(Problem::bad_request(format!("`messages` is from 1 to {MAX_MESSAGES}; {messages} is not")));
    }
    // Before the body is read: no more than one such body is in memory.
    let Ok(_one) = Arc::clone(&api.rehearsing).try_acquire_owned() else {
        let why = "another component is being rehearsed; try again when that is done";
        return Err(Problem::new(StatusCode::CONFLICT, "rehearsing", why));
    };
    // Not an extractor, whose bound is that of a message.
    let why = format!("the component is larger than {MAX_COMPONENT} bytes");
    let too_large = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", why).limit(MAX_COMPONENT);
    let component = body_within(request, MAX_COMPONENT, too_large).await?;
    let wish = RehearsalWish { agent: name, component, messages };
    let done = api.control.rehearse(wish).await?;
    done.map(Json).map_err(|why| match why {
        NotRehearsed::Component(why) => Problem::new(StatusCode::CONFLICT, "component-unusable", why),
        NotRehearsed::Unavailable(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why),
        NotRehearsed::Host(why) => Problem::host(why),
    })
}
