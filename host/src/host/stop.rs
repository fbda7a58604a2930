//! The end of a host, on request or after a fatal failure.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::start::Host;
use crate::agent::{Agent, Revision};
use crate::context::HostContext;
use crate::directory::HostDirectory;

/// The interval at which a stopping host checks for idleness, in addition to notifications: not all work sends one.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// The time for connections to close once no work is left.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// The time for answers under way to reach their callers after the store was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The reason why a host ends.
pub(super) enum EndReason {
    /// A signal asked for it.
    Asked,
    /// A vital task has died. Work in hand can still be finished and committed.
    TaskDied(Arc<str>),
    /// The store was lost: nothing can be committed any more.
    StoreLost(Arc<str>),
}

/// Stops a host: refuses new calls, drains work in hand for at most `host.drain`, saves memories, and closes the store.
pub(super) async fn stop(host: Host, end: &EndReason) -> ExitCode {
    // First, so that no calls arrive while the agents drain.
    host.stops.closing.cancel();
    host.stops.stop.cancel();
    let mut deadline = Instant::now();
    // Before the drain: until it has ended, the reconciler may still start revisions and handoffs.
    let drained = host.reconciler_task.await.ok().flatten();
    let limit = drained.as_ref().map_or(host.drain, |drained| drained.limit);
    let agents = match &drained {
        Some(drained) => drained.agents().map(|(agent, revisions)| (Arc::clone(agent), revisions)).collect(),
        // The reconciler has died: its last snapshot of the routes has the agents.
        None => published(&host.directory),
    };
    let (mut left, mut unsaved) = (0, Vec::new());
    if let EndReason::StoreLost(_) = end {
        for (agent, _) in &agents {
            agent.close("the data folder of the host is lost");
        }
        deadline += ANSWER_TIMEOUT;
    } else {
        tracing::info!("stopping; what is in hand has {} s", limit.as_secs());
        deadline += limit;
        (left, unsaved) = drain(&host.context, &agents, deadline).await;
    }
    // Only now: during the drain, the probes tell load balancers that the host is stopping.
    host.stops.probing.cancel();
    // Messages that were given up are answered at once. A client that does not read its answer is not waited for.
    let until = Instant::now().max(deadline) + CLOSE_TIMEOUT;
    for listener in host.listeners {
        let _ = tokio::time::timeout_at(until.into(), listener).await;
    }
    // After the last request: a head that is kept outside of the folder binds who can write in it.
    host.access.audit.log_head();
    // Neither the event nor a flush may go into a folder that is lost.
    if let EndReason::StoreLost(_) = end {
        return ExitCode::FAILURE;
    }
    let data = serde_json::json!({ "given_up": left, "not_saved": unsaved });
    host.context.events.emit(None, "host.stopped", data);
    // After the event, which is one of the last writes.
    if let Err(error) = host.context.store.flush().await {
        tracing::error!(%error, "the store did not take the last writes");
        return ExitCode::FAILURE;
    }
    if let Err(error) = host.context.store.empty_log().await {
        // Not an error: the next start reads the log.
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
        EndReason::Asked => ExitCode::SUCCESS,
        EndReason::TaskDied(_) | EndReason::StoreLost(_) => ExitCode::FAILURE,
    }
}

/// Agents with their live revisions.
type Draining = Vec<(Arc<Agent>, Vec<Arc<Revision>>)>;

/// Returns the agents in the latest routes.
fn published(directory: &HostDirectory) -> Draining {
    let routes = directory.routes.load();
    routes.all().map(|agent| (Arc::clone(agent), agent.serving())).collect()
}

/// Waits until no work is in hand or the time is over, and saves the memories of stateful agents. Returns the number of
/// messages that were given up, and the agents whose memory was not saved.
async fn drain(context: &HostContext, agents: &Draining, deadline: Instant) -> (u32, Vec<String>) {
    for (agent, revisions) in agents {
        // Queued messages stay in the store for the next start.
        agent.release_stored();
        for revision in revisions {
            revision.wake_when_idle(true);
        }
    }
    // A worker may hold an instance for a moment after its last message.
    let works = |revision: &Arc<Revision>| revision.in_flight() > 0 || revision.pool.is_in_hand();
    let busy = || agents.iter().any(|(agent, revisions)| agent.is_busy() || revisions.iter().any(works));
    // Ends early if the store is lost: the work could not be committed.
    while busy() && Instant::now() < deadline && context.store.lost().is_none() {
        let _ = tokio::time::timeout(POLL_INTERVAL, context.until_woken()).await;
    }
    let (mut left, mut unsaved) = (0, Vec::new());
    for (agent, revisions) in agents {
        left += agent.depth();
        agent.close("the host is stopping");
        for revision in revisions {
            left += revision.in_flight();
            // After the drain, so that the memory includes the last message.
            if let Err(why) = agent.save_now(revision).await {
                tracing::error!(agent = %agent.name(), "{why}");
                unsaved.push(agent.name().to_string());
            }
            revision.stop();
        }
    }
    (left, unsaved)
}
