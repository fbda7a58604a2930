//! Schedules of agents.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::api::Api;
use super::extract::Params;
use super::problem;
use crate::api_types::ScheduleStatus;
use crate::clock;
use crate::directory::schedules;
use crate::problem::Problem;

/// The query of the list of schedules.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScheduleListParams {
    /// Selects schedules of this agent.
    agent: Option<String>,
}

/// Lists schedules with their last and next times, in order of agents' names.
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules", params(ScheduleListParams),
    responses((status = 200, body = [ScheduleStatus])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ScheduleListParams>,
) -> Result<Json<Vec<ScheduleStatus>>, Problem> {
    let agent = match &params.agent {
        Some(name) => Some(api.agent(name).await?),
        None => None,
    };
    schedules::list(&api.directory, agent.as_deref(), clock::now_ms()).map(Json).map_err(problem::host_error)
}
