//! The search for messages that were lost during a rollout.

use std::collections::BTreeSet;
use std::sync::Arc;

use caxton_control::AgentName;

use super::reconciler::Reconciler;
use super::rollout_events::ReportedProgress;
use super::task_report::TaskReport;

/// The most positions of lost messages that a log line lists.
const MAX_LISTED: usize = 20;

impl Reconciler {
    /// Records the latest position of a message in each rollout of these agents that has just begun.
    pub(super) fn record_start_positions(&mut self, names: &BTreeSet<AgentName>) {
        if !self.context.store.keeps_messages() {
            return;
        }
        // Read once at most: all rollouts of a pass begin at the same moment.
        let mut now = None;
        for name in names {
            let open = self.ledgers.get_mut(name).and_then(|ledger| ledger.open_mut());
            let Some(rollout) = open.filter(|rollout| rollout.after_message.is_none()) else { continue };
            rollout.after_message = now.get_or_insert_with(|| self.context.store.queue().last_seq().ok()).to_owned();
        }
    }

    /// Starts a search for lost messages for each rollout of these agents that has ended without one.
    pub(super) fn start_loss_checks(&mut self, names: &BTreeSet<AgentName>) {
        for name in names {
            let (Some(managed), Some(ledger)) = (self.managed.get_mut(name), self.ledgers.get(name)) else { continue };
            let uncounted: Vec<(u64, u64)> =
                ledger.uncounted().filter(|(rollout, _)| *rollout > managed.loss_checked_to).collect();
            for (rollout, after) in uncounted {
                // Before the search ends, so that the next pass does not start it again.
                managed.loss_checked_to = managed.loss_checked_to.max(rollout);
                let (agent, reports) = (Arc::clone(&managed.agent), self.reports.0.clone());
                tokio::spawn(async move {
                    let lost = agent.find_lost(after).await.unwrap_or_else(|why| {
                        tracing::error!(agent = %agent.name(), why, "whether messages were lost cannot be counted");
                        None
                    });
                    // The reconciler is gone only when the host stops.
                    let _ = reports.send(TaskReport::LossChecked { agent: agent.name().clone(), rollout, lost }).await;
                });
            }
        }
    }

    /// Takes in the result of a search for lost messages.
    pub(super) fn take_loss_check(&mut self, agent: &AgentName, rollout: u64, lost: Option<Vec<u64>>) {
        let (Some(lost), Some(ledger)) = (lost, self.ledgers.get_mut(agent)) else { return };
        let count = lost.len() as u64;
        // The rollout was removed from the ledger meanwhile, or is counted already.
        if !ledger.count_lost(rollout, count) {
            return;
        }
        if count > 0 {
            let places: Vec<u64> = lost.into_iter().take(MAX_LISTED).collect();
            tracing::error!(
                %agent,
                "{count} messages were lost during rollout {rollout}; a restart of the host finds them again: {places:?}"
            );
        }
        let data = serde_json::json!({ "rollout": rollout, "lost": count });
        self.context.events.emit(Some(agent.as_str()), "rollout.counted", data);
        // A rollout that ended before the host started was reported then: no event for it is emitted again.
        if let (Some(managed), Some(last)) = (self.managed.get_mut(agent), ledger.rollouts.last())
            && last.status.is_terminal()
        {
            managed.reported.get_or_insert_with(|| ReportedProgress::of(last));
        }
        self.persist(std::iter::once(agent));
    }
}
