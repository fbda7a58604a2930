//! Rollouts: the progress of new revisions, and commands for them.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use caxton_control::rollout::{RolloutCommand, UndoOptions};
use http::StatusCode;
use serde::Deserialize;

use super::api::Api;
use super::extract::{Named, Params, bounded};
use super::guard::Caller;
use super::page::{ListParams, Page, keep_first};
use super::problem;
use crate::api_types::{AnswerDifferences, RolloutRequest, RolloutStatus};
use crate::problem::Problem;
use crate::reconcile::handle::AgentSelection;

/// Lists the newest rollout of each agent in order of agents' names, one page at a time.
#[utoipa::path(
    get, path = "/v1/rollouts", tag = "rollouts", params(ListParams),
    responses((status = 200, body = [RolloutStatus])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Page<RolloutStatus>, Problem> {
    let size = params.size()?;
    // One more tells whether there is a next page.
    let agents = AgentSelection::After { name: params.after, count: size as usize + 1 };
    let rollouts = api.reconciler.rollouts(agents).await?;
    Ok(Page::new("/v1/rollouts", rollouts, size, |rollout| &rollout.agent))
}

/// Lists the stored rollouts of an agent, the newest first.
#[utoipa::path(
    get, path = "/v1/rollouts/{agent}", tag = "rollouts",
    params(("agent" = String, Path, description = "The agent's name")),
    responses((status = 200, body = [RolloutStatus])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Named(name): Named<String>,
) -> Result<Json<Vec<RolloutStatus>>, Problem> {
    api.agent(&name).await?;
    let mut rollouts = api.reconciler.rollouts(AgentSelection::Named(name)).await?;
    // The newest come first, and the oldest may be left out.
    keep_first(&mut rollouts);
    Ok(Json(rollouts))
}

/// The choice of a rollout.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// The number of the rollout; by default the newest with differences.
    rollout: Option<u64>,
}

/// Returns the first differences of a rollout between answers of two revisions: to copies of live messages
/// (`parallel`), and in its rehearsal.
#[utoipa::path(
    get, path = "/v1/rollouts/{agent}/differences", tag = "rollouts",
    params(("agent" = String, Path, description = "The agent's name"), Which),
    responses((status = 200, body = AnswerDifferences)),
)]
pub(super) async fn differences(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(Which { rollout }): Params<Which>,
) -> Result<Json<AnswerDifferences>, Problem> {
    let rollout = rollout.map(|rollout| bounded("rollout", rollout)).transpose()?;
    let agent = api.agent(&name).await?;
    let store = &api.context.store;
    // Flushed first, so that differences found a moment ago are included.
    store.flush().await.map_err(|error| problem::host_error(error.to_string()))?;
    let found = match rollout {
        Some(rollout) => Ok(Some(rollout)),
        None => store.rollouts().newest_difference(agent.name().as_str()),
    };
    let rollout = match found.map_err(problem::host_error)? {
        Some(rollout) => rollout,
        // No rollout has differences; the newest one is then shown with none.
        None => api.reconciler.rollouts(AgentSelection::Named(name)).await?.first().map_or(0, |newest| newest.rollout),
    };
    let mut differences =
        AnswerDifferences { agent: agent.name().to_string(), rollout, by_nature: Vec::new(), messages: Vec::new() };
    for (number, record) in store.rollouts().differences(&differences.agent, rollout).map_err(problem::host_error)? {
        let read = match number {
            // Number 0 holds the paths that differ by nature; messages are numbered from 1.
            0 => serde_json::from_str(&record).map(|paths| differences.by_nature = paths),
            _ => serde_json::from_str(&record).map(|message| differences.messages.push(message)),
        };
        read.map_err(|error| problem::host_error(format!("a difference cannot be read: {error}")))?;
    }
    Ok(Json(differences))
}

/// Follows an agent's newest rollout as server-sent events. Each event is the whole rollout, sent when it has changed,
/// at most twice a second. The stream ends with the rollout.
#[utoipa::path(
    get, path = "/v1/rollouts/{agent}/events", tag = "rollouts",
    params(("agent" = String, Path, description = "The agent's name")),
    responses((status = 200, description = "A stream of the rollout", content_type = "text/event-stream", body = String)),
)]
pub(super) async fn follow(State(api): State<Api>, Named(name): Named<String>) -> Result<Response, Problem> {
    api.agent(&name).await?;
    let first = api.reconciler.rollouts(AgentSelection::Named(name.clone())).await?.into_iter().next();
    let first = first.ok_or_else(|| {
        let detail = format!("{name} has had no rollout: its first revision runs");
        Problem::new(StatusCode::NOT_FOUND, "no-rollout", detail)
    })?;
    let following = Following { api, name, last: None, next: Some(first), holds: HOLDS };
    let frames = futures::stream::unfold(following, |mut following| async move {
        let status = following.next().await?;
        // Texts and numbers can always be written as JSON.
        let frame: Result<Frame, Infallible> = Ok(Frame::default().json_data(&status).unwrap_or_default());
        Some((frame, following))
    });
    Ok(Sse::new(frames).keep_alive(KeepAlive::default()).into_response())
}

/// The interval at which a followed rollout is polled.
// Polled, because the figures of a rollout change with every message and cause no event.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A follower of a rollout.
struct Following {
    api: Api,
    name: String,
    /// The state that was sent last.
    last: Option<RolloutStatus>,
    /// The state to send next, if it is known.
    next: Option<RolloutStatus>,
    /// The remaining times that the end is held back until lost messages are counted.
    holds: u32,
}

/// The initial number of those times: together two seconds.
const HOLDS: u32 = 4;

impl Following {
    /// Returns the rollout once it has changed.
    async fn next(&mut self) -> Option<RolloutStatus> {
        if self.last.as_ref().is_some_and(|last| last.ended) {
            return None;
        }
        loop {
            let now = match self.next.take() {
                Some(first) => first,
                None => {
                    tokio::select! {
                        () = self.api.stopped().cancelled() => return None,
                        () = tokio::time::sleep(POLL_INTERVAL) => {}
                    }
                    self.api
                        .reconciler
                        .rollouts(AgentSelection::Named(self.name.clone()))
                        .await
                        .ok()?
                        .into_iter()
                        .next()?
                }
            };
            // The search for lost messages ends after the rollout, and its result belongs to the last event.
            let counts = self.api.context.store.keeps_messages() && now.ended && now.lost_messages.is_none();
            if counts && self.holds > 0 {
                self.holds -= 1;
                continue;
            }
            // The passing of time alone is not a change.
            let same = |last: &RolloutStatus| RolloutStatus { took_ms: now.took_ms, ..last.clone() } == now;
            if !self.last.as_ref().is_some_and(same) {
                self.last = Some(now.clone());
                return Some(now);
            }
        }
    }
}

/// The commands for a rollout.
pub(super) const COMMANDS: [(&str, RolloutCommand); 6] = [
    ("pause", RolloutCommand::Pause),
    ("resume", RolloutCommand::Resume),
    ("promote", RolloutCommand::Promote),
    ("abort", RolloutCommand::Abort),
    ("undo", RolloutCommand::Undo),
    ("retry", RolloutCommand::Retry),
];

/// The query of a command.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct To {
    /// The number of the revision to go back to, for `undo`; by default the one that ran before.
    to: Option<u64>,
    /// Set if that revision handles the last messages on a copy first, for `undo`, which is refused if it fails at
    /// one message. `true`, unless given.
    rehearse: Option<bool>,
    /// Set if the state is to be as it was when a revision of another format followed, for `undo`, without what was
    /// written since, which is kept in turn. Such an undo is not rehearsed. `false`, unless given.
    #[serde(rename = "restore-state")]
    #[param(rename = "restore-state")]
    restore_state: Option<bool>,
}

/// Runs a command on an agent's rollout, and returns the rollout after it.
///
/// `pause` and `resume`, `promote` to the next step, `abort`, `undo` even after its end, which is rehearsed unless
/// `rehearse=false`, and `retry` of what was refused.
#[utoipa::path(
    post, path = "/v1/rollouts/{agent}/{command}", tag = "rollouts",
    params(
        ("agent" = String, Path, description = "The agent's name"),
        ("command" = String, Path, description = "`pause`, `resume`, `promote`, `abort`, `undo` or `retry`"),
        To,
    ),
    responses((status = 200, body = RolloutStatus)),
)]
pub(super) async fn command(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Named((name, command)): Named<(String, String)>,
    Params(To { to, rehearse, restore_state }): Params<To>,
) -> Result<Json<RolloutStatus>, Problem> {
    api.agent(&name).await?;
    let Some((_, command)) = COMMANDS.into_iter().find(|(name, _)| *name == command) else {
        let detail = format!("`{}` is not a command for a rollout", command.escape_debug());
        return Err(Problem::bad_request(detail));
    };
    to.map_or(Ok(0), |to| bounded("to", to))?;
    let undo = UndoOptions { to, rehearse: rehearse.unwrap_or(true), restore_state: restore_state.unwrap_or(false) };
    let request = RolloutRequest { agent: name, command, undo, who: caller.to_string() };
    let refused = |why: String| Problem::new(StatusCode::CONFLICT, "rollout-refused", why);
    let done = api.reconciler.command_rollout(request).await?.map_err(refused)?;
    done.map(Json).ok_or_else(|| refused("there is no rollout".to_owned()))
}
