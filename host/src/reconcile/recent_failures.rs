//! The recent failures of running revisions. They are kept in the ledgers, because a candidate that replaces the
//! running revision at once is compared with them.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use caxton_control::AgentName;
use caxton_control::rollout::RecentFailures;

use super::reconciler::Reconciler;

/// The interval at which the failures of all running revisions are recorded.
pub(super) const RECORD_INTERVAL: Duration = Duration::from_secs(5);
/// The most ledgers that are persisted at a time for their failures. A ledger may be large, and a host has thousands of
/// agents, so that they take turns.
const MAX_PERSISTED: usize = 100;

impl Reconciler {
    /// Records the recent failures of these agents in their ledgers. Returns the agents whose ledger has changed.
    pub(super) fn record_failures<'a>(
        &mut self,
        names: impl IntoIterator<Item = &'a AgentName>,
    ) -> BTreeSet<AgentName> {
        let now = self.now();
        let mut news = BTreeSet::new();
        for name in names {
            let (Some(managed), Some(ledger)) = (self.managed.get_mut(name), self.ledgers.get_mut(name)) else {
                continue;
            };
            let Some((number, counters)) = managed.agent.current().map(|live| (live.id.number, live.tally())) else {
                continue;
            };
            // The counters of another revision start anew and cannot be continued.
            let known = managed.recent_failures.take_if(|(of, _)| *of == number);
            let mut recent = known.map_or_else(
                || RecentFailures::new(ledger.recent_failures(number), counters, now),
                |(_, recent)| recent,
            );
            if ledger.record_failures(number, recent.update(counters, now)) {
                news.insert(name.clone());
            }
            managed.recent_failures = Some((number, recent));
        }
        news
    }

    /// Records the failures of all agents if that is due, and persists some of the changed ledgers.
    pub(super) fn record_all_failures(&mut self) {
        let due = self.failures_recorded_at.is_none_or(|last| last.elapsed() >= RECORD_INTERVAL);
        if !due {
            return;
        }
        self.failures_recorded_at = Some(Instant::now());
        let names: Vec<AgentName> = self.managed.keys().cloned().collect();
        let news = self.record_failures(&names);
        let from = self.failures_persisted_to.clone().map_or(Bound::Unbounded, Bound::Excluded);
        // Begins after the last agent of the previous turn and wraps around.
        let behind = news.range((from, Bound::Unbounded));
        let turn: Vec<AgentName> = behind.chain(&news).take(MAX_PERSISTED.min(news.len())).cloned().collect();
        if let Some(last) = turn.last() {
            self.failures_persisted_to = Some(last.clone());
        }
        self.persist(&turn);
    }

    /// Persists the failures of all agents before the host ends.
    pub(super) fn persist_failures(&mut self) {
        let names: Vec<AgentName> = self.managed.keys().cloned().collect();
        let news = self.record_failures(&names);
        self.persist(&news);
    }
}
