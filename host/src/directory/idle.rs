//! Ends instances that were idle for long and conversations in which nothing is said, keeps as many instances warm as
//! agents ask for, and removes keys whose time is over and the logs of agents that are long gone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::forgotten::ForgottenReports;
use super::{HostDirectory, expire_conversations};
use crate::agent::{Agent, Revision};
use crate::clock;
use crate::wasm::{GuestThreads, Kind};

/// The interval of sweeps; `instances.idle` is kept to within this.
const EVERY: Duration = Duration::from_secs(1);

/// Keys that are removed in one commit of each agent, and how often in a sweep at most: others' commits come between.
const EXPIRED_AT_ONCE: u32 = 1_000;
const EXPIRED_ROUNDS: u32 = 10;

/// The interval at which the logs of removed agents are looked at.
const LOGS_EVERY: Duration = Duration::from_secs(3_600);

/// Sweeps until `stop`.
pub(crate) async fn run(directory: Arc<HostDirectory>, stop: CancellationToken) {
    let mut logs_seen: Option<Instant> = None;
    let mut forgotten = ForgottenReports::default();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return ForgottenReports::report_last(&directory.context),
            _ = tick.tick() => {}
        }
        expire_conversations(&directory);
        forgotten.report(&directory.context);
        if logs_seen.is_none_or(|seen| seen.elapsed() >= LOGS_EVERY) {
            logs_seen = Some(Instant::now());
            let directory = Arc::clone(&directory);
            // It lists and removes files.
            tokio::task::spawn_blocking(move || {
                let routes = directory.routes.load_full();
                directory
                    .context
                    .logs
                    .forget_gone(|agent| routes.including_retiring(agent).is_some(), SystemTime::now());
            });
        }
        if let Err(error) = directory.context.store.snapshots().tidy().await {
            tracing::warn!(%error, "pieces of memories that are nobody's could not be removed; they take room");
        }
        if let Err(error) = directory.context.store.remove_unplaced().await {
            tracing::warn!(%error, "contents that no message has could not be removed; they take room");
        }
        if let Err(error) = remove_expired(&directory).await {
            tracing::warn!(
                error,
                "keys whose time is over could not be removed; they take room, and nobody reads them"
            );
        }
        // A full reference, since a guard of the snapshot must not be held across an await.
        let routes = directory.routes.load_full();
        let mut cached = directory.shared.receipts.memory_bytes();
        for agent in routes.agents() {
            cached += agent.cached_bytes();
            sweep(agent, &directory.context.guests).await;
        }
        directory.context.count_caches(cached);
    }
}

/// Removes keys whose time is over from the disk.
async fn remove_expired(directory: &HostDirectory) -> Result<(), String> {
    for _ in 0..EXPIRED_ROUNDS {
        let expired = directory.context.store.state().expired(clock::now_ms(), EXPIRED_AT_ONCE)?;
        let found: usize = expired.values().map(Vec::len).sum();
        for (agent, keys) in expired {
            let routes = directory.routes.load_full();
            // That of an agent that is not declared is kept all the same.
            let bytes =
                routes.including_retiring(&agent).map_or_else(Arc::default, |agent| Arc::clone(agent.state_bytes()));
            directory
                .context
                .store
                .state()
                .remove_expired(agent, keys, bytes)
                .await
                .map_err(|error| error.to_string())?;
        }
        if found < EXPIRED_AT_ONCE as usize {
            break;
        }
    }
    Ok(())
}

async fn sweep(agent: &Arc<Agent>, guests: &GuestThreads) {
    for revision in agent.serving() {
        sweep_revision(agent, &revision, guests).await;
    }
}

async fn sweep_revision(agent: &Arc<Agent>, current: &Arc<Revision>, guests: &GuestThreads) {
    let spec = agent.spec();
    let (min, idle) = (spec.instances.min, spec.instances.idle);
    if current.kind() == Kind::Stateful {
        // Of an instance at rest as well: what a crash costs is bounded in time by then.
        if current.pool.idle() > 0 && agent.is_save_due(current) {
            let (agent, current) = (Arc::clone(agent), Arc::clone(current));
            tokio::spawn(guests.movable(Box::pin(async move { agent.save_due(&current).await })));
        }
        // Others whose instances have no place do not wait for an idle one; what it remembers is saved.
        let crowded = current.pool.is_crowded();
        if (min == 0 || crowded) && current.pool.idle() > 0 {
            let (agent, current) = (Arc::clone(agent), Arc::clone(current));
            // By itself: a large memory takes longer than others' instances should wait for their turn.
            tokio::spawn(guests.movable(Box::pin(async move {
                let age = if crowded { Duration::ZERO } else { idle };
                if let Err(why) = agent.save_idle(&current, age).await {
                    tracing::error!(agent = %agent.name(), "an idle instance goes on: {why}");
                }
            })));
        }
        return;
    }
    current.pool.trim(min, idle);
    if let Err(fault) = current.pool.keep_warm(min).await {
        tracing::warn!(agent = %agent.name(), %fault, "a warm instance could not be started");
    }
}
