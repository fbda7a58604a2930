//! Schedules of agents.

use axum::extract::State;
use serde::Deserialize;

use super::api::Api;
use super::extract::{MAX_PAGE, Params, page_size};
use super::page::Page;
use super::problem;
use crate::api_types::ScheduleStatus;
use crate::clock;
use crate::directory::schedules::{self, ListRange};
use crate::problem::Problem;

/// The query of the list of schedules.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScheduleListParams {
    /// Selects schedules of this agent.
    agent: Option<String>,
    /// Selects schedules of agents whose name is after this one in the order of names.
    after: Option<String>,
    /// The most to return, unless one agent has more: 1000 by default and at most. The header `link` names the next
    /// page, if there is one.
    limit: Option<u32>,
}

/// Lists schedules with their last and next times in order of agents' names, one page at a time.
#[utoipa::path(
    get, path = "/v1/schedules", tag = "schedules", params(ScheduleListParams),
    responses((status = 200, body = [ScheduleStatus])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ScheduleListParams>,
) -> Result<Page<ScheduleStatus>, Problem> {
    let size = page_size(params.limit, MAX_PAGE)?;
    let agent = match &params.agent {
        Some(name) => Some(api.agent(name).await?),
        None => None,
    };
    let range = ListRange { after: params.after.as_deref(), more_than: size as usize };
    let found = schedules::list(&api.directory, agent.as_deref(), range, clock::now_ms());
    Ok(Page::new("/v1/schedules", found.map_err(problem::host_error)?, size, |schedule| &schedule.agent))
}
