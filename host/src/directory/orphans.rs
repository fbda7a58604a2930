//! Messages that wait for agents which are not declared.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::agent::AgentShared;
use crate::clock;
use crate::message::Envelope;
use crate::store::{Commit, CommitRequest, DeadLetter, Queued, Store};

/// Timers that are given up in one transaction, so that others' commits do not wait for long.
const AT_ONCE: u32 = 256;

/// Returns the number of waiting messages, timers included, of agents that are not `known`.
pub(crate) fn waiting_for_others(shared: &AgentShared, known: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
    let backlog = shared.backlog.lock();
    let mut waiting: BTreeMap<String, u64> = backlog.waiting().map(|(name, count)| (name.to_owned(), count)).collect();
    // Timers have a lock of their own.
    drop(backlog);
    for (name, count) in shared.context.store.timer_counts.agents() {
        *waiting.entry(name.to_string()).or_default() += count;
    }
    waiting.retain(|name, _| !known(name));
    waiting
}

/// Makes dead letters of the timers of these agents, which are not declared any more.
pub(crate) async fn bury_orphan_timers(store: &Arc<Store>, agents: Vec<Arc<str>>) {
    for agent in agents {
        // In portions, until none is left.
        loop {
            // Whenever they are due: nothing would fire them later.
            let fired = match store.timers().fire(Arc::clone(&agent), u64::MAX, AT_ONCE).await {
                Ok(fired) if fired.is_empty() => break,
                Ok(fired) => fired,
                Err(error) => {
                    tracing::error!(agent = &*agent, %error, "timers of a removed agent stay in the store");
                    break;
                }
            };
            fired.into_iter().for_each(|envelope| bury_orphan(store, &agent, envelope));
        }
    }
}

fn bury_orphan(store: &Store, agent: &Arc<str>, envelope: Envelope) {
    let dead = DeadLetter {
        envelope: Box::new(envelope),
        reason: "agent-removed",
        error: "the agent is not declared any more".to_owned(),
        at: clock::now_ms(),
    };
    let mut commit = Commit::new(Arc::clone(agent));
    commit.dead = Some(Box::new(dead));
    store.submit(CommitRequest::new(commit, Vec::new(), Box::new(|_| ())));
}

/// Makes dead letters of what waits for agents that are not declared any more.
pub(crate) fn bury_orphans(store: &Arc<Store>, orphans: Vec<(String, Vec<Queued>)>) {
    for (agent, waiting) in orphans {
        tracing::warn!(
            "{} messages wait for `{agent}`, which is not declared; they are dead letters now",
            waiting.len()
        );
        let agent: Arc<str> = agent.into();
        for Queued { seq, .. } in waiting {
            match store.queue().message(seq) {
                Ok(Some(envelope)) => bury_orphan(store, &agent, envelope),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(agent = &*agent, seq, error, "a message of a removed agent stays in the store");
                }
            }
        }
    }
}
