//! What an instance may use: memory as a sum, time on a core as a budget.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

/// An entry of a table takes this many bytes: a reference.
const TABLE_ENTRY_BYTES: usize = 8;

/// Bounds the sum over all linear memories and tables of one instance; wasmtime's own limits bound each one
/// alone.
#[derive(Debug)]
pub(super) struct MemoryBound {
    limit: usize,
    used: usize,
    /// The most that an instance of the same revision ever used.
    peak: Arc<AtomicU64>,
    /// Whether the guest was refused more, so that a trap after it can be explained.
    pub(super) refused: bool,
}

impl MemoryBound {
    pub(super) fn new(limit_bytes: u64, peak: Arc<AtomicU64>) -> Self {
        Self { limit: usize::try_from(limit_bytes).unwrap_or(usize::MAX), used: 0, peak, refused: false }
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    fn grow(&mut self, by: usize) -> bool {
        match self.used.checked_add(by) {
            Some(sum) if sum <= self.limit => {
                self.used = sum;
                self.peak.fetch_max(sum as u64, Ordering::Relaxed);
                true
            }
            _ => {
                self.refused = true;
                false
            }
        }
    }
}

impl ResourceLimiter for MemoryBound {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current).saturating_mul(TABLE_ENTRY_BYTES)))
    }
}

/// Counts the time that one call spends on a core: the sum of its polls.
///
/// It is shared between the future that is polled and the epoch callback inside it, which both run on the
/// thread of the poll; the atomics only make that visible to the compiler.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Instant,
    used_ns: AtomicU64,
    /// When the present poll began, in nanoseconds after `origin`.
    poll_began_ns: AtomicU64,
    /// When the last poll ended, in nanoseconds after `origin`.
    poll_ended_ns: AtomicU64,
    budget_ns: AtomicU64,
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            used_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            poll_ended_ns: AtomicU64::new(0),
            budget_ns: AtomicU64::new(u64::MAX),
        })
    }

    /// Begins to count for another call.
    pub(super) fn begin(&self, budget: Duration) {
        self.used_ns.store(0, Ordering::Relaxed);
        self.budget_ns.store(u64::try_from(budget.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When the last poll began.
    pub(super) fn poll_began(&self) -> Instant {
        self.origin + Duration::from_nanos(self.poll_began_ns.load(Ordering::Relaxed))
    }

    /// When the last poll ended.
    pub(super) fn poll_ended(&self) -> Instant {
        self.origin + Duration::from_nanos(self.poll_ended_ns.load(Ordering::Relaxed))
    }

    /// Time on a core so far, without the present poll.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed))
    }

    /// Whether the budget is used up, the present poll included.
    pub(super) fn is_over(&self) -> bool {
        let poll = self.now().saturating_sub(self.poll_began_ns.load(Ordering::Relaxed));
        self.used_ns.load(Ordering::Relaxed).saturating_add(poll) > self.budget_ns.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A future whose polls are counted by a [`Meter`].
pub(super) struct Metered<'a, F> {
    pub(super) meter: &'a Meter,
    pub(super) future: F,
}

impl<F: Future + Unpin> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let began = self.meter.now();
        self.meter.poll_began_ns.store(began, Ordering::Relaxed);
        let result = Pin::new(&mut self.future).poll(cx);
        let ended = self.meter.now();
        self.meter.poll_ended_ns.store(ended, Ordering::Relaxed);
        let used = self.meter.used_ns.load(Ordering::Relaxed);
        self.meter.used_ns.store(used.saturating_add(ended.saturating_sub(began)), Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_as_a_sum() {
        let peak = Arc::new(AtomicU64::new(0));
        let mut bound = MemoryBound::new(1_000, Arc::clone(&peak));
        assert!(bound.memory_growing(0, 600, None).unwrap());
        assert!(!bound.memory_growing(0, 600, None).unwrap(), "a second memory counts too");
        assert!(bound.refused);
        assert!(bound.table_growing(0, 50, None).unwrap());
        assert_eq!(bound.used(), 1_000);
        assert!(!bound.table_growing(50, 51, None).unwrap());
        let mut another = MemoryBound::new(1_000, Arc::clone(&peak));
        assert!(another.memory_growing(0, 999, None).unwrap());
        assert_eq!(peak.load(Ordering::Relaxed), 1_000, "the most of one, not the last and not the sum");
    }
}
