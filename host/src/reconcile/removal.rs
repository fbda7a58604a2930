//! The registration and removal of agents, and the messages that a removal leaves behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::lifecycle::RevisionState;
use caxton_control::{AgentName, RevisionId};
use tokio_util::sync::CancellationToken;

use super::managed::ManagedAgent;
use super::reconciler::Reconciler;
use crate::agent::Agent;
use crate::context::HostContext;
use crate::directory::{bury_orphan_timers, bury_orphans, waiting_for_others};
use crate::store::DeadFilter;

/// The time for which messages for an undeclared agent are kept at the start before they become dead letters: the
/// default drain of a removal. So a host that ended during a removal, or during an edit of the file, loses nothing.
const ORPHAN_RETENTION: Duration = Duration::from_secs(60);

/// The reason of dead letters of a removed agent.
pub(super) const REMOVED: &str = "agent-removed";

/// The most agents whose dead letters are counted with a query each; for more, one query over all is cheaper.
const MAX_SINGLE_COUNTS: usize = 32;

impl Reconciler {
    /// Registers declared agents that are new, so that callers learn that they are not ready rather than unknown.
    /// Returns `true` if there were any.
    pub(super) fn register(&mut self) -> bool {
        // Most passes come without a new declaration, and need no look at all the marked agents.
        if !std::mem::take(&mut self.summary.has_new_agents) {
            return false;
        }
        let mut come = Vec::new();
        for (name, wanted) in self.plans.marked().iter().filter_map(|name| self.wanted.get_key_value(name)) {
            if !self.managed.contains_key(name) {
                let agent = Agent::new(Arc::clone(&wanted.spec), Arc::clone(&self.directory) as _);
                let mut managed = ManagedAgent::new(agent);
                if self.unfinished_conversions.remove(name) {
                    // No message may see a state of which a part is converted.
                    managed.conversion_unfinished = true;
                    managed.paused = true;
                    managed.agent.set_handoff_paused(true);
                }
                come.push((name.clone(), managed));
            }
        }
        let any = !come.is_empty();
        if any {
            let names = come.iter().map(|(name, _)| name.clone()).collect();
            // As a whole, where it is the first: one after the other they would leave half of each node empty.
            if self.managed.is_empty() {
                self.managed = come.into_iter().collect();
            } else {
                self.managed.extend(come);
            }
            // In a task of its own, because it waits for the disk and nothing waits for it.
            tokio::spawn(log_dead_letters(Arc::clone(&self.context), names));
        }
        any
    }

    /// Takes an agent out of the routes and lets it drain. Returns `true`.
    pub(super) fn retire(&mut self, name: &AgentName) -> bool {
        let now = self.now();
        let Some(managed) = self.managed.get_mut(name) else { return false };
        managed.retired = Some(now);
        // No new conversations are accepted, so that the drain has an end.
        managed.agent.retire("the agent is no longer declared");
        // What is only being prepared is of no use: its compilation would keep a core busy for minutes.
        managed.revisions.iter().filter_map(|record| record.preparing.as_ref()).for_each(CancellationToken::cancel);
        // Trials end here, so that a removal that is reverted does not wait for them.
        managed.end_rehearsals(None);
        // A conversion is finished or undone first; until then no message may see the state.
        if managed.paused && !managed.is_converting() {
            (managed.paused, managed.paused_since, managed.checkpoint_pause) = (false, None, None);
            managed.agent.set_handoff_paused(false);
        }
        let numbers: Vec<(u64, RevisionState)> =
            managed.revisions.iter().map(|r| (r.number, r.state.clone())).collect();
        for (number, state) in numbers {
            let id = RevisionId { agent: name.clone(), number };
            if state.can_drain() {
                self.transition(&id, RevisionState::Draining, Some("no longer declared"));
            }
        }
        true
    }

    /// Reverts a removal: draining revisions serve again, with the mailbox as it is. A revision that is stopping
    /// already ends, and the next pass starts another.
    pub(super) fn restore(&mut self, name: &AgentName) -> bool {
        let Some(managed) = self.managed.get_mut(name) else { return false };
        managed.retired = None;
        managed.agent.reopen();
        // A busy revision is being stopped by a task, which cannot be taken back.
        let serves = |number: u64| {
            let found = managed.revisions.iter().find(|revision| revision.number == number);
            found.is_some_and(|revision| {
                revision.live.is_some() && !revision.busy && revision.state == RevisionState::Draining
            })
        };
        let shares: Vec<(u64, bool)> = managed.shares.iter().map(|(number, _)| (*number, serves(*number))).collect();
        for (number, serves) in shares {
            let id = RevisionId { agent: name.clone(), number };
            if serves {
                self.transition(&id, RevisionState::Running, Some("declared again"));
            } else {
                self.withdraw_traffic(&id);
            }
        }
        self.context.events.emit(Some(name.as_str()), "agent.restored", serde_json::json!({}));
        tracing::info!(agent = %name, "declared again before it was gone: it goes on with what waits");
        true
    }

    /// Removes an agent that has drained. Messages that still wait for it become dead letters.
    pub(super) fn forget(&mut self, name: &AgentName) {
        // It may be declared again meanwhile.
        self.summary.has_new_agents = true;
        if let Some(managed) = self.managed.remove(name) {
            managed.agent.remove("the agent was removed");
            self.context.events.emit(Some(name.as_str()), "agent.removed", serde_json::json!({}));
            tracing::info!(agent = %name, "removed");
        }
        // A new agent of this name must not continue the rollouts of the removed one.
        self.forget_ledger(name);
    }

    /// Logs the messages that wait for undeclared agents, and sets the time at which they become dead letters.
    pub(super) fn announce_orphans(&mut self) {
        for (name, count) in waiting_for_others(&self.directory.shared, |name| self.wanted.contains_key(name)) {
            // The same time for all, since all are found at the start.
            self.orphans_until = Some(Instant::now() + ORPHAN_RETENTION);
            tracing::warn!(
                "{count} messages wait for `{name}`, which is not declared; they become dead letters in {} s unless it is",
                ORPHAN_RETENTION.as_secs()
            );
        }
    }

    /// Turns messages for undeclared agents into dead letters, once their time is over.
    pub(super) fn bury_orphans(&mut self) {
        if self.orphans_until.take_if(|until| *until <= Instant::now()).is_some() {
            let orphans = self.directory.shared.backlog.lock().take_others(|name| self.wanted.contains_key(name));
            let mut timers = self.context.store.timer_counts.agents();
            // Agents that drain are left to their own removal.
            timers.retain(|(name, _)| !self.wanted.contains_key(&**name) && !self.managed.contains_key(&**name));
            let store = Arc::clone(&self.context.store);
            tokio::spawn(async move {
                let timers = timers.into_iter().map(|(name, _)| name).collect();
                bury_orphan_timers(&store, timers).await;
                // Blocking, because each message is read from the store.
                tokio::task::spawn_blocking(move || bury_orphans(&store, orphans)).await
            });
        }
    }
}

/// Logs the dead letters that an earlier removal of these agents left, with the command to redeliver them.
async fn log_dead_letters(context: Arc<HostContext>, names: BTreeSet<AgentName>) {
    // Waits for earlier writes, so that a removal a moment ago is counted.
    if context.store.flush().await.is_err() {
        return;
    }
    let counted = tokio::task::spawn_blocking(move || {
        let filter = |agent| DeadFilter { agent, reason: Some(REMOVED.to_owned()), ..DeadFilter::default() };
        let counts = if names.len() > MAX_SINGLE_COUNTS {
            context.store.dead_letters().counts(&filter(None))
        } else {
            let each = names.iter().map(|name| context.store.dead_letters().counts(&filter(Some(name.to_string()))));
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
        // The runtime is shutting down.
        Err(_) => {}
    }
}
