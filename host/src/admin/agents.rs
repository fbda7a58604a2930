//! The host and its agents, as they are.

use axum::Json;
use axum::extract::State;

use super::Api;
use super::extract::Named;
use super::problem::Problem;
use crate::status::{AgentStatus, HostStatus, RevisionStatus};

/// The host as a whole.
#[utoipa::path(get, path = "/v1/host", tag = "host", responses((status = 200, body = HostStatus)))]
pub(super) async fn show_host(State(api): State<Api>) -> Result<Json<HostStatus>, Problem> {
    Ok(Json(api.control.status().await?))
}

/// All agents, in order of name.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", responses((status = 200, body = [AgentStatus])))]
pub(super) async fn list_agents(State(api): State<Api>) -> Result<Json<Vec<AgentStatus>>, Problem> {
    Ok(Json(api.control.agents().await?))
}

/// One agent.
#[utoipa::path(
    get, path = "/v1/agents/{name}", tag = "agents",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = AgentStatus)),
)]
pub(super) async fn show_agent(
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<AgentStatus>, Problem> {
    Ok(Json(find(&api, &name).await?))
}

/// An agent's revisions that are not ended, and the newest.
#[utoipa::path(
    get, path = "/v1/agents/{name}/revisions", tag = "agents",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, body = [RevisionStatus])),
)]
pub(super) async fn list_revisions(
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<Vec<RevisionStatus>>, Problem> {
    Ok(Json(find(&api, &name).await?.revisions))
}

/// The agent of a name, declared or leaving.
pub(super) async fn find(api: &Api, name: &str) -> Result<AgentStatus, Problem> {
    match api.control.agent(name).await? {
        Some(agent) => Ok(agent),
        None => {
            let agents = api.control.agents().await?;
            Err(Problem::no_agent(name, agents.iter().map(|agent| agent.name.as_str())))
        }
    }
}
