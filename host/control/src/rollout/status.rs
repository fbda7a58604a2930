//! The status and the measurements of a rollout (SPEC §2).

use serde::{Deserialize, Serialize};

use super::window::ComparisonCounts;

/// The status of a rollout (SPEC §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
pub enum Status {
    /// Waits for its turn.
    Pending,
    /// The candidate is validated and compiled.
    Preparing,
    /// The candidate's instances are started, probed and rehearsed.
    Starting,
    /// The candidate receives copies or messages.
    InProgress,
    /// Waits for an operator.
    Paused,
    /// Moves the traffic back to stable.
    RollingBack {
        /// The reason of going back, which decides the final status.
        end: RollbackReason,
    },
    /// The candidate runs. Terminal.
    Completed,
    /// The candidate failed before it received messages, or there was nothing to go back to. Terminal.
    Failed,
    /// An operator ended it. Terminal.
    Cancelled,
    /// A newer change ended it. Terminal. Shown as cancelled; its content may be tried again.
    Superseded,
    /// The candidate was worse, and stable runs again. Terminal.
    RolledBack,
}

/// The reason of going back, by the final status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RollbackReason {
    /// Becomes [`Status::Failed`].
    Failed,
    /// Becomes [`Status::Cancelled`].
    Cancelled,
    /// Becomes [`Status::Superseded`].
    Superseded,
    /// Becomes [`Status::RolledBack`].
    RolledBack,
}

impl Status {
    /// Returns `true` if no status can follow.
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

    /// Returns the status as text, such as `in-progress`.
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

impl From<RollbackReason> for Status {
    fn from(end: RollbackReason) -> Self {
        match end {
            RollbackReason::Failed => Self::Failed,
            RollbackReason::Cancelled => Self::Cancelled,
            RollbackReason::Superseded => Self::Superseded,
            RollbackReason::RolledBack => Self::RolledBack,
        }
    }
}

/// The measurements of a rollout by the host (SPEC §2). Nothing is estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RolloutStats {
    /// Instances of the candidate that started.
    pub started: u64,
    /// Instances of the candidate that did not start, or ended by a trap or a limit.
    pub failed: u64,
    /// The most memory of one of its instances, in bytes: linear memories and tables.
    pub peak_memory_bytes: u64,
    /// The longest time for which messages waited and the agent handled none, in milliseconds.
    pub longest_pause_ms: u64,
    /// Messages and calls answered by stable.
    pub stable_messages: u64,
    /// Messages and calls answered by the candidate.
    pub candidate_messages: u64,
    /// Probes of the candidate that passed.
    pub probes_passed: u64,
    /// Probes of the candidate that failed.
    pub probes_failed: u64,
    /// The comparison of answers to copies.
    pub compared: ComparisonCounts,
    /// The comparison of answers in its rehearsal.
    pub rehearsed: ComparisonCounts,
    /// Messages that were accepted during the rollout and are gone after its end: neither handled, dead, queued nor in
    /// flight. `None` until they are counted.
    pub lost: Option<u64>,
}

impl RolloutStats {
    /// Adds the measurements of a later run of the host.
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            started: self.started + later.started,
            failed: self.failed + later.failed,
            // A peak is no sum, and the pause below is none either.
            peak_memory_bytes: self.peak_memory_bytes.max(later.peak_memory_bytes),
            longest_pause_ms: self.longest_pause_ms.max(later.longest_pause_ms),
            stable_messages: self.stable_messages + later.stable_messages,
            candidate_messages: self.candidate_messages + later.candidate_messages,
            probes_passed: self.probes_passed + later.probes_passed,
            probes_failed: self.probes_failed + later.probes_failed,
            compared: self.compared.and(later.compared),
            rehearsed: self.rehearsed.and(later.rehearsed),
            // Counted once after the end, so there is nothing to add up.
            lost: later.lost.or(self.lost),
        }
    }
}
