//! What an instance may use: memory as a sum, time on a core as a budget.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::ResourceLimiter;

use crate::clock;

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
/// A poll is ended by the engine's next tick. A call of one poll is so short that the clock tells its time on a core. Of a
/// longer one the system is asked: on a machine with more to do than it has cores a thread waits in the middle of a poll,
/// which is no doing of the guest.
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
    /// What the thread of the present poll had of a core when it began, in nanoseconds; [`UNKNOWN`] in a call's first poll.
    core_began_ns: AtomicU64,
    /// Whether a tick came during the call.
    ticked: AtomicBool,
    budget_ns: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;
/// The most that a first poll counts for if a tick ended it: it began after the tick before, and what it does between two
/// looks at the clock is short.
const FIRST_POLL_NS: u64 = 2_000_000;

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            used_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            poll_ended_ns: AtomicU64::new(0),
            core_began_ns: AtomicU64::new(UNKNOWN),
            ticked: AtomicBool::new(false),
            budget_ns: AtomicU64::new(u64::MAX),
        })
    }

    /// Begins to count for another call.
    pub(super) fn begin(&self, budget: Duration) {
        self.used_ns.store(0, Ordering::Relaxed);
        self.ticked.store(false, Ordering::Relaxed);
        self.budget_ns.store(nanoseconds(budget), Ordering::Relaxed);
    }

    fn begin_poll(&self) {
        self.poll_began_ns.store(self.now(), Ordering::Relaxed);
        let ticked = self.ticked.load(Ordering::Relaxed);
        let core = if ticked { nanoseconds(clock::core_time()) } else { UNKNOWN };
        self.core_began_ns.store(core, Ordering::Relaxed);
    }

    fn end_poll(&self) {
        let now = self.now();
        self.poll_ended_ns.store(now, Ordering::Relaxed);
        let used = self.used_ns.load(Ordering::Relaxed).saturating_add(self.spent(now));
        self.used_ns.store(used, Ordering::Relaxed);
    }

    /// What the present poll had of a core until now.
    fn spent(&self, now: u64) -> u64 {
        let core = self.core_began_ns.load(Ordering::Relaxed);
        if core != UNKNOWN {
            return nanoseconds(clock::core_time()).saturating_sub(core);
        }
        let passed = now.saturating_sub(self.poll_began_ns.load(Ordering::Relaxed));
        if self.ticked.load(Ordering::Relaxed) { passed.min(FIRST_POLL_NS) } else { passed }
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

    /// Whether the budget is used up, the present poll included. Asked at each tick.
    pub(super) fn is_over(&self) -> bool {
        self.ticked.store(true, Ordering::Relaxed);
        let used = self.used_ns.load(Ordering::Relaxed).saturating_add(self.spent(self.now()));
        used > self.budget_ns.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A future whose polls are counted by a [`Meter`].
pub(super) struct Metered<'a, F> {
    pub(super) meter: &'a Meter,
    pub(super) future: F,
}

impl<F: Future + Unpin> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.meter.begin_poll();
        let result = Pin::new(&mut self.future).poll(cx);
        self.meter.end_poll();
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

    /// Keeps a core busy for so long.
    fn burn(time: Duration) {
        let began = clock::core_time();
        while clock::core_time() - began < time {}
    }

    #[tokio::test]
    async fn a_call_is_charged_for_its_own_time_on_a_core_and_not_for_that_of_others() {
        let meter = Meter::new();
        let budget = Duration::from_millis(20);
        meter.begin(budget);
        let mut polls = 0;
        let others = std::future::poll_fn(|cx| {
            polls += 1;
            // Somebody else has the core, for longer than the budget each time.
            std::thread::scope(|scope| drop(scope.spawn(|| burn(budget * 2)).join()));
            assert!(!meter.is_over(), "after {polls} polls");
            cx.waker().wake_by_ref();
            if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
        });
        Metered { meter: &meter, future: Box::pin(others) }.await;
        assert!(meter.used() < budget, "{:?}", meter.used());
        let own = std::future::poll_fn(|_| {
            burn(budget);
            if meter.is_over() { Poll::Ready(()) } else { Poll::Pending }
        });
        Metered { meter: &meter, future: Box::pin(own) }.await;
        assert!(meter.used() > budget, "{:?}", meter.used());
    }
}
