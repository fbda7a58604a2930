//! The primitive steps of all strategies.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{print_duration, serde_duration};

/// A condition to reach before the next step. Stored with the rollout, so that another version of the host continues
/// with the same steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// The candidate is valid and compiled, and a number of its instances has started.
    Prepare {
        /// The number of instances; with 0 one is started as a trial.
        instances: u32,
    },
    /// A number of the candidate's instances has started.
    Start {
        /// The total number, not the additional one.
        instances: u32,
    },
    /// The candidate's probe is healthy.
    Probe,
    /// The candidate restored the live snapshot and handled the last messages on a copy.
    Rehearse {
        /// The number of messages.
        messages: u32,
    },
    /// Copies of live messages were answered alike.
    Shadow {
        /// The longest time.
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
        /// The number of copies that is enough.
        min_messages: u64,
        /// The percentage that has to agree.
        match_percent: f64,
    },
    /// The candidate has a part of the traffic, and had it for a time.
    Weight {
        /// The candidate's percentage; the running revision has the rest.
        percent: u8,
        /// The time.
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
        /// Set if it has to be found healthy as well: with too few messages the step waits.
        #[serde(rename = "judged")]
        needs_healthy: bool,
    },
    /// The running revision has only a number of instances left.
    Shrink {
        /// The number of instances.
        instances: u32,
    },
    /// An operator promoted.
    Pause,
    /// The memory and the traffic are with the candidate: the mailbox is paused until nothing is in flight, the running
    /// revision saves, the candidate restores or starts anew, and is checked.
    Handoff,
    /// The traffic is with the candidate, restored from the memory that it once handed over.
    TakeBack,
    /// The old revision stayed up for a time, without traffic.
    KeepWarm {
        /// The time.
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
    },
    /// The old revision has nothing in flight, or its drain time is over.
    Drain,
    /// A copy of the state is stored, before two revisions of different formats have traffic.
    KeepState,
    /// The state is converted with nothing in flight, and all traffic is with the candidate.
    Convert,
    /// The old revision has ended.
    Stop,
    /// The new revision had enough messages and probes to be judged with all the traffic, or the time for that is over.
    Watch {
        /// The longest time.
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
    },
}

impl Step {
    /// Returns `true` if all traffic is with the candidate after this step.
    pub(super) fn moves_all_traffic(&self) -> bool {
        matches!(self, Self::Weight { percent: 100, .. } | Self::Handoff | Self::TakeBack | Self::Convert)
    }
}

/// The step in a few words, for people.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // With 0 one instance is started all the same, as a trial.
            Self::Prepare { instances } => write!(f, "prepare {}", (*instances).max(1)),
            Self::Start { instances } => write!(f, "start {instances}"),
            Self::Probe => f.write_str("probe"),
            Self::Rehearse { messages } => write!(f, "rehearse {messages}"),
            Self::Shadow { hold, .. } => write!(f, "shadow {}", print_duration(*hold)),
            Self::Weight { percent, hold, .. } if hold.is_zero() => write!(f, "{percent}%"),
            Self::Weight { percent, hold, .. } => write!(f, "{percent}% for {}", print_duration(*hold)),
            Self::Shrink { instances } => write!(f, "shrink to {instances}"),
            Self::Pause => f.write_str("pause"),
            Self::Handoff => f.write_str("hand over"),
            Self::TakeBack => f.write_str("take back"),
            Self::KeepState => f.write_str("keep the state"),
            Self::Convert => f.write_str("convert the state"),
            Self::KeepWarm { hold } => write!(f, "keep warm {}", print_duration(*hold)),
            Self::Drain => f.write_str("drain"),
            Self::Stop => f.write_str("stop the old one"),
            Self::Watch { .. } => f.write_str("watch"),
        }
    }
}
