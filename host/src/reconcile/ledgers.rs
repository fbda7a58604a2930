//! The persistence of the agents' ledgers of rollouts.

use std::time::{Duration, Instant};

use caxton_control::AgentName;
use caxton_control::rollout::Ledger;

use super::reconciler::Reconciler;
use super::rollout_events::{ReportedProgress, emit_progress};

/// The interval at which statistics are compared with the persisted ones.
const STATS_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which changed statistics alone are persisted. A host that is killed loses no more of them.
const STATS_PERSIST_INTERVAL: Duration = Duration::from_secs(5);

impl Reconciler {
    /// Persists the ledgers of these agents and emits the progress of their rollouts. Has to come before any action
    /// that follows from a ledger.
    pub(super) fn persist<'a>(&mut self, changed: impl IntoIterator<Item = &'a AgentName>) {
        for name in changed {
            let Some(wanted) = self.wanted.get(name) else { continue };
            let Some(ledger) = self.ledgers.get_mut(name) else { continue };
            // Here, because a ledger grows only when it changes.
            let gone = ledger.expire(wanted.spec.rollout.rollback.rules.keep);
            let record = serde_json::to_string(ledger).expect("a ledger is text and numbers");
            self.context.store.rollouts().keep_ledger(name.shared(), Some(record));
            if !gone.is_empty() {
                self.context.store.state().forget_copies(name.shared(), gone.clone());
                self.context.store.snapshots().forget_handoffs(name.shared(), gone);
                self.has_garbage = true;
            }
            let Some(rollout) = ledger.rollouts.last() else { continue };
            let Some(managed) = self.managed.get_mut(name) else { continue };
            // Noted for all writes, so that the timed ones skip what was persisted for another reason.
            managed.persisted_stats = Some((Instant::now(), rollout.stats));
            let before = managed.reported.replace(ReportedProgress::of(rollout));
            emit_progress(&self.context, rollout, before.as_ref());
        }
        if std::mem::take(&mut self.has_garbage) {
            self.collect_garbage(false);
        }
    }

    /// Persists the changed statistics of rollouts under way, if that is due.
    pub(super) fn persist_stats(&mut self) {
        if self.summary.stats_checked_at.is_some_and(|seen| seen.elapsed() < STATS_CHECK_INTERVAL) {
            return;
        }
        self.summary.stats_checked_at = Some(Instant::now());
        let mut due = Vec::new();
        for name in &self.summary.rolling_out {
            let Some(rollout) = self.ledgers.get(name).and_then(Ledger::open) else { continue };
            let Some(managed) = self.managed.get(name) else { continue };
            match managed.persisted_stats {
                Some((_, figures)) if figures == rollout.stats => {}
                Some((at, _)) if at.elapsed() < STATS_PERSIST_INTERVAL => {}
                Some(_) | None => due.push(name.clone()),
            }
        }
        self.persist(&due);
    }

    /// Removes the ledger of an agent that is gone.
    pub(super) fn forget_ledger(&mut self, name: &AgentName) {
        self.ledgers.remove(name);
        self.context.store.rollouts().keep_ledger(name.shared(), None);
        self.has_garbage = true;
    }
}
