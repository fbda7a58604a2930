//! The measurements that a candidate is judged by.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The measurements of one revision in one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Window {
    /// Messages and calls that ended, with success or failure. Shed and refused ones do not count.
    pub messages: u64,
    /// Failures that are the guest's fault: traps, limits, results marked as faults.
    pub faults: u64,
    /// The part of `faults` that were calls which it could not take because its instances had failed, and which stable
    /// answered.
    #[serde(default)]
    pub untaken: u64,
    /// Messages without failure, whose times `p95` is made of.
    #[serde(default)]
    pub timed: u64,
    /// The 95th percentile of the time of a message; `None` without messages.
    pub p95: Option<P95>,
    /// The most memory of one of its instances, in bytes: linear memories and tables.
    pub memory_bytes: u64,
    /// Set if it has all the traffic and its breaker is open: no more messages come to judge it by.
    #[serde(default)]
    pub breaker_open: bool,
    /// Probes that passed.
    pub probes_passed: u64,
    /// Probes that failed.
    pub probes_failed: u64,
}

/// The 95th percentile of the time of a message, with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct P95 {
    /// The lower bound.
    pub low: Duration,
    /// The measured value.
    pub at: Duration,
    /// The upper bound.
    pub high: Duration,
}

impl P95 {
    /// Returns the ranks of [low](Self::low), [at](Self::at) and [high](Self::high) among `messages` times in ascending
    /// order, from 0 to 1. The number of times below the true p95 is binomial; the bounds are two of its standard
    /// deviations away.
    pub fn ranks(messages: u64) -> [f64; 3] {
        // Without messages nothing is judged by the bounds; they only have to be defined.
        let deviation = (0.95 * 0.05 / messages.max(1) as f64).sqrt();
        [0.95 - 2.0 * deviation, 0.95, 0.95 + 2.0 * deviation].map(|rank| rank.clamp(0.0, 1.0))
    }

    /// Creates a value that is known exactly.
    pub fn exactly(at: Duration) -> Self {
        Self { low: at, at, high: at }
    }
}

/// The comparison of the answers to copies of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ComparisonCounts {
    /// Copies that were compared.
    pub copies: u64,
    /// Copies that were answered alike.
    pub alike: u64,
    /// Copies that could not be compared: there was no time for them, or the state that they need is gone.
    pub set_aside: u64,
}

impl ComparisonCounts {
    /// Adds the comparison of a later run of the host.
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            copies: self.copies + later.copies,
            alike: self.alike + later.alike,
            set_aside: self.set_aside + later.set_aside,
        }
    }
}
