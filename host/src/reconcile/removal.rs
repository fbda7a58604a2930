//! Agents that leave and agents that come: a removal, taking it back, and what an earlier one left behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::lifecycle::State;
use caxton_control::{AgentName, RevisionId};

use super::{Entry, Reconciler};
use crate::agent::Agent;
use crate::context::HostContext;
use crate::directory::{bury_orphan_timers, bury_orphans, waiting_for_others};
use crate::store::DeadFilter;

/// How long what waits for an agent that a file lacks at the start is kept for it, before it becomes dead letters: as
/// long as a removal drains by default. A host that ended in the middle of one, or of an edit, loses nothing by that.
const ORPHANS_WAIT: Duration = Duration::from_secs(60);

/// The reason of dead letters that are left of a removed agent.
pub(super) const REMOVED: &str = "agent-removed";

/// With more agents than this the dead letters of all are counted at once.
const ONE_BY_ONE: usize = 32;

impl Reconciler {
    /// Gives agents that are declared and unknown a place, so that callers learn that they are not ready rather
    /// than that nobody has the name. Says whether there were any.
    pub(super) fn welcome(&mut self, names: &BTreeSet<AgentName>) -> bool {
        let mut come = BTreeSet::new();
        for (name, wanted) in names.iter().filter_map(|name| self.wanted.get_key_value(name)) {
            if !self.entries.contains_key(name) {
                let agent = Agent::new(Arc::clone(&wanted.spec), Arc::clone(&self.directory) as _);
                let mut entry = Entry::new(agent);
                if self.unfinished.remove(name) {
                    // Nobody uses a state that is half of one format and half of another.
                    entry.unfinished = true;
                    entry.paused = true;
                    entry.agent.set_handoff_paused(true);
                }
                self.entries.insert(name.clone(), entry);
                come.insert(name.clone());
            }
        }
        let any = !come.is_empty();
        if any {
            tokio::spawn(offer(Arc::clone(&self.context), come));
        }
        any
    }

    /// Takes an agent out of the routes, and lets it drain.
    pub(super) fn retire(&mut self, name: &AgentName) -> bool {
        let now = self.now();
        let Some(entry) = self.entries.get_mut(name) else { return false };
        entry.retired = Some(now);
        entry.agent.retire("the agent is no longer declared");
        // What a candidate is tried by ends, so that a removal that is taken back waits for none of it.
        entry.end_trials(None);
        // What is being converted is converted, or put back, first.
        if entry.paused && !entry.converts() {
            (entry.paused, entry.paused_since, entry.rest) = (false, None, None);
            entry.agent.set_handoff_paused(false);
        }
        let numbers: Vec<(u64, State)> = entry.revisions.iter().map(|r| (r.number, r.state.clone())).collect();
        for (number, state) in numbers {
            let id = RevisionId { agent: name.clone(), number };
            if state.can_drain() {
                self.go(&id, State::Draining, Some("no longer declared"));
            }
        }
        true
    }

    /// Takes a removal back: what drains serves again, with the mailbox as it is. What is being ended already ends, and
    /// is brought up anew by the next look.
    pub(super) fn restore(&mut self, name: &AgentName) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        entry.retired = None;
        entry.agent.reopen();
        let serves = |number: u64| {
            let record = entry.revisions.iter().find(|record| record.number == number);
            record.is_some_and(|record| record.live.is_some() && !record.busy && record.state == State::Draining)
        };
        let shares: Vec<(u64, bool)> = entry.shares.iter().map(|(number, _)| (*number, serves(*number))).collect();
        for (number, serves) in shares {
            let id = RevisionId { agent: name.clone(), number };
            if serves {
                self.go(&id, State::Running, Some("declared again"));
            } else {
                self.unset(&id);
            }
        }
        self.context.events.tell(Some(name.as_str()), "agent.restored", serde_json::json!({}));
        tracing::info!(agent = %name, "declared again before it was gone: it goes on with what waits");
        true
    }

    /// Removes the last trace of an agent; what still waits for it becomes dead letters.
    pub(super) fn forget(&mut self, name: &AgentName) {
        if let Some(entry) = self.entries.remove(name) {
            entry.agent.remove("the agent was removed");
            self.context.events.tell(Some(name.as_str()), "agent.removed", serde_json::json!({}));
            tracing::info!(agent = %name, "removed");
        }
        self.forget_ledger(name);
    }

    /// Says what waits for agents that the file lacks, and when that is over.
    pub(super) fn announce_orphans(&mut self) {
        for (name, count) in waiting_for_others(&self.directory.shared, |name| self.wanted.contains_key(name)) {
            self.orphans_until = Some(Instant::now() + ORPHANS_WAIT);
            tracing::warn!(
                "{count} messages wait for `{name}`, which is not declared; they become dead letters in {} s unless it is",
                ORPHANS_WAIT.as_secs()
            );
        }
    }

    /// Makes dead letters of what waited for them long enough.
    pub(super) fn bury_orphans(&mut self) {
        if self.orphans_until.take_if(|until| *until <= Instant::now()).is_some() {
            let orphans = self.directory.shared.backlog.lock().take_others(|name| self.wanted.contains_key(name));
            let mut timers = self.context.store.timers.agents();
            timers.retain(|(name, _)| !self.wanted.contains_key(&**name) && !self.entries.contains_key(&**name));
            let store = Arc::clone(&self.context.store);
            tokio::spawn(async move {
                let timers = timers.into_iter().map(|(name, _)| name).collect();
                bury_orphan_timers(&store, timers).await;
                // They are read one by one.
                tokio::task::spawn_blocking(move || bury_orphans(&store, orphans)).await
            });
        }
    }
}

/// Says which dead letters an earlier removal of these agents left.
async fn offer(context: Arc<HostContext>, names: BTreeSet<AgentName>) {
    // Those of a removal a moment ago are to be among them.
    if context.store.flush().await.is_err() {
        return;
    }
    let counted = tokio::task::spawn_blocking(move || {
        let filter = |agent| DeadFilter { agent, reason: Some(REMOVED.to_owned()), ..DeadFilter::default() };
        let counts = if names.len() > ONE_BY_ONE {
            context.store.dead_counts(&filter(None))
        } else {
            let each = names.iter().map(|name| context.store.dead_counts(&filter(Some(name.to_string()))));
            each.collect::<Result<Vec<_>, _>>().map(|counts| counts.concat())
        };
        counts.map(|counts| counts.into_iter().filter(|count| names.contains(count.agent.as_str())).collect::<Vec<_>>())
    });
    match counted.await {
        Ok(Ok(counts)) => {
            for found in counts {
                let (agent, count) = (&found.agent, found.count);
                tracing::info!(
                    agent,
                    "{count} messages waited for it when it was removed and are dead letters; \
                     `caxton dead redeliver --agent {agent} --reason {REMOVED}` lets them be handled"
                );
            }
        }
        Ok(Err(error)) => tracing::warn!(error, "the dead letters of agents that came again cannot be counted"),
        // The host ends.
        Err(_) => {}
    }
}
