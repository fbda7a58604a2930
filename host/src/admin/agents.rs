//! The host and its agents.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::api::Api;
use super::extract::{MAX_PAGE, Named, Params};
use super::page::{ListParams, Page};
use super::problem;
use crate::agent::Agent;
use crate::api_types::{AgentStatus, HostStatus, RevisionStatus};
use crate::problem::Problem;

/// Returns the state of the host.
#[utoipa::path(get, path = "/v1/host", tag = "host", responses((status = 200, body = HostStatus)))]
pub(super) async fn show_host(State(api): State<Api>) -> Result<Json<HostStatus>, Problem> {
    Ok(Json(api.reconciler.status().await?))
}

/// Lists agents in order of name, one page at a time.
#[utoipa::path(
    get, path = "/v1/agents", tag = "agents", params(ListParams),
    responses((status = 200, body = [AgentStatus])),
)]
pub(super) async fn list_agents(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Page<AgentStatus>, Problem> {
    let size = params.size()?;
    // One more tells whether there is a next page.
    let agents = after(&api, params.after, size as usize + 1).await?;
    Ok(Page::new("/v1/agents", agents, size, |agent| &agent.name))
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

/// Returns agents after a name with the number of their dead letters, in order of name, and at most `count` of them.
pub(super) async fn after(api: &Api, name: Option<String>, count: usize) -> Result<Vec<AgentStatus>, Problem> {
    let mut agents = api.reconciler.agents(name, count).await?;
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
            // With the first of those that are declared and not started yet; all of them would be too much for a typo.
            let first = api.reconciler.agents(None, MAX_PAGE as usize).await?;
            let routes = api.directory.routes.load();
            let known = routes.agents().map(|agent| agent.name().as_str());
            Err(problem::no_agent(name, known.chain(first.iter().map(|agent| agent.name.as_str()))))
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
