//! The counters that every message changes: a few nanoseconds each, and no cache line that two cores write to.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::buckets::DurationBuckets;

/// The counters of one thread for one agent.
#[derive(Debug, Default)]
pub(super) struct ThreadTally {
    pub(super) accepted: AtomicU64,
    pub(super) handled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) retries: AtomicU64,
    /// Attempts that ended and are followed by another, those that were broken off included.
    pub(super) unfinished: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) runs: AtomicU64,
    pub(super) waited: DurationBuckets,
    pub(super) took: DurationBuckets,
    pub(super) cpu: DurationBuckets,
}

/// Counts one.
pub(super) fn count(cell: &AtomicU64) {
    // Relaxed: sums are read seconds later, and nothing is published by them.
    cell.fetch_add(1, Ordering::Relaxed);
}
