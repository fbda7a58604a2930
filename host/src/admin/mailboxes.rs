//! Mailboxes: their state, and holding or releasing their messages.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use serde_json::json;

use super::api::Api;
use super::extract::Named;
use super::guard::Caller;
use super::problem;
use crate::agent::Agent;
use crate::api_types::MailboxStatus;
use crate::problem::Problem;
use crate::wasm::Kind;

/// Lists the mailboxes of all agents that take messages, in order of name.
#[utoipa::path(get, path = "/v1/mailboxes", tag = "mailboxes", responses((status = 200, body = [MailboxStatus])))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<MailboxStatus>>, Problem> {
    Ok(Json(all(&api)))
}

/// Returns the mailboxes of all agents that take messages, in order of name.
pub(super) fn all(api: &Api) -> Vec<MailboxStatus> {
    let routes = api.directory.routes.load_full();
    let mut mailboxes: Vec<MailboxStatus> = routes.agents().filter(|agent| takes_messages(agent)).map(status).collect();
    // The routes have no order of their own.
    mailboxes.sort_by(|a, b| a.agent.cmp(&b.agent));
    mailboxes
}

/// Holds an agent's messages, including those of waiting callers, until it is resumed; also over a restart.
///
/// Messages in flight are handled to their end. New ones are accepted up to `mailbox.depth`.
#[utoipa::path(
    post, path = "/v1/mailboxes/{agent}/pause", tag = "mailboxes",
    params(("agent" = String, Path, description = "The agent's name")),
    responses((status = 200, body = MailboxStatus)),
)]
pub(super) async fn pause(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named(name): Named<String>,
) -> Result<Json<MailboxStatus>, Problem> {
    set_paused(api, caller, &name, true).await
}

/// Releases an agent's messages.
#[utoipa::path(
    post, path = "/v1/mailboxes/{agent}/resume", tag = "mailboxes",
    params(("agent" = String, Path, description = "The agent's name")),
    responses((status = 200, body = MailboxStatus)),
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named(name): Named<String>,
) -> Result<Json<MailboxStatus>, Problem> {
    set_paused(api, caller, &name, false).await
}

async fn set_paused(api: Api, caller: Caller, name: &str, paused: bool) -> Result<Json<MailboxStatus>, Problem> {
    let agent = api.agent(name).await?;
    if !takes_messages(&agent) {
        let detail = format!("`{name}` is an HTTP agent: it has no mailbox to be paused");
        return Err(Problem::new(StatusCode::CONFLICT, "http-agent", detail));
    }
    // A task of its own: both steps have to be done even if the client disconnects in between.
    let work = async move {
        // Stored first: a mailbox that is paused and not stored would run again after a restart.
        api.context.store.queue().set_paused(agent.name().to_string(), paused).await?;
        let was = agent.mailbox_figures().operator_paused;
        agent.set_operator_paused(paused);
        // Repeated requests leave one event.
        if was != paused {
            let kind = if paused { "mailbox.paused" } else { "mailbox.resumed" };
            api.context.events.emit(Some(agent.name().as_str()), kind, json!({ "by": caller.to_string() }));
        }
        Ok(Json(status(&agent)))
    };
    tokio::spawn(work).await.map_err(|error| problem::host_error(error.to_string()))?
}

fn takes_messages(agent: &Agent) -> bool {
    // Counts as one that takes messages until its first revision shows its kind.
    agent.current().is_none_or(|current| current.kind() != Kind::Http)
}

/// Returns the state of an agent's mailbox.
fn status(agent: &Arc<Agent>) -> MailboxStatus {
    let mailbox = agent.mailbox_figures();
    MailboxStatus {
        agent: agent.name().to_string(),
        depth: mailbox.depth,
        bound: mailbox.bound,
        later: mailbox.deferred,
        timers: mailbox.timers,
        in_flight: mailbox.in_flight,
        held: mailbox.operator_paused,
        breaker: mailbox.breaker.to_owned(),
        oldest_ms: agent.oldest_ms(),
    }
}
