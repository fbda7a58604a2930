//! Ends instances that were idle for long and conversations in which nothing is said, keeps as many instances warm as
//! agents ask for, and removes the logs of agents that are long gone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Revision, expire_conversations};
use crate::commons::Commons;
use crate::wasm::Kind;

/// How often idle instances are looked for; `instances.idle` is kept to within this.
const EVERY: Duration = Duration::from_secs(1);

/// How often the logs of agents that are gone are looked at.
const LOGS_EVERY: Duration = Duration::from_secs(3_600);

/// Sweeps until `stop`.
pub(crate) async fn run(commons: Arc<Commons>, stop: CancellationToken) {
    let mut logs_seen: Option<Instant> = None;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        expire_conversations(&commons);
        if logs_seen.is_none_or(|seen| seen.elapsed() >= LOGS_EVERY) {
            logs_seen = Some(Instant::now());
            let commons = Arc::clone(&commons);
            tokio::task::spawn_blocking(move || {
                let routes = commons.routes.load_full();
                commons.logs.forget_gone(|agent| routes.present(agent).is_some(), SystemTime::now());
            });
        }
        if let Err(error) = commons.store.tidy_memories().await {
            tracing::warn!(%error, "pieces of memories that are nobody's could not be removed; they take room");
        }
        let routes = commons.routes.load_full();
        for agent in routes.agents() {
            sweep(agent).await;
        }
    }
}

async fn sweep(agent: &Arc<Agent>) {
    for revision in agent.serving() {
        sweep_revision(agent, &revision).await;
    }
}

async fn sweep_revision(agent: &Arc<Agent>, current: &Arc<Revision>) {
    let spec = agent.spec();
    let (min, idle) = (spec.instances.min, spec.instances.idle);
    if current.kind() == Kind::Stateful {
        // Others whose instances have no place do not wait for an idle one; what it remembers is saved.
        let crowded = current.pool.is_crowded();
        if (min == 0 || crowded) && current.pool.idle() > 0 {
            let (agent, current) = (Arc::clone(agent), Arc::clone(current));
            // By itself: a large memory takes longer than others' instances should wait for their turn.
            tokio::spawn(async move {
                let age = if crowded { Duration::ZERO } else { idle };
                if let Err(why) = agent.save_idle(&current, age).await {
                    tracing::error!(agent = %agent.name(), "an idle instance goes on: {why}");
                }
            });
        }
        return;
    }
    current.pool.trim(min, idle);
    if let Err(fault) = current.pool.keep_warm(min).await {
        tracing::warn!(agent = %agent.name(), %fault, "a warm instance could not be started");
    }
}
