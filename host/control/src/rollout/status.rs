//! How far a rollout is, and what was measured of it (SPEC §2).

use serde::{Deserialize, Serialize};

use super::analysis::Compared;

/// How far a rollout is (SPEC §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// It waits for its turn.
    Pending,
    /// The candidate is validated and compiled.
    Preparing,
    /// Its instances are started, probed and rehearsed.
    Starting,
    /// Copies or messages reach it.
    InProgress,
    /// Somebody has to let it go on.
    Paused,
    /// Traffic goes back to stable.
    RollingBack {
        /// How it will have ended.
        end: End,
    },
    /// The candidate runs.
    Completed,
    /// The candidate did not come to take messages, or there is nothing to go back to.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// A newer change ended it: told as cancelled, and its bytes may be tried again.
    Superseded,
    /// The candidate was worse, and stable runs again.
    RolledBack,
}

/// How a rollout that goes back ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// As [`Status::Failed`].
    Failed,
    /// As [`Status::Cancelled`].
    Cancelled,
    /// As [`Status::Superseded`].
    Superseded,
    /// As [`Status::RolledBack`].
    RolledBack,
}

impl Status {
    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Cancelled | Self::Superseded | Self::RolledBack => true,
            Self::Pending
            | Self::Preparing
            | Self::Starting
            | Self::InProgress
            | Self::Paused
            | Self::RollingBack { .. } => false,
        }
    }

    /// The status as text, such as `in-progress`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::InProgress => "in-progress",
            Self::Paused => "paused",
            Self::RollingBack { .. } => "rolling-back",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled | Self::Superseded => "cancelled",
            Self::RolledBack => "rolled-back",
        }
    }
}

impl From<End> for Status {
    fn from(end: End) -> Self {
        match end {
            End::Failed => Self::Failed,
            End::Cancelled => Self::Cancelled,
            End::Superseded => Self::Superseded,
            End::RolledBack => Self::RolledBack,
        }
    }
}

/// What was measured of a rollout, by whoever carries it out (SPEC §2). Nothing here is estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Figures {
    /// Instances of the candidate that stood.
    pub started: u64,
    /// Instances of the candidate that did not come to stand, or ended in a trap or beyond a limit.
    pub failed: u64,
    /// The most memory that one of its instances had, in bytes: linear memories and tables.
    pub peak_memory_bytes: u64,
    /// The longest time for which the agent handled nothing although something waited, in milliseconds.
    pub longest_pause_ms: u64,
    /// Messages and calls that stable answered.
    pub stable_messages: u64,
    /// Messages and calls that the candidate answered.
    pub candidate_messages: u64,
    /// Probes of the candidate that passed.
    pub probes_passed: u64,
    /// Probes of the candidate that did not.
    pub probes_failed: u64,
    /// Copies of live messages, and how they were answered.
    pub compared: Compared,
    /// Messages of its rehearsal, and how they were answered.
    pub rehearsed: Compared,
    /// Messages that were accepted while it went on and that nobody had any more after its end: neither handled, nor
    /// given up, nor waiting, nor in hand. None until they were counted.
    pub lost: Option<u64>,
}

impl Figures {
    /// What was measured in two lives of the host.
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            started: self.started + later.started,
            failed: self.failed + later.failed,
            peak_memory_bytes: self.peak_memory_bytes.max(later.peak_memory_bytes),
            longest_pause_ms: self.longest_pause_ms.max(later.longest_pause_ms),
            stable_messages: self.stable_messages + later.stable_messages,
            candidate_messages: self.candidate_messages + later.candidate_messages,
            probes_passed: self.probes_passed + later.probes_passed,
            probes_failed: self.probes_failed + later.probes_failed,
            compared: self.compared.and(later.compared),
            rehearsed: self.rehearsed.and(later.rehearsed),
            lost: later.lost.or(self.lost),
        }
    }
}
