//! Counting what was lost during a rollout.

use std::sync::Arc;

use caxton_control::AgentName;

use super::roll::Told;
use super::{Reconciler, Report};

/// Places of lost messages that are told one by one.
const TOLD: usize = 20;

impl Reconciler {
    /// Notes for each rollout that begins which messages came before it.
    pub(super) fn note_places(&mut self) {
        if !self.commons.store.keeps_messages() {
            return;
        }
        let mut now = None;
        for rollout in self.ledgers.values_mut().filter_map(|ledger| ledger.open_mut()) {
            if rollout.after_message.is_some() {
                continue;
            }
            rollout.after_message = now.get_or_insert_with(|| self.commons.store.last_place().ok()).to_owned();
        }
    }

    /// Looks for lost messages after each rollout that has ended.
    pub(super) fn look_for_lost(&mut self) {
        for (name, entry) in &mut self.entries {
            let Some(ledger) = self.ledgers.get(name) else { continue };
            let uncounted: Vec<(u64, u64)> =
                ledger.uncounted().filter(|(rollout, _)| *rollout > entry.counted).collect();
            for (rollout, after) in uncounted {
                entry.counted = entry.counted.max(rollout);
                let (agent, reports) = (Arc::clone(&entry.agent), self.reports.0.clone());
                tokio::spawn(async move {
                    let lost = agent.count_lost(after).await.unwrap_or_else(|why| {
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
        self.commons.events.tell(Some(agent.as_str()), "rollout.counted", data);
        // One that ended before the host started was told of then.
        if let (Some(entry), Some(last)) = (self.entries.get_mut(agent), ledger.rollouts.last())
            && last.status.is_terminal()
        {
            entry.told.get_or_insert_with(|| Told::of(last));
        }
        self.persist(std::slice::from_ref(agent));
    }
}
