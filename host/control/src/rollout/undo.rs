//! The return to a revision that ran before.

use std::collections::BTreeSet;

use super::command::{CommandError, RolloutCommand, UndoOptions};
use super::ledger::{Ledger, SUPERVISION};
use super::record::{InstanceCounts, StoredRevision};
use super::settings::RolloutSettings;
use super::strategy::Strategy;
use crate::format::RestoredState;

/// A copy of the state that was stored before the format changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCopy {
    /// The number of the revision that ran with it.
    pub revision: u64,
    /// The versions of the format that it may hold.
    pub state_versions: BTreeSet<u32>,
    /// The number of its keys.
    pub keys: u64,
    /// The number of keys written since.
    pub written_since: u64,
}

impl Ledger {
    /// Carries out an undo: takes the rollout in progress back, or begins one to the revision that `undo` names or else
    /// to the one that ran before. `settings` and `instances` are the declared ones, `stateful` is that of the running
    /// revision; `kept` are the stored copies of the agent's state, newest first.
    ///
    /// # Errors
    /// The undo is not possible now.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own")]
    pub fn undo(
        &mut self,
        undo: UndoOptions,
        who: &str,
        settings: &RolloutSettings,
        instances: InstanceCounts,
        stateful: bool,
        kept: &[StateCopy],
        now: u64,
    ) -> Result<(), CommandError> {
        // With no revision kept, the only way back is that of the rollout in progress.
        let rehearses = undo.rehearse && settings.rollback.keep > 0;
        if let Some(rollout) = self.open_mut() {
            let from = rollout.from.clone();
            let elsewhere = undo.to.is_some_and(|number| number != from.number);
            let bar = rollout.rollback_barrier();
            if rollout.has_moved() && (rehearses || elsewhere || bar.is_some()) {
                // The rollout has moved for good, and the undo asks for more than taking that back. It is superseded
                // only if the undo is possible.
                let (holds, current) = (rollout.state_versions_after(), Some(rollout.to.number));
                // Once it is, the new revision is the last that ran, and these are those before it.
                let keep = settings.rollback.keep;
                let target =
                    find(&self.revisions[self.revisions.len().saturating_sub(keep as usize)..], undo.to, keep)?;
                restorable(undo, target, &holds, current, kept)?;
                if let Some(rollout) = self.open_mut() {
                    rollout.supersede("an undo", now);
                }
                self.settle(now);
            } else {
                if elsewhere {
                    return Err(CommandError::NotKept { number: undo.to.unwrap_or_default(), kept: vec![from.number] });
                }
                if undo.restore_state {
                    let why = "the rollout in progress goes back without `--restore-state`: the running revision can read \
                               the state, or it is put back as it was";
                    return Err(CommandError::Blocked { why: why.to_owned() });
                }
                rollout.command(RolloutCommand::Undo, who, now)?;
                self.settle(now);
                return Ok(());
            }
        }
        // After a superseded rollout is settled, as that decides which revisions were before.
        let target = self.undo_target(undo.to, settings.rollback.keep)?.clone();
        let current = self.current().map(|current| current.number);
        let restores = restorable(undo, &target, &self.state_versions(), current, kept)?;
        // An earlier state lacks what the later messages rely on, so they cannot be rehearsed on it.
        let rehearse = if restores.is_some() { 0 } else { undo.messages(settings) };
        let settings = RolloutSettings { rehearse, ..settings.with(Strategy::Undo) };
        let current = self.current().cloned();
        self.begin(target.clone(), who, settings, instances, stateful, restores, now)
            .map_err(|why| CommandError::Blocked { why: why.to_string() })?;
        // A target chosen by an operator is wanted, whatever became of it before.
        self.refusals.retain(|d| d.digest != target.digest || d.settings != target.settings);
        if let Some(current) = current {
            self.refuse(current, None, format!("undone by {who}"), now);
        }
        Ok(())
    }

    /// Handles the failure for good of the running revision: begins a rollout to the last kept revision, if there is
    /// one (SPEC §7, supervision), and declines the failed one. Returns `true` if it did. Does nothing during a
    /// rollout.
    pub fn recover(
        &mut self,
        why: &str,
        settings: &RolloutSettings,
        instances: InstanceCounts,
        stateful: bool,
        now: u64,
    ) -> bool {
        // A rollout in progress handles the failure of either of its revisions itself.
        if self.open().is_some() {
            return false;
        }
        // Going to one that failed before would loop.
        let refused = |side: &StoredRevision| self.find_refusal(side.digest, &side.settings).is_some();
        // Nor one that cannot read what was written since it ran.
        let holds = self.state_versions();
        let readable = |side: &StoredRevision| side.format().unreadable(&holds).is_none();
        let kept = self.kept(settings.rollback.keep).iter().rev();
        let target = kept.into_iter().find(|side| !refused(side) && readable(side)).cloned();
        let (Some(target), Some(failed)) = (target, self.current().cloned()) else { return false };
        // No message is answered meanwhile, so a rehearsal would only prolong the outage.
        let settings = RolloutSettings { rehearse: 0, ..settings.with(Strategy::Undo) };
        let begun = self.begin(target, SUPERVISION, settings, instances, stateful, None, now).is_ok();
        if begun {
            self.refuse(failed, None, why.to_owned(), now);
        }
        begun
    }

    /// Returns the target of an undo: `to`, or else the revision that ran before.
    ///
    /// # Errors
    /// The revision is not kept.
    pub fn undo_target(&self, to: Option<u64>, keep: u32) -> Result<&StoredRevision, CommandError> {
        find(self.kept(keep), to, keep)
    }
}

/// Finds the revision that an undo goes back to among those that are kept: number `to`, or else the last.
fn find(kept: &[StoredRevision], to: Option<u64>, keep: u32) -> Result<&StoredRevision, CommandError> {
    match to {
        None => kept.last().ok_or(CommandError::NothingKept { keep }),
        Some(number) => kept
            .iter()
            .find(|side| side.number == number)
            .ok_or_else(|| CommandError::NotKept { number, kept: kept.iter().map(|side| side.number).collect() }),
    }
}

/// Returns the stored copy of the state that an undo to `target` puts back; `None` if it leaves the state unchanged.
/// `holds` are the versions that the present state may hold, `current` is the number of the running revision.
fn restorable(
    undo: UndoOptions,
    target: &StoredRevision,
    holds: &BTreeSet<u32>,
    current: Option<u64>,
    kept: &[StateCopy],
) -> Result<Option<RestoredState>, CommandError> {
    let (format, number) = (target.format(), target.number);
    let readable =
        |kept: &&StateCopy| Some(kept.revision) != current && format.unreadable(&kept.state_versions).is_none();
    // The newest that the revision can read: it loses the fewest writes.
    let found = kept.iter().find(readable);
    match (format.unreadable(holds), found) {
        (_, Some(found)) if undo.restore_state => {
            Ok(Some(RestoredState { revision: found.revision, state_versions: found.state_versions.clone() }))
        }
        (_, None) if undo.restore_state => Err(CommandError::NothingToRestore { number }),
        (None, _) => Ok(None),
        (Some(version), Some(StateCopy { keys, written_since, .. })) => {
            let written = match written_since {
                0 => "nothing was written since".to_owned(),
                1 => "the 1 key written since is kept as well".to_owned(),
                more => format!("the {more} keys written since are kept as well"),
            };
            let keys = count(*keys);
            let way = format!("`--restore-state` goes back to the state as it was before ({keys}); {written}");
            Err(CommandError::Unreadable { number, version, way })
        }
        (Some(version), None) => {
            let way = format!("no state that it can read is kept; roll out a revision that reads version {version}");
            Err(CommandError::Unreadable { number, version, way })
        }
    }
}

/// Formats a number of keys.
fn count(keys: u64) -> String {
    if keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Digest;
    use crate::rollout::Status;
    use crate::rollout::ledger::samples::ran;

    fn side(number: u64, version: u32, reads: &str) -> StoredRevision {
        let settings = format!("{{\"state\":{{\"reads\":[{reads}],\"version\":{version}}}}}");
        StoredRevision { number, digest: Digest([number as u8; 32]), settings }
    }

    fn kept(revision: u64, holds: &[u32]) -> StateCopy {
        StateCopy { revision, state_versions: holds.iter().copied().collect(), keys: 25, written_since: 24 }
    }

    #[test]
    fn an_undo_needs_a_readable_state_or_puts_back_a_copy() {
        let undo = UndoOptions { rehearse: false, ..UndoOptions::default() };
        let restore = UndoOptions { restore_state: true, ..undo };
        // the versions that the target reads, the undo, the stored copies; the error, and the copy that is put back
        for (reads, asked, states, answer, restored) in [
            ("2", undo, vec![], "", None),
            (
                "",
                undo,
                vec![],
                "revision 1 cannot read version 2 of the state's format, which the state may hold: no state that it can read \
                 is kept; roll out a revision that reads version 2",
                None,
            ),
            (
                "",
                undo,
                vec![kept(1, &[1])],
                "revision 1 cannot read version 2 of the state's format, which the state may hold: `--restore-state` goes back \
                 to the state as it was before (25 keys); the 24 keys written since are kept as well",
                None,
            ),
            ("", restore, vec![kept(2, &[1]), kept(1, &[1])], "", Some(1)),
            ("2", restore, vec![kept(1, &[1])], "", Some(1)),
            (
                "",
                restore,
                vec![kept(1, &[1, 2])],
                "no state that revision 1 can read was kept: there is nothing to restore",
                None,
            ),
        ] {
            let mut ledger = Ledger::new("echo".parse().unwrap());
            ledger.record_running(side(1, 1, reads));
            ledger.record_running(side(2, 2, "1"));
            let settings = RolloutSettings::new(Strategy::Undo);
            let done = ledger.undo(asked, "anna", &settings, InstanceCounts::default(), false, &states, 5);
            assert_eq!(done.map_or_else(|why| why.to_string(), |()| String::new()), answer, "{reads} {asked:?}");
            let open = ledger.open();
            assert_eq!(open.is_some(), answer.is_empty());
            let from = open.and_then(|open| open.restores.as_ref()).map(|restored| restored.revision);
            assert_eq!(from, restored, "{reads} {asked:?}");
            assert!(open.is_none_or(|open| open.status == Status::Pending));
        }
    }

    #[test]
    fn an_undo_that_is_refused_leaves_the_rollout_that_is_watched() {
        let mut ledger = Ledger::new("echo".parse().unwrap());
        ledger.record_running(side(1, 1, ""));
        let settings = RolloutSettings::new(Strategy::Deploy(crate::rollout::DeployStrategy::Immediate));
        let instances = InstanceCounts::default();
        ledger.begin(side(2, 1, ""), "anna", settings.clone(), instances, false, None, 1).unwrap();
        let open = ledger.open_mut().unwrap();
        (open.step, open.weight, open.weight_in_force, open.status) = (3, 100, 100, Status::InProgress);
        assert!(ledger.open().is_some_and(crate::rollout::Rollout::has_moved));
        let undo = UndoOptions { to: Some(77), ..UndoOptions::default() };
        let refused = ledger.undo(undo, "anna", &settings, instances, false, &[], 5);
        assert_eq!(refused, Err(CommandError::NotKept { number: 77, kept: vec![1] }));
        assert!(ledger.open().is_some(), "it is watched as before");
    }

    #[test]
    fn supervision_goes_back_only_to_a_revision_that_can_read_the_state() {
        let recover = |reads: &str| {
            let mut ledger = Ledger::new("echo".parse().unwrap());
            ledger.record_running(side(1, 2, ""));
            ledger.record_running(side(2, 1, reads));
            ledger.record_running(side(3, 2, "1"));
            let settings = RolloutSettings::new(Strategy::Undo);
            ledger.recover("it traps", &settings, InstanceCounts::default(), false, 5);
            ledger.open().map(|open| open.to.number)
        };
        assert_eq!(recover("2"), Some(2));
        assert_eq!(recover(""), None);
    }

    #[test]
    fn an_undo_needs_a_kept_revision() {
        let ledger = ran(&[1, 2, 3, 4, 5]);
        assert_eq!(ledger.undo_target(None, 3).unwrap().number, 4);
        assert_eq!(ledger.undo_target(Some(2), 3).unwrap().number, 2);
        for number in [1, 5, 9] {
            let refused = ledger.undo_target(Some(number), 3).unwrap_err();
            assert_eq!(refused, CommandError::NotKept { number, kept: vec![2, 3, 4] });
        }
        assert_eq!(ran(&[1]).undo_target(None, 3), Err(CommandError::NothingKept { keep: 3 }));
    }
}
