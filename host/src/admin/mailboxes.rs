//! Mailboxes: their state, and holding or releasing their messages.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use serde_json::json;

use super::api::Api;
use super::extract::{MAX_PAGE, Named, Params};
use super::guard::Caller;
use super::page::{ListParams, Page};
use super::problem;
use crate::agent::Agent;
use crate::api_types::MailboxStatus;
use crate::problem::Problem;
use crate::wasm::Kind;

/// Lists the mailboxes of agents that take messages in order of name, one page at a time.
#[utoipa::path(
    get, path = "/v1/mailboxes", tag = "mailboxes", params(ListParams),
    responses((status = 200, body = [MailboxStatus])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Page<MailboxStatus>, Problem> {
    let size = params.size()?;
    // One more tells whether there is a next page.
    let mailboxes = after(&api, params.after.as_deref(), size as usize + 1);
    Ok(Page::new("/v1/mailboxes", mailboxes, size, |mailbox| &mailbox.agent))
}

/// Returns the mailboxes of agents after a name that take messages, in order of name, and at most `count` of them.
pub(super) fn after(api: &Api, name: Option<&str>, count: usize) -> Vec<MailboxStatus> {
    let routes = api.directory.routes.load_full();
    let is_after = |agent: &&Arc<Agent>| name.is_none_or(|name| agent.name().as_str() > name);
    let mut agents: Vec<&Arc<Agent>> = routes.agents().filter(is_after).filter(|agent| takes_messages(agent)).collect();
    // The routes have no order of their own.
    agents.sort_unstable_by_key(|agent| agent.name());
    // After the cut, because a status takes the lock of its mailbox.
    agents.truncate(count);
    agents.into_iter().map(status).collect()
}

/// Returns the fullest mailboxes in order of their agents' names, as many as fit on a page.
pub(super) fn fullest(api: &Api) -> Vec<MailboxStatus> {
    let mut mailboxes = after(api, None, usize::MAX);
    if mailboxes.len() > MAX_PAGE as usize {
        // Stable, so that of equally full ones the first by name are shown each time.
        mailboxes.sort_by_key(|mailbox| std::cmp::Reverse(mailbox.depth));
        mailboxes.truncate(MAX_PAGE as usize);
        mailboxes.sort_by(|a, b| a.agent.cmp(&b.agent));
    }
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
