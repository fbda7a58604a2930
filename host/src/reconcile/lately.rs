//! What the revisions that run failed at of late, kept with the ledgers: what comes next is compared with it where
//! nothing runs beside.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant};

use caxton_control::AgentName;
use caxton_control::rollout::Recent;

use super::Reconciler;

/// How often what runs is looked at for its failures.
const EVERY: Duration = Duration::from_secs(5);
/// Ledgers that are kept at a time because of that. Of a host with thousands of agents, a ledger of which may have many
/// rollouts, each has its turn after a while.
const AT_A_TIME: usize = 100;

/// When all were looked at, and who was kept last.
#[derive(Debug, Default)]
pub(super) struct Looks {
    last: Option<Instant>,
    kept: Option<AgentName>,
}

impl Looks {
    /// In how long the next is due.
    pub(super) fn next_in(&self) -> Duration {
        self.last.map_or(EVERY, |last| EVERY.saturating_sub(last.elapsed()))
    }
}

impl Reconciler {
    /// Takes what runs of these agents failed at of late into their ledgers. Returns those of whom that is news.
    pub(super) fn note_figures<'a>(&mut self, names: impl IntoIterator<Item = &'a AgentName>) -> BTreeSet<AgentName> {
        let now = self.now();
        let mut news = BTreeSet::new();
        for name in names {
            let (Some(entry), Some(ledger)) = (self.entries.get_mut(name), self.ledgers.get_mut(name)) else {
                continue;
            };
            let Some((number, counters)) = entry.agent.current().map(|live| (live.id.number, live.tally())) else {
                continue;
            };
            let known = entry.lately.take_if(|(of, _)| *of == number);
            let mut recent =
                known.map_or_else(|| Recent::new(ledger.figures_of(number), counters, now), |(_, recent)| recent);
            if ledger.note_figures(number, recent.look(counters, now)) {
                news.insert(name.clone());
            }
            entry.lately = Some((number, recent));
        }
        news
    }

    /// Looks at all now and then, and keeps the ledgers of some.
    pub(super) fn note_all_figures(&mut self) {
        let due = self.looks.last.is_none_or(|last| last.elapsed() >= EVERY);
        if !due {
            return;
        }
        self.looks.last = Some(Instant::now());
        let names: Vec<AgentName> = self.entries.keys().cloned().collect();
        let news = self.note_figures(&names);
        let from = self.looks.kept.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let behind = news.range((from, Bound::Unbounded));
        let turn: Vec<AgentName> = behind.chain(&news).take(AT_A_TIME.min(news.len())).cloned().collect();
        if let Some(last) = turn.last() {
            self.looks.kept = Some(last.clone());
        }
        self.persist(&turn);
    }

    /// Keeps what all failed at of late, before the host ends.
    pub(super) fn keep_figures(&mut self) {
        let names: Vec<AgentName> = self.entries.keys().cloned().collect();
        let news = self.note_figures(&names);
        self.persist(&news);
    }
}
