//! The rehearsal of a component with the latest messages of an agent, beside what runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Deserialize;

use super::api::Api;
use super::extract::{Named, Params, body_within};
use super::problem;
use crate::api_types::{RehearsalError, RehearsalRequest, RehearsalResult};
use crate::problem::Problem;
use crate::wasm::MAX_COMPONENT;

/// The number of messages if neither the request nor the agent sets one, and the largest number.
const MESSAGES: u32 = 100;
const MAX_MESSAGES: u32 = 10_000;

/// The query of a rehearsal.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RehearseParams {
    /// The number of latest messages: `rollback.rehearse` of the agent by default, or else 100; at most 10000.
    messages: Option<u32>,
}

/// Lets a component handle the latest messages of an agent on a copy of its state and memory, with its settings. The
/// body is the component.
///
/// Its effects are dropped, and nothing is changed. Only one runs at a time (409). A component that cannot replace the
/// agent's also gives 409.
#[utoipa::path(
    post, path = "/v1/agents/{name}/rehearse", tag = "rollouts",
    params(("name" = String, Path, description = "The agent's name"), RehearseParams),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = RehearsalResult)),
)]
pub(super) async fn rehearse(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(RehearseParams { messages }): Params<RehearseParams>,
    request: Request,
) -> Result<Json<RehearsalResult>, Problem> {
    let agent = api.agent(&name).await?;
    let declared = agent.spec().rollout.rollback.rehearse;
    let messages = messages.unwrap_or(if declared > 0 { declared } else { MESSAGES });
    // Each message may be handled by two revisions while the request waits.
    if messages == 0 || messages > MAX_MESSAGES {
        return Err(Problem::bad_request(format!("`messages` is from 1 to {MAX_MESSAGES}; {messages} is not")));
    }
    // Taken before the body is read, so that only one such body is in memory.
    let Ok(_one) = Arc::clone(&api.rehearsing).try_acquire_owned() else {
        let why = "another component is being rehearsed; try again when that is done";
        return Err(Problem::new(StatusCode::CONFLICT, "rehearsing", why));
    };
    // Read directly, because the bound of the extractor is that of messages.
    let why = format!("the component is larger than {MAX_COMPONENT} bytes");
    let too_large = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", why).with_limit(MAX_COMPONENT);
    let component = body_within(request, MAX_COMPONENT, too_large).await?;
    let request = RehearsalRequest { agent: name, component, messages };
    let done = api.reconciler.rehearse(request).await?;
    done.map(Json).map_err(|why| match why {
        RehearsalError::Component(why) => Problem::new(StatusCode::CONFLICT, "component-unusable", why),
        RehearsalError::Unavailable(why) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why),
        RehearsalError::Host(why) => problem::host_error(why),
    })
}
