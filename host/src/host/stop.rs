//! The end of a host: as it is asked for, or because it cannot go on.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Host;
use crate::agent::{Agent, Revision};
use crate::context::HostContext;
use crate::directory::HostDirectory;

/// How often a stopping host looks whether everything is at rest, beside being told.
const LOOK: Duration = Duration::from_millis(20);
/// The time for connections to end once nothing is in hand any more.
const LEAVE: Duration = Duration::from_millis(500);
/// The time for answers under way to reach their callers once nothing can be kept any more.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The reason why a host ends.
pub(super) enum End {
    /// It was asked to.
    Asked,
    /// A task that it cannot be without has died. What is in hand can still be finished and kept.
    TaskDied(Arc<str>),
    /// Its store is of no use any more: nothing can be kept.
    StoreLost(Arc<str>),
}

/// Ends a host: takes no more calls, lets what is in hand finish within `host.drain`, saves, closes.
pub(super) async fn stop(host: Host, end: &End) -> ExitCode {
    host.stops.closing.cancel();
    host.stops.stop.cancel();
    let mut deadline = Instant::now();
    let drained = host.reconciler.await.ok().flatten();
    let limit = drained.as_ref().map_or(host.drain, |drained| drained.limit);
    let agents = match &drained {
        Some(drained) => drained.agents().map(|(agent, revisions)| (Arc::clone(agent), revisions)).collect(),
        // Without a reconciler there is what it published last.
        None => published(&host.directory),
    };
    let (mut left, mut unsaved) = (0, Vec::new());
    if let End::StoreLost(_) = end {
        for (agent, _) in &agents {
            agent.close("the data folder of the host is lost");
        }
        deadline += LAST_ANSWERS;
    } else {
        tracing::info!("stopping; what is in hand has {} s", limit.as_secs());
        deadline += limit;
        (left, unsaved) = drain(&host.context, &agents, deadline).await;
    }
    host.stops.probing.cancel();
    // What was given up is answered at once. A client that does not take its answer is not waited for.
    let until = Instant::now().max(deadline) + LEAVE;
    for listener in host.listeners {
        let _ = tokio::time::timeout_at(until.into(), listener).await;
    }
    if let End::StoreLost(_) = end {
        return ExitCode::FAILURE;
    }
    let data = serde_json::json!({ "given_up": left, "not_saved": unsaved });
    host.context.events.tell(None, "host.stopped", data);
    if let Err(error) = host.context.store.flush().await {
        tracing::error!(%error, "the store did not take the last writes");
        return ExitCode::FAILURE;
    }
    if let Err(error) = host.context.store.empty_log().await {
        // The next start finds it there.
        tracing::warn!(%error, "a part of the store is left in its log");
    }
    if left > 0 {
        tracing::warn!("{left} messages were given up; their senders were told");
    }
    if !unsaved.is_empty() {
        tracing::error!("stopped; what these agents remembered since they saved last is lost: {}", unsaved.join(", "));
        return ExitCode::FAILURE;
    }
    tracing::info!("stopped");
    match end {
        End::Asked => ExitCode::SUCCESS,
        End::TaskDied(_) | End::StoreLost(_) => ExitCode::FAILURE,
    }
}

type Draining = Vec<(Arc<Agent>, Vec<Arc<Revision>>)>;

fn published(directory: &HostDirectory) -> Draining {
    let routes = directory.routes.load();
    routes.all().map(|agent| (Arc::clone(agent), agent.serving())).collect()
}

/// Waits until nothing is in hand or the time is over; saves what stateful agents keep. Returns the
/// number of messages that were given up, and the agents whose memory was not saved.
async fn drain(context: &HostContext, agents: &Draining, deadline: Instant) -> (u32, Vec<String>) {
    for (agent, revisions) in agents {
        // What the store has waits there for the next start.
        agent.release_stored();
        for revision in revisions {
            revision.wake_when_idle(true);
        }
    }
    // A worker may have an instance in hand for a moment longer than its last message.
    let works = |revision: &Arc<Revision>| revision.in_flight() > 0 || revision.pool.is_in_hand();
    let busy = || agents.iter().any(|(agent, revisions)| agent.is_busy() || revisions.iter().any(works));
    // What cannot be kept any more is not waited for.
    while busy() && Instant::now() < deadline && context.store.lost().is_none() {
        let _ = tokio::time::timeout(LOOK, context.woken()).await;
    }
    let (mut left, mut unsaved) = (0, Vec::new());
    for (agent, revisions) in agents {
        left += agent.depth();
        agent.close("the host is stopping");
        for revision in revisions {
            left += revision.in_flight();
            if let Err(why) = agent.save_now(revision).await {
                tracing::error!(agent = %agent.name(), "{why}");
                unsaved.push(agent.name().to_string());
            }
            revision.stop();
        }
    }
    (left, unsaved)
}
