//! Rollouts, as the management API and the commands tell of them.

use serde::{Deserialize, Serialize};

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RolloutStatus {
    /// Whose.
    pub(crate) agent: String,
    /// Counts the agent's rollouts from 1.
    pub(crate) rollout: u64,
    /// The revision that ran before, such as `echo@1`.
    pub(crate) from: String,
    /// The new one.
    pub(crate) to: String,
    /// How it takes over, such as `canary`.
    pub(crate) strategy: String,
    /// How far it is, such as `in-progress` or `rolled-back`.
    pub(crate) status: String,
    /// Whether nothing follows.
    pub(crate) ended: bool,
    /// Why it is there, for a person.
    pub(crate) why: String,
    /// The step it is at, from 1.
    pub(crate) step: usize,
    /// How many there are.
    pub(crate) steps: usize,
    /// Whether all traffic is with the new one, and only the end of the old one, or more to judge by, is waited for.
    pub(crate) moved: bool,
    /// How much of a hundred messages the new one is to have.
    pub(crate) weight: u8,
    /// Who began it.
    pub(crate) who: String,
    /// When, in milliseconds since 1970.
    pub(crate) began_at: u64,
    /// How long it took, or takes already, in milliseconds.
    pub(crate) took_ms: u64,
    /// Messages and calls that the revision before answered meanwhile.
    pub(crate) stable_messages: u64,
    /// Those that the new one answered.
    pub(crate) candidate_messages: u64,
    /// Instances of the new one that stood.
    pub(crate) started_instances: u64,
    /// Instances of the new one that did not come to stand, or ended in a trap or beyond a limit.
    pub(crate) failed_instances: u64,
    /// The most memory that one of its instances had, in bytes.
    pub(crate) peak_memory_bytes: u64,
    /// Probes of its `health` that passed.
    pub(crate) probes_passed: u64,
    /// Probes of its `health` that did not.
    pub(crate) probes_failed: u64,
    /// What is to be reached, in order, each in a few words.
    pub(crate) plan: Vec<String>,
    /// What it is judged by now: the one before, and the new one. None when it is over.
    pub(crate) measured: Option<[SideStatus; 2]>,
    /// The longest time for which the mailbox was held for a handoff, in milliseconds.
    pub(crate) longest_pause_ms: u64,
}

/// What was measured of a revision since the present weight began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct SideStatus {
    /// Messages and calls that it ended.
    pub(crate) messages: u64,
    /// How many of them failed by its fault.
    pub(crate) failed: u64,
    /// 95 of 100 took no longer, in microseconds; none without messages.
    pub(crate) p95_us: Option<u64>,
    /// The most memory that one of its instances ever had, in bytes.
    pub(crate) memory_bytes: u64,
}

/// What somebody wants of an agent's rollout.
#[derive(Debug, Clone)]
pub(crate) struct RolloutWish {
    /// Whose.
    pub(crate) agent: String,
    /// What.
    pub(crate) command: caxton_control::rollout::Command,
    /// For `undo`, the number of the revision to go back to.
    pub(crate) to: Option<u64>,
    /// Who.
    pub(crate) who: String,
}
