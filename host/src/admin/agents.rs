//! The host and its agents.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::api::Api;
use super::extract::Named;
use super::problem;
use crate::agent::Agent;
use crate::api_types::{AgentStatus, HostStatus, RevisionStatus};
use crate::problem::Problem;

/// Returns the state of the host.
#[utoipa::path(get, path = "/v1/host", tag = "host", responses((status = 200, body = HostStatus)))]
pub(super) async fn show_host(State(api): State<Api>) -> Result<Json<HostStatus>, Problem> {
    Ok(Json(api.reconciler.status().await?))
}

/// Lists all agents, in order of name.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", responses((status = 200, body = [AgentStatus])))]
pub(super) async fn list_agents(State(api): State<Api>) -> Result<Json<Vec<AgentStatus>>, Problem> {
    Ok(Json(all(&api).await?))
}

/// Returns one agent.
#[utoipa::path(
    get, path = "/v1/agents/{name}", tag = "agents",
    params(("name" = String, Path, description = "The agent's name")),
    responses((status = 200, body = AgentStatus)),
)]
pub(super) async fn show_agent(
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<AgentStatus>, Problem> {
    Ok(Json(find(&api, &name).await?))
}

/// Lists the revisions of an agent that are not ended, and the newest.
#[utoipa::path(
    get, path = "/v1/agents/{name}/revisions", tag = "agents",
    params(("name" = String, Path, description = "The agent's name")),
    responses((status = 200, body = [RevisionStatus])),
)]
pub(super) async fn list_revisions(
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<Vec<RevisionStatus>>, Problem> {
    Ok(Json(find(&api, &name).await?.revisions))
}

/// Returns all agents with the number of their dead letters, in order of name.
pub(super) async fn all(api: &Api) -> Result<Vec<AgentStatus>, Problem> {
    let mut agents = api.reconciler.agents().await?;
    // Counted here and not by the reconciler, which must not wait for the store.
    let dead: HashMap<String, u64> = api.read(|store| store.dead_letters().by_agent()).await?.into_iter().collect();
    for agent in &mut agents {
        agent.dead_letters = dead.get(&agent.name).copied().unwrap_or(0);
    }
    Ok(agents)
}

/// Returns the agent of this name, declared or retiring.
///
/// # Errors
/// `no-agent` with a suggestion.
pub(super) async fn find(api: &Api, name: &str) -> Result<AgentStatus, Problem> {
    match api.reconciler.agent(name).await? {
        Some(mut agent) => {
            let dead = api.read(|store| store.dead_letters().by_agent()).await?;
            agent.dead_letters = dead.iter().find(|(name, _)| *name == agent.name).map_or(0, |(_, count)| *count);
            Ok(agent)
        }
        None => {
            let agents = api.reconciler.agents().await?;
            Err(problem::no_agent(name, agents.iter().map(|agent| agent.name.as_str())))
        }
    }
}

impl Api {
    /// Returns the agent of this name, even if none of its revisions runs.
    ///
    /// # Errors
    /// `unavailable` if it is declared and was never started, `no-agent` if it is unknown.
    pub(super) async fn agent(&self, name: &str) -> Result<Arc<Agent>, Problem> {
        if let Some(agent) = self.directory.routes.load().agent(name) {
            return Ok(Arc::clone(agent));
        }
        // Declared, and not started yet.
        let status = find(self, name).await?;
        let why = status.waiting.map(|why| format!(": {why}")).unwrap_or_default();
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", format!("`{name}` does not run{why}")))
    }
}
