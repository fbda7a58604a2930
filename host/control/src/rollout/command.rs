//! What people may say to a rollout.

use serde::{Deserialize, Serialize};

use super::{End, Rollout, Settings, Status, Step};

/// What somebody wants of a rollout that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Stay where it is, and be judged there.
    Pause,
    /// Go on after a pause.
    Resume,
    /// Go on to the next step, whether this one's time is over and its messages are enough or not.
    Promote,
    /// End, with traffic back on stable.
    Abort,
    /// Begin again what ended badly; of the agent, see [`Ledger::command`](super::Ledger::command).
    Retry,
    /// Go back to what ran before, also when all is done; of the agent, see [`Ledger::command`](super::Ledger::command).
    Undo,
}

/// The messages of an undo's rehearsal where `rollback.rehearse` is not declared: enough to show whether a revision can read
/// the state, and few enough for the time that an undo has.
const UNDO_REHEARSES: u32 = 100;

/// The details of an undo. Other commands have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undo {
    /// The number of the revision to go back to; the one that ran last before, if none.
    pub to: Option<u64>,
    /// Set if that revision has to handle the last messages on a copy before it gets any traffic.
    pub rehearse: bool,
    /// Whether the state is to be as it was when another format followed it, without what was written since.
    pub restore_state: bool,
}

impl Default for Undo {
    /// To the revision that ran last before, once it is rehearsed.
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

/// Why a command is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It ended.
    #[error("it is {status} and does not move any more")]
    Ended {
        /// As what.
        status: &'static str,
    },
    /// It goes back already.
    #[error("it goes back already")]
    GoesBack,
    /// It has not begun.
    #[error("it waits for its turn; only `abort` is possible until then")]
    NotBegun,
    /// It is not paused.
    #[error("it is not paused")]
    NotPaused,
    /// It waits for somebody to say that all is well.
    #[error("step {step} waits for `promote`")]
    NeedsPromote {
        /// Which, from 1.
        step: usize,
    },
    /// It is paused.
    #[error("it is paused already")]
    IsPaused,
    /// It waits for the host and not for a person.
    #[error("there is nothing to promote at step {step}: it waits for the host")]
    NothingToPromote {
        /// Which, from 1.
        step: usize,
    },
    /// It is still under way.
    #[error("it is {status}; only what ended is tried again")]
    UnderWay {
        /// How far it is.
        status: &'static str,
    },
    /// There is none.
    #[error("there is no rollout")]
    NoRollout,
    /// There is no revision to go back to.
    #[error("there is no earlier revision to go back to; the last {keep} are kept")]
    NothingKept {
        /// How many.
        keep: u32,
    },
    /// The revision would meet data that it cannot read.
    #[error("revision {number} cannot read version {version} of the state's format, which the state may hold: {way}")]
    Unreadable {
        /// Its number.
        number: u64,
        /// The version.
        version: u32,
        /// The way out.
        way: String,
    },
    /// No earlier state takes the place of the present one.
    #[error("no state that revision {number} can read was kept: there is nothing to restore")]
    NothingToRestore {
        /// The number of the revision.
        number: u64,
    },
    /// What has become of the state is in the way.
    #[error("{why}")]
    Bars {
        /// The reason, with the way out.
        why: String,
    },
    /// This one is not kept.
    #[error("revision {number} is not kept; there are {kept:?}")]
    NotKept {
        /// Which.
        number: u64,
        /// Those that are.
        kept: Vec<u64>,
    },
}

impl Rollout {
    /// Follows a command of `who`.
    ///
    /// # Errors
    /// It cannot be followed now.
    pub fn command(&mut self, command: Command, who: &str, now: u64) -> Result<(), Refused> {
        self.tick(now);
        let status = self.status.as_str();
        if self.status.is_terminal() {
            return Err(Refused::Ended { status });
        }
        if let Status::RollingBack { .. } = self.status {
            return Err(if command == Command::Retry { Refused::UnderWay { status } } else { Refused::GoesBack });
        }
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
            // It has to have the traffic before it can have had enough of it.
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
