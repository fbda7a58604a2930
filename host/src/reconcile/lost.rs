//! Counting what was lost during a rollout.

use std::collections::BTreeSet;
use std::sync::Arc;

use caxton_control::AgentName;

use super::told::Told;
use super::{Reconciler, Report};

/// Places of lost messages that are told one by one.
const TOLD: usize = 20;

impl Reconciler {
    /// Notes for each rollout of these agents that begins which messages came before it.
    pub(super) fn note_places(&mut self, names: &BTreeSet<AgentName>) {
        if !self.context.store.keeps_messages() {
            return;
        }
        let mut now = None;
        for name in names {
            let open = self.ledgers.get_mut(name).and_then(|ledger| ledger.open_mut());
            let Some(rollout) = open.filter(|rollout| rollout.after_message.is_none()) else { continue };
            rollout.after_message = now.get_or_insert_with(|| self.context.store.last_place().ok()).to_owned();
        }
    }

    /// Looks for lost messages after each rollout of these agents that has ended.
    pub(super) fn look_for_lost(&mut self, names: &BTreeSet<AgentName>) {
        for name in names {
            let (Some(entry), Some(ledger)) = (self.entries.get_mut(name), self.ledgers.get(name)) else { continue };
            let uncounted: Vec<(u64, u64)> =
                ledger.uncounted().filter(|(rollout, _)| *rollout > entry.counted).collect();
            for (rollout, after) in uncounted {
                entry.counted = entry.counted.max(rollout);
                let (agent, reports) = (Arc::clone(&entry.agent), self.reports.0.clone());
                tokio::spawn(async move {
                    let lost = agent.find_lost(after).await.unwrap_or_else(|why| {
                        tracing::error!(agent = %agent.name(), why, "whether messages were lost cannot be counted");
                        None
                    });
                    // The reconciler is gone only when the host stops.
                    let _ = reports.send(Report::Counted { agent: agent.name().clone(), rollout, lost }).await;
                });
            }
        }
    }

    /// Takes in what was lost during a rollout.
    pub(super) fn counted(&mut self, agent: &AgentName, rollout: u64, lost: Option<Vec<u64>>) {
        let (Some(lost), Some(ledger)) = (lost, self.ledgers.get_mut(agent)) else { return };
        let count = lost.len() as u64;
        if !ledger.count_lost(rollout, count) {
            return;
        }
        if count > 0 {
            let places: Vec<u64> = lost.into_iter().take(TOLD).collect();
            tracing::error!(
                %agent,
                "{count} messages were lost during rollout {rollout}; a restart of the host finds them again: {places:?}"
            );
        }
        let data = serde_json::json!({ "rollout": rollout, "lost": count });
        self.context.events.tell(Some(agent.as_str()), "rollout.counted", data);
        // One that ended before the host started was told of then.
        if let (Some(entry), Some(last)) = (self.entries.get_mut(agent), ledger.rollouts.last())
            && last.status.is_terminal()
        {
            entry.told.get_or_insert_with(|| Told::of(last));
        }
        self.persist(std::iter::once(agent));
    }
}
