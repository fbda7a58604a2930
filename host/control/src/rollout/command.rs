//! The commands of operators to a rollout.

use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use super::record::Rollout;
use super::settings::Settings;
use super::status::{End, Status};
use super::step::Step;

/// A command to a rollout in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
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
pub struct Undo {
    /// The number of the revision to go back to; the one that ran last before, if none.
    pub to: Option<u64>,
    /// Set if that revision has to handle the last messages on a copy before it gets any traffic.
    pub rehearse: bool,
    /// Set to put back the state as it was before the format changed, without later writes.
    pub restore_state: bool,
}

impl Default for Undo {
    /// Returns to the revision that ran last before, once it is rehearsed.
    fn default() -> Self {
        Self { to: None, rehearse: true, restore_state: false }
    }
}

impl Undo {
    /// Returns the number of messages of its rehearsal.
    pub(super) fn messages(self, settings: &Settings) -> u32 {
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
pub enum Refused {
    /// The rollout has ended.
    #[error("it is {status} and does not move any more")]
    Ended {
        /// The final status.
        status: &'static str,
    },
    /// The rollout is on its way back already.
    #[error("it goes back already")]
    GoesBack,
    /// The rollout has not begun.
    #[error("it waits for its turn; only `abort` is possible until then")]
    NotBegun,
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
    IsPaused,
    /// The rollout waits for the host and not for a person.
    #[error("there is nothing to promote at step {step}: it waits for the host")]
    NothingToPromote {
        /// The step, counted from 1.
        step: usize,
    },
    /// The rollout is still in progress.
    #[error("it is {status}; only what ended is tried again")]
    UnderWay {
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
    Bars {
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
    pub fn command(&mut self, command: Command, who: &str, now: u64) -> Result<(), Refused> {
        // The time before the command belongs to the status before it.
        self.tick(now);
        let status = self.status.as_str();
        if self.status.is_terminal() {
            return Err(Refused::Ended { status });
        }
        if let Status::RollingBack { .. } = self.status {
            return Err(if command == Command::Retry { Refused::UnderWay { status } } else { Refused::GoesBack });
        }
        // A declared pause is for a decision, and `resume` would be too easy a slip for one.
        let waits_for_promote = self.steps.get(self.step) == Some(&Step::Pause);
        match command {
            Command::Pause if self.status == Status::Pending => return Err(Refused::NotBegun),
            Command::Pause if self.status == Status::Paused => return Err(Refused::IsPaused),
            Command::Pause => self.become_status(Status::Paused, format!("paused by {who}"), now),
            Command::Resume if self.status != Status::Paused => return Err(Refused::NotPaused),
            Command::Resume if waits_for_promote => return Err(Refused::NeedsPromote { step: self.step + 1 }),
            Command::Resume => self.become_status(self.present(), format!("resumed by {who}"), now),
            Command::Promote => return self.promote(who, now),
            Command::Abort | Command::Undo if self.bars_the_way_back().is_some() => {
                return Err(Refused::Bars { why: self.bars_the_way_back().unwrap_or_default() });
            }
            Command::Abort => self.fall_back(End::Cancelled, format!("aborted by {who}"), now),
            Command::Undo => self.fall_back(End::RolledBack, format!("undone by {who}"), now),
            Command::Retry => return Err(Refused::UnderWay { status }),
        }
        Ok(())
    }

    fn promote(&mut self, who: &str, now: u64) -> Result<(), Refused> {
        let step = self.step + 1;
        match self.steps.get(self.step) {
            // Promoting a weight that is not in force would skip it instead of shortening it.
            Some(Step::Weight { percent, .. }) if self.reached != *percent => Err(Refused::NothingToPromote { step }),
            Some(
                Step::Weight { .. } | Step::Shadow { .. } | Step::Pause | Step::KeepWarm { .. } | Step::Watch { .. },
            ) => {
                self.go_on();
                self.become_status(Status::InProgress, format!("step {step} was promoted by {who}"), now);
                Ok(())
            }
            _ => Err(Refused::NothingToPromote { step }),
        }
    }
}

impl Ledger {
    /// Carries out a command other than an undo, which [`undo`](Self::undo) does. A retry forgets refusals, and the
    /// declaration is rolled out again at the next planning.
    ///
    /// # Errors
    /// The command is not possible now.
    pub fn command(&mut self, command: Command, who: &str, now: u64) -> Result<(), Refused> {
        // A retry also replaces a rollout in progress if the declaration was refused, but never interrupts an undo.
        if command == Command::Retry && (self.open().is_none() || !(self.undoes() || self.declined.is_empty())) {
            return self.retry();
        }
        match self.open_mut() {
            Some(rollout) => {
                rollout.command(command, who, now)?;
                self.settle(now);
                Ok(())
            }
            None => Err(match self.rollouts.last() {
                Some(rollout) => Refused::Ended { status: rollout.status.as_str() },
                None => Refused::NoRollout,
            }),
        }
    }

    /// Forgets refusals.
    fn retry(&mut self) -> Result<(), Refused> {
        match self.rollouts.last().map(|rollout| rollout.status) {
            // A refused declaration may come back long after other rollouts.
            _ if !self.declined.is_empty() => {
                self.declined.clear();
                Ok(())
            }
            None => Err(Refused::NoRollout),
            Some(Status::Completed) => Err(Refused::Ended { status: Status::Completed.as_str() }),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::ledger::samples::{ran, side};
    use crate::rollout::{Instances, Strategy};

    #[test]
    fn commands_need_a_rollout() {
        for command in [Command::Pause, Command::Resume, Command::Promote, Command::Abort, Command::Retry] {
            let answer = ran(&[1]).command(command, "anna", 5);
            assert_eq!(answer, Err(Refused::NoRollout), "{command:?}");
        }
    }

    #[test]
    fn an_advised_retry_works() {
        let mut ledger = ran(&[1, 2]);
        // Also without a rollout on record.
        ledger.decline(side(3), None, "it traps".to_owned(), 1);
        let told = |ledger: &Ledger| ledger.told(&ledger.declined[0]);
        assert!(told(&ledger).ends_with("is not tried again until it changes or `caxton rollout retry`"));
        ledger.command(Command::Retry, "anna", 5).unwrap();
        assert!(ledger.declined.is_empty());
        // An undo continues, and the advice says so.
        let settings = Settings::new(Strategy::Undo);
        ledger.undo(Undo::default(), "anna", &settings, Instances::default(), false, &[], 5).unwrap();
        assert!(told(&ledger).ends_with("`caxton rollout retry`, which has to wait for the end of the undo"));
        assert!(ledger.command(Command::Retry, "anna", 5).is_err());
    }
}
