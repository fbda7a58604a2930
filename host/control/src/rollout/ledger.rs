//! The ledger of an agent: its rollouts, the revisions kept, and what was refused.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::compat::Incompatible;
use super::failure_rate::FailureCounts;
use super::record::{InstanceCounts, Rollout, StoredRevision};
use super::settings::RolloutSettings;
use super::status::Status;
use super::strategy::Strategy;
use crate::format::RestoredState;
use crate::names::{AgentName, Digest};

/// The most rollouts kept of an agent, the one in progress included; the oldest are dropped.
// Enough to look back over weeks of changes; the ledger is stored as a whole at each change.
pub const MAX_ROLLOUTS: usize = 50;

/// The initiator of a rollout back from a revision that failed for good.
pub(super) const SUPERVISION: &str = "supervision";

/// The record of an agent. Stored as a whole whenever it changes; components, and the snapshots of handoffs, are stored
/// beside it by revision number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ledger {
    /// The agent.
    pub agent: AgentName,
    /// The rollouts, oldest first. Only the last may be in progress. A record that this version cannot read is left
    /// out, so that the kept revisions are not lost with it.
    #[serde(deserialize_with = "crate::revision_settings::readable")]
    pub rollouts: Vec<Rollout>,
    /// The revisions that ran, in the order in which they last began to. The last one is running, and is the one that a
    /// host starts with, whatever was declared meanwhile.
    #[serde(rename = "ran")]
    pub revisions: Vec<StoredRevision>,
    /// The content that is not tried again until it changes or an operator asks for it.
    #[serde(rename = "declined")]
    pub refusals: Vec<RolloutRefusal>,
    /// The id of the next rollout.
    next: u64,
    /// The latest failures of the running revision, for the comparison with the next one where it no longer runs
    /// beside.
    #[serde(rename = "lately", default)]
    latest_failures: Option<LatestFailures>,
    /// The versions of the format that the state may hold; empty before any revision ran, and in a record from before
    /// formats were declared.
    #[serde(rename = "holds", default)]
    pub(super) state_versions: BTreeSet<u32>,
}

/// The latest failures of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct LatestFailures {
    /// The revision's number.
    revision: u64,
    /// The recent messages and failures.
    #[serde(flatten)]
    tally: FailureCounts,
}

/// A component with settings that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutRefusal {
    /// The digest of the component.
    pub digest: Digest,
    /// The settings.
    #[serde(deserialize_with = "crate::revision_settings::deserialize")]
    pub settings: String,
    /// The strategy of the rollout; `None` if it ran and was undone, or failed for good.
    pub strategy: Option<Strategy>,
    /// The reason, for people to read.
    pub why: String,
    /// The time, in milliseconds since 1970.
    pub at: u64,
}

/// The parts of a ledger whose change requires storing it at once. Times and figures are stored with the next such
/// change.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerFingerprint {
    rollouts: u64,
    last: Option<(Status, usize, usize, u8, u8, bool)>,
    ran: Vec<u64>,
    declined: Vec<u64>,
}

impl Ledger {
    /// Returns the mark to compare after a change.
    pub fn fingerprint(&self) -> LedgerFingerprint {
        let last = |r: &Rollout| (r.status, r.step, r.steps.len(), r.weight, r.weight_in_force, r.handed_over);
        LedgerFingerprint {
            // Not their number, which stops growing at the limit.
            rollouts: self.next,
            last: self.rollouts.last().map(last),
            ran: self.revisions.iter().map(|side| side.number).collect(),
            declined: self.refusals.iter().map(|declined| declined.at).collect(),
        }
    }

    /// Returns a revision that is kept or takes part in the rollout in progress.
    pub fn revision(&self, number: u64) -> Option<&StoredRevision> {
        let open = self.open().into_iter().flat_map(|rollout| [&rollout.from, &rollout.to]);
        self.revisions.iter().chain(open).find(|side| side.number == number)
    }

    /// Returns the highest revision number in the ledger; 0 without any.
    pub fn last_number(&self) -> u64 {
        let rolled = self.rollouts.iter().flat_map(|rollout| [rollout.from.number, rollout.to.number]);
        self.revisions.iter().map(|side| side.number).chain(rolled).max().unwrap_or(0)
    }

    /// Creates the ledger of an agent that never ran.
    pub fn new(agent: AgentName) -> Self {
        Self {
            agent,
            rollouts: Vec::new(),
            revisions: Vec::new(),
            refusals: Vec::new(),
            next: 1,
            latest_failures: None,
            state_versions: BTreeSet::new(),
        }
    }

    /// Returns the rollout in progress.
    pub fn open(&self) -> Option<&Rollout> {
        self.rollouts.last().filter(|rollout| !rollout.status.is_terminal())
    }

    /// Returns the rollout in progress for a change. Call [`Ledger::settle`] afterwards.
    pub fn open_mut(&mut self) -> Option<&mut Rollout> {
        self.rollouts.last_mut().filter(|rollout| !rollout.status.is_terminal())
    }

    /// Returns ended rollouts whose lost messages have to be counted, with their first message. Considers only the last
    /// few, since each is counted right after its end.
    pub fn uncounted(&self) -> impl Iterator<Item = (u64, u64)> {
        let last = self.rollouts.iter().rev().take(3).filter(|rollout| rollout.status.is_terminal());
        last.filter(|rollout| rollout.stats.lost.is_none())
            .filter_map(|rollout| Some((rollout.id, rollout.after_message?)))
    }

    /// Records the messages lost during a rollout that has ended. Returns `true` if the number is new.
    pub fn count_lost(&mut self, rollout: u64, lost: u64) -> bool {
        let known = self.rollouts.iter_mut().find(|known| known.id == rollout);
        let Some(rollout) = known.filter(|rollout| rollout.status.is_terminal()) else { return false };
        rollout.stats.lost.replace(lost) != Some(lost)
    }

    /// Returns the versions of the format that the state may hold.
    pub fn state_versions(&self) -> BTreeSet<u32> {
        match self.current() {
            // A record from before formats were declared.
            Some(current) if self.state_versions.is_empty() => [current.format().version].into(),
            Some(_) | None => self.state_versions.clone(),
        }
    }

    /// Returns `true` if a revision ran and is remembered.
    pub fn has_run(&self, number: u64) -> bool {
        self.revisions.iter().any(|side| side.number == number)
    }

    /// Returns the running revision.
    pub fn current(&self) -> Option<&StoredRevision> {
        self.revisions.last()
    }

    /// Records a revision that runs without a rollout: an agent's first, or the one that a host started with.
    pub fn record_running(&mut self, side: StoredRevision) {
        self.state_versions = self.state_versions().into_iter().chain([side.format().version]).collect();
        // It moves to the end: an undo goes by the order in which revisions last began.
        self.revisions.retain(|ran| ran.number != side.number);
        // Most agents have one that has run, and there may be a hundred thousand.
        self.revisions.reserve_exact(1);
        self.revisions.push(side);
    }

    /// Records the latest failures of a revision, if it is the running one. They also count for the rollout in
    /// progress, until all traffic has moved: the messages of a draining revision are no basis for comparison. Returns
    /// `true` if they are new.
    pub fn record_failures(&mut self, revision: u64, tally: FailureCounts) -> bool {
        let runs = self.current().is_some_and(|current| current.number == revision);
        let noted = Some(LatestFailures { revision, tally });
        // An empty tally, as after a restart, must not replace what is known.
        if !runs || tally.messages == 0 || self.latest_failures == noted {
            return false;
        }
        self.latest_failures = noted;
        if let Some(rollout) = self.open_mut().filter(|rollout| rollout.from.number == revision && rollout.weight < 100)
        {
            rollout.stable_recent = tally;
            // Later failures of stable may be the candidate's doing.
            if rollout.weight_history.is_empty() {
                rollout.stable_before = tally;
            }
        }
        true
    }

    /// Returns the latest failures of a revision; empty if unknown.
    pub fn recent_failures(&self, revision: u64) -> FailureCounts {
        self.latest_failures.filter(|lately| lately.revision == revision).map(|lately| lately.tally).unwrap_or_default()
    }

    /// Begins a rollout from the running revision; `restores` is the kept state that an undo puts back.
    ///
    /// # Errors
    /// The strategy is impossible for this agent.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
    pub fn begin(
        &mut self,
        to: StoredRevision,
        who: &str,
        settings: RolloutSettings,
        instances: InstanceCounts,
        stateful: bool,
        restores: Option<RestoredState>,
        now: u64,
    ) -> Result<&Rollout, Incompatible> {
        // Without a running revision there is nothing else that it could come from.
        let from = self.revisions.last().cloned().unwrap_or_else(|| to.clone());
        let lately = self.recent_failures(from.number);
        let state = (self.state_versions(), restores);
        let mut rollout =
            Rollout::begin(self.next, self.agent.clone(), from, to, who, settings, instances, stateful, state, now)?;
        (rollout.stable_recent, rollout.stable_before) = (lately, lately);
        // Ids are never used twice, even if the rollout is dropped from the list.
        self.next += 1;
        self.rollouts.push(rollout);
        if self.rollouts.len() > MAX_ROLLOUTS {
            self.rollouts.remove(0);
        }
        Ok(&self.rollouts[self.rollouts.len() - 1])
    }

    /// Returns `true` if an undo is in progress.
    pub(super) fn is_undoing(&self) -> bool {
        self.open().is_some_and(|open| open.settings.strategy == Strategy::Undo)
    }

    /// Returns the revisions that are kept for an undo, the latest last.
    pub fn kept(&self, keep: u32) -> &[StoredRevision] {
        // The last one is running, so it is nothing to go back to.
        let earlier = &self.revisions[..self.revisions.len().saturating_sub(1)];
        &earlier[earlier.len().saturating_sub(keep as usize)..]
    }

    /// Forgets revisions that are not kept any more and returns their numbers, so that their components and snapshots
    /// can be deleted. A rollout in progress keeps its own.
    pub fn expire(&mut self, keep: u32) -> Vec<u64> {
        let needed: Vec<u64> =
            self.open().map(|rollout| vec![rollout.from.number, rollout.to.number]).unwrap_or_default();
        let earlier = self.revisions.len().saturating_sub(1);
        let beyond = earlier.saturating_sub(keep as usize);
        let gone: Vec<u64> =
            self.revisions[..beyond].iter().map(|side| side.number).filter(|number| !needed.contains(number)).collect();
        self.revisions.retain(|side| !gone.contains(&side.number));
        gone
    }
}

/// The ledgers for the tests of this folder.
#[cfg(test)]
pub(super) mod samples {
    use super::*;

    pub(crate) fn side(number: u64) -> StoredRevision {
        StoredRevision { number, digest: Digest([number as u8; 32]), settings: "{}".to_owned() }
    }

    /// Returns a ledger in which these revisions ran, in this order.
    pub(crate) fn ran(numbers: &[u64]) -> Ledger {
        let mut ledger = Ledger::new("echo".parse().unwrap());
        numbers.iter().for_each(|number| ledger.record_running(side(*number)));
        ledger
    }
}

#[cfg(test)]
mod tests {
    use super::samples::ran;
    use super::*;

    fn numbers(sides: &[StoredRevision]) -> Vec<u64> {
        sides.iter().map(|side| side.number).collect()
    }

    #[test]
    fn the_latest_revisions_are_kept() {
        // ran, keep, kept, gone
        for (ran_before, keep, kept, gone) in [
            (&[][..], 3, &[][..], &[][..]),
            (&[1], 3, &[], &[]),
            (&[1, 2, 3, 4], 3, &[1, 2, 3], &[]),
            (&[1, 2, 3, 4, 5], 3, &[2, 3, 4], &[1]),
            (&[1, 2, 3], 0, &[], &[1, 2]),
            // Back on 2: the one before it is 3.
            (&[1, 2, 3, 2], 1, &[3], &[1]),
        ] {
            let mut ledger = ran(ran_before);
            assert_eq!(numbers(ledger.kept(keep)), kept, "{ran_before:?} {keep}");
            assert_eq!(ledger.expire(keep), gone, "{ran_before:?} {keep}");
            assert_eq!(numbers(ledger.kept(keep)), kept, "{ran_before:?} {keep}");
        }
    }
}
