//! The refusals of a ledger: content that is not tried again until it changes or an operator asks for it.

use super::ledger::{Ledger, RolloutRefusal, SUPERVISION};
use super::obstacle::Obstacle;
use super::record::StoredRevision;
use super::status::Status;
use super::strategy::Strategy;
use crate::names::Digest;

/// The most refusals kept of an agent; the oldest are dropped.
pub(super) const MAX_REFUSALS: usize = 20;

impl Ledger {
    /// Forgets refusals of revisions that failed before they received messages, or failed for good. Those that did
    /// worse or were aborted stay refused.
    pub fn forget_failures(&mut self) {
        // Decided first, as each decision needs the ledger whose list then changes.
        let failed: Vec<bool> = self.refusals.iter().map(|declined| self.has_failed(declined)).collect();
        let mut failed = failed.into_iter();
        self.refusals.retain(|_| !failed.next().unwrap_or(false));
    }

    /// Returns the refusal of this component with these settings. The strategy of the attempt does not matter: the
    /// content was refused.
    pub fn find_refusal(&self, digest: Digest, settings: &str) -> Option<&RolloutRefusal> {
        self.refusals.iter().find(|known| known.digest == digest && known.settings == settings)
    }

    /// Returns the obstacle that a refusal stands for.
    pub fn obstacle_of(&self, declined: &RolloutRefusal) -> Obstacle {
        if self.has_failed(declined) { Obstacle::Failed } else { Obstacle::Refused }
    }

    /// Returns `true` if the refused revision failed before it received messages, or failed for good.
    fn has_failed(&self, declined: &RolloutRefusal) -> bool {
        let is = |side: &StoredRevision| (side.digest, &side.settings) == (declined.digest, &declined.settings);
        match declined.strategy {
            Some(_) => self.rollouts.iter().rfind(|r| is(&r.to)).is_some_and(|r| r.status == Status::Failed),
            None => self.rollouts.iter().rfind(|r| is(&r.from)).is_some_and(|r| r.initiator == SUPERVISION),
        }
    }

    /// Records that this component with these settings is not to be tried again.
    pub fn refuse(&mut self, side: StoredRevision, strategy: Option<Strategy>, why: String, at: u64) {
        let StoredRevision { digest, settings, .. } = side;
        let new = RolloutRefusal { digest, settings, strategy, why, at };
        let same = |old: &RolloutRefusal| (old.digest, &old.settings) == (new.digest, &new.settings);
        // The first refusal has the reason that explains it.
        if self.refusals.iter().any(same) {
            return;
        }
        self.refusals.push(new);
        // The oldest content is the least likely to be declared again.
        if self.refusals.len() > MAX_REFUSALS {
            self.refusals.remove(0);
        }
    }

    /// Returns the reason why a declaration is not tried, with the present way out: a retry does not interrupt an undo
    /// in progress.
    pub fn refusal_text(&self, declined: &RolloutRefusal) -> String {
        let (why, short) = (&declined.why, declined.digest.short());
        let when = if self.is_undoing() { ", which has to wait for the end of the undo" } else { "" };
        format!("{why}; {short} is not tried again until it changes or `caxton rollout retry`{when}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::ledger::samples::{ran, side};

    #[test]
    fn refusals_are_bounded() {
        let mut ledger = ran(&[1]);
        for number in 0..100_u64 {
            ledger.refuse(side(number), None, "it traps".to_owned(), number);
            ledger.refuse(side(number), None, "it traps".to_owned(), number);
        }
        assert_eq!(ledger.refusals.len(), MAX_REFUSALS);
        assert_eq!(ledger.refusals[0].at, 80);
    }
}
