//! The primitives of which all strategies are made.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{print_duration, serde_duration};

/// One thing to reach before the next. Persisted with the rollout, so that another version of the host goes on with
/// the steps that were begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// The candidate is valid, compiled, and so many of its instances stand.
    Prepare {
        /// With 0 one is started to try it.
        instances: u32,
    },
    /// So many instances of the candidate stand.
    Start {
        /// All of them, not only the further ones.
        instances: u32,
    },
    /// The candidate's probe is healthy.
    Probe,
    /// The candidate restored the live snapshot and handled the last messages on a copy.
    Rehearse {
        /// How many.
        messages: u32,
    },
    /// Copies of live messages were answered alike.
    Shadow {
        /// How long at most.
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
        /// How many copies are enough.
        min_messages: u64,
        /// How many of a hundred have to agree.
        match_percent: f64,
    },
    /// The candidate takes so much of the traffic, and did for so long.
    Weight {
        /// Of a hundred; the running revision has the rest.
        percent: u8,
        /// How long.
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
        /// Whether it has to be found healthy before it goes on: with too few messages it waits.
        judged: bool,
    },
    /// So few instances of the running revision are left.
    Shrink {
        /// How many.
        instances: u32,
    },
    /// Somebody promoted.
    Pause,
    /// Memory and traffic are with the candidate: the mailbox waits until nothing is in flight, the running
    /// revision saves, the candidate restores or begins anew, and is checked.
    Handoff,
    /// Traffic is with the candidate, which has the memory that it had when it handed it over.
    TakeBack,
    /// The old revision stands for so long, without traffic.
    KeepWarm {
        /// How long.
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
    },
    /// Nothing of the old revision is in flight, or its time is over.
    Drain,
    /// The state as it is is kept, before two revisions of different formats have traffic.
    KeepState,
    /// The state is converted with nothing in flight, and all traffic is with the candidate.
    Convert,
    /// The old revision ended.
    Stop,
    /// The new revision handled enough, and was probed often enough, to be judged with all the traffic; or its time
    /// for that is over.
    Watch {
        /// How long at most.
        #[serde(rename = "for", with = "serde_duration")]
        hold: Duration,
    },
}

/// In a few words, for a person.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
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
