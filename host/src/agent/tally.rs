//! What is counted for every message: a few nanoseconds each, and nothing that one core takes from another.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::buckets::Times;

/// What one thread counted of an agent.
#[derive(Debug, Default)]
pub(super) struct Tally {
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
    pub(super) waited: Times,
    pub(super) took: Times,
    pub(super) cpu: Times,
}

/// Counts one.
pub(super) fn count(cell: &AtomicU64) {
    cell.fetch_add(1, Ordering::Relaxed);
}
