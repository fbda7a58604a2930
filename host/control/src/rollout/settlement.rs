//! The conclusions from a rollout that has ended.

use super::ledger::{Ledger, SUPERVISION};
use super::record::StoredRevision;
use super::status::Status;
use super::strategy::Strategy;

impl Ledger {
    /// Draws the conclusions from a rollout that has just ended. Returns `true` if it has. Call it whenever the rollout
    /// in progress was observed, commanded or superseded.
    pub fn settle(&mut self, now: u64) -> bool {
        let Some(rollout) = self.rollouts.last().filter(|rollout| rollout.status.is_terminal()) else { return false };
        let (to, why) = (rollout.to.clone(), rollout.why.clone());
        let strategy = rollout.settings.strategy.clone();
        let runs = match rollout.status {
            Status::Completed => true,
            // With nothing to go back to, a failed rollout leaves the candidate running.
            Status::Failed => rollout.weight == 100,
            _ => false,
        };
        // What an undo by hand could not go to ran before, and what it would have left runs on: neither is refused.
        let is_failed_undo =
            rollout.status == Status::Failed && strategy == Strategy::Undo && rollout.initiator != SUPERVISION && !runs;
        if is_failed_undo {
            let StoredRevision { digest, settings, .. } = rollout.from.clone();
            self.refusals.retain(|known| (known.digest, &known.settings) != (digest, &settings));
            return true;
        }
        // A superseded rollout refuses nothing: its content was not found to be worse.
        let declines = matches!(rollout.status, Status::Failed | Status::Cancelled | Status::RolledBack);
        let holds = rollout.state_versions_after();
        if runs && self.current() != Some(&to) {
            self.record_running(to.clone());
        }
        // After `record_running`, which only adds versions: the rollout knows which are left.
        self.state_versions = holds;
        if declines && !runs {
            self.refuse(to, Some(strategy), why, now);
        }
        true
    }
}
