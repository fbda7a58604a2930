//! The commands of operators to a rollout.

use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use super::record::Rollout;
use super::settings::RolloutSettings;
use super::status::{RollbackReason, Status};
use super::step::Step;

/// A command to a rollout in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutCommand {
    /// Stays at the present step, under judgement.
    Pause,
    /// Continues after a pause.
    Resume,
    /// Continues with the next step, even if the time or the messages of this one are not enough.
    Promote,
    /// Ends the rollout, with the traffic back on stable.
    Abort,
    /// Begins again after a bad end. Acts on the agent; see [`Ledger::command`](super::Ledger::command).
    Retry,
    /// Returns to the revision before, even after the end. Acts on the agent; see
    /// [`Ledger::undo`](super::Ledger::undo).
    Undo,
}

/// The messages of an undo's rehearsal where `rollback.rehearse` is not declared: enough to show whether a revision can
/// read the state, and few enough for the time that an undo has.
const UNDO_REHEARSES: u32 = 100;

/// The details of an undo. Other commands have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndoOptions {
    /// The number of the revision to go back to; the one that ran last before, if none.
    pub to: Option<u64>,
    /// Set if that revision has to handle the last messages on a copy before it gets any traffic.
    pub rehearse: bool,
    /// Set to put back the state as it was before the format changed, without later writes.
    pub restore_state: bool,
}

impl Default for UndoOptions {
    /// Returns to the revision that ran last before, once it is rehearsed.
    fn default() -> Self {
        Self { to: None, rehearse: true, restore_state: false }
    }
}

impl UndoOptions {
    /// Returns the number of messages of its rehearsal.
    pub(super) fn messages(self, settings: &RolloutSettings) -> u32 {
        match (self.rehearse, settings.rehearse) {
            (false, _) => 0,
            (true, 0) => UNDO_REHEARSES,
            (true, declared) => declared,
        }
    }
}

/// Prints numbers in order, for a person.
fn list(numbers: &[u64]) -> String {
    if numbers.is_empty() {
        return "none".to_owned();
    }
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The reason why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The rollout has ended.
    #[error("it is {status} and does not move any more")]
    Ended {
        /// The final status.
        status: &'static str,
    },
    /// The rollout is on its way back already.
    #[error("it goes back already")]
    AlreadyRollingBack,
    /// The rollout has not begun.
    #[error("it waits for its turn; only `abort` is possible until then")]
    NotStarted,
    /// The rollout is not paused.
    #[error("it is not paused")]
    NotPaused,
    /// The rollout waits for a promotion.
    #[error("step {step} waits for `promote`")]
    NeedsPromote {
        /// The step, counted from 1.
        step: usize,
    },
    /// The rollout is paused already.
    #[error("it is paused already")]
    AlreadyPaused,
    /// The rollout waits for the host and not for a person.
    #[error("there is nothing to promote at step {step}: it waits for the host")]
    NothingToPromote {
        /// The step, counted from 1.
        step: usize,
    },
    /// The rollout is still in progress.
    #[error("it is {status}; only what ended is tried again")]
    InProgress {
        /// The present status.
        status: &'static str,
    },
    /// The agent has no rollout.
    #[error("there is no rollout")]
    NoRollout,
    /// The agent has no earlier revision that is kept.
    #[error("there is no earlier revision to go back to; the last {keep} are kept")]
    NothingKept {
        /// The number of revisions that are kept.
        keep: u32,
    },
    /// The revision cannot read the present state.
    #[error("revision {number} cannot read version {version} of the state's format, which the state may hold: {way}")]
    Unreadable {
        /// The revision's number.
        number: u64,
        /// The version of the format that it cannot read.
        version: u32,
        /// The way out.
        way: String,
    },
    /// The agent has no earlier state that the revision can read.
    #[error("no state that revision {number} can read was kept: there is nothing to restore")]
    NothingToRestore {
        /// The number of the revision.
        number: u64,
    },
    /// The present state makes the rollout impossible.
    #[error("{why}")]
    Blocked {
        /// The reason, with the way out.
        why: String,
    },
    /// The revision is not kept.
    #[error("revision {number} is not kept; kept are {}", list(.kept))]
    NotKept {
        /// The requested number.
        number: u64,
        /// The numbers of the kept revisions.
        kept: Vec<u64>,
    },
}

impl Rollout {
    /// Carries out a command of `who`.
    ///
    /// # Errors
    /// The command is not possible now.
    pub fn command(&mut self, command: RolloutCommand, who: &str, now: u64) -> Result<(), CommandError> {
        // The time before the command belongs to the status before it.
        self.tick(now);
        let status = self.status.as_str();
        if self.status.is_terminal() {
            return Err(CommandError::Ended { status });
        }
        if let Status::RollingBack { .. } = self.status {
            return Err(if command == RolloutCommand::Retry {
                CommandError::InProgress { status }
            } else {
                CommandError::AlreadyRollingBack
            });
        }
        // A declared pause is for a decision, and `resume` would be too easy a slip for one.
        let waits_for_promote = self.steps.get(self.step) == Some(&Step::Pause);
        match command {
            RolloutCommand::Pause if self.status == Status::Pending => return Err(CommandError::NotStarted),
            RolloutCommand::Pause if self.status == Status::Paused => return Err(CommandError::AlreadyPaused),
            RolloutCommand::Pause => self.set_status(Status::Paused, format!("paused by {who}"), now),
            RolloutCommand::Resume if self.status != Status::Paused => return Err(CommandError::NotPaused),
            RolloutCommand::Resume if waits_for_promote => {
                return Err(CommandError::NeedsPromote { step: self.step + 1 });
            }
            RolloutCommand::Resume => self.set_status(self.status_of_step(), format!("resumed by {who}"), now),
            RolloutCommand::Promote => return self.promote(who, now),
            // Refused here, as a rollback that cannot begin ends the rollout as failed.
            RolloutCommand::Abort | RolloutCommand::Undo if self.rollback_barrier().is_some() => {
                return Err(CommandError::Blocked { why: self.rollback_barrier().unwrap_or_default() });
            }
            RolloutCommand::Abort => self.start_rollback(RollbackReason::Cancelled, format!("aborted by {who}"), now),
            RolloutCommand::Undo => self.start_rollback(RollbackReason::RolledBack, format!("undone by {who}"), now),
            RolloutCommand::Retry => return Err(CommandError::InProgress { status }),
        }
        Ok(())
    }

    fn promote(&mut self, who: &str, now: u64) -> Result<(), CommandError> {
        let step = self.step + 1;
        match self.steps.get(self.step) {
            // Promoting a weight that is not in force would skip it instead of shortening it.
            Some(Step::Weight { percent, .. }) if self.weight_in_force != *percent => {
                Err(CommandError::NothingToPromote { step })
            }
            Some(
                Step::Weight { .. } | Step::Shadow { .. } | Step::Pause | Step::KeepWarm { .. } | Step::Watch { .. },
            ) => {
                self.next_step();
                self.set_status(Status::InProgress, format!("step {step} was promoted by {who}"), now);
                Ok(())
            }
            _ => Err(CommandError::NothingToPromote { step }),
        }
    }
}

impl Ledger {
    /// Carries out a command other than an undo, which [`undo`](Self::undo) does. A retry forgets refusals, and the
    /// declaration is rolled out again at the next planning.
    ///
    /// # Errors
    /// The command is not possible now.
    pub fn command(&mut self, command: RolloutCommand, who: &str, now: u64) -> Result<(), CommandError> {
        // A retry also replaces a rollout in progress if the declaration was refused, but never interrupts an undo.
        if command == RolloutCommand::Retry
            && (self.open().is_none() || !(self.is_undoing() || self.refusals.is_empty()))
        {
            return self.retry();
        }
        match self.open_mut() {
            Some(rollout) => {
                rollout.command(command, who, now)?;
                self.settle(now);
                Ok(())
            }
            None => Err(match self.rollouts.last() {
                Some(rollout) => CommandError::Ended { status: rollout.status.as_str() },
                None => CommandError::NoRollout,
            }),
        }
    }

    /// Forgets refusals.
    fn retry(&mut self) -> Result<(), CommandError> {
        match self.rollouts.last().map(|rollout| rollout.status) {
            // A refused declaration may come back long after other rollouts.
            _ if !self.refusals.is_empty() => {
                self.refusals.clear();
                Ok(())
            }
            None => Err(CommandError::NoRollout),
            // The declaration is in force and none was refused, so there is nothing to repeat.
            Some(Status::Completed) => Err(CommandError::Ended { status: Status::Completed.as_str() }),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::ledger::samples::{ran, side};
    use crate::rollout::{InstanceCounts, Strategy};

    #[test]
    fn commands_need_a_rollout() {
        for command in [
            RolloutCommand::Pause,
            RolloutCommand::Resume,
            RolloutCommand::Promote,
            RolloutCommand::Abort,
            RolloutCommand::Retry,
        ] {
            let answer = ran(&[1]).command(command, "anna", 5);
            assert_eq!(answer, Err(CommandError::NoRollout), "{command:?}");
        }
    }

    #[test]
    fn an_advised_retry_works() {
        let mut ledger = ran(&[1, 2]);
        // Also without a rollout on record.
        ledger.refuse(side(3), None, "it traps".to_owned(), 1);
        let told = |ledger: &Ledger| ledger.refusal_text(&ledger.refusals[0]);
        assert!(told(&ledger).ends_with("is not tried again until it changes or `caxton rollout retry`"));
        ledger.command(RolloutCommand::Retry, "anna", 5).unwrap();
        assert!(ledger.refusals.is_empty());
        // An undo continues, and the advice says so.
        let settings = RolloutSettings::new(Strategy::Undo);
        ledger.undo(UndoOptions::default(), "anna", &settings, InstanceCounts::default(), false, &[], 5).unwrap();
        assert!(told(&ledger).ends_with("`caxton rollout retry`, which has to wait for the end of the undo"));
        assert!(ledger.command(RolloutCommand::Retry, "anna", 5).is_err());
    }
}
