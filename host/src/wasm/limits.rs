//! The limits of an instance: the sum of its memory, within its own bound and that of the host, and a budget of CPU time
//! for each call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::{ResourceLimiterAsync, UpdateDeadline};

use crate::clock;
use crate::memory_budget::{ExpectedMemory, GuestMemory, MemoryShortage};
use crate::wasm::guest_threads;

/// The size of a table entry in bytes: a reference.
pub(super) const TABLE_ENTRY_BYTES: usize = 8;

/// The bytes of an instance beside its memories and tables: its store, the stack of its calls, its handles.
pub(super) const INSTANCE_BYTES: u64 = 64 << 10;
/// The same of an agent that speaks HTTP: the head of a request, and the pieces of a response on their way.
pub(super) const HTTP_BYTES: u64 = 256 << 10;
/// The same of a component of WASI 0.3, in addition: the tasks, streams and futures behind as many handles as it may hold.
pub(super) const SERVICE_BYTES: u64 = 512 << 10;

/// The memory that a call may take beside what is expected, and that is not planned.
const SLACK: u64 = 256 << 10;

/// Bounds the sum of all linear memories and tables of one instance. wasmtime's own limits bound each one separately.
///
/// Growth within the bound may still have to wait for the host's budget of memory. If that has no room in time, the call
/// ends with [`MemoryShortage`], which is no fault of the guest: it is not refused memory that its limit grants.
#[derive(Debug)]
pub(super) struct MemoryBound {
    limit: usize,
    used: usize,
    /// The share of the host's budget: [`INSTANCE_BYTES`], what is used, and what is expected of the call.
    held: GuestMemory,
    /// The longest wait for the host's budget.
    patience: Duration,
    /// Set while growth waits for the host's budget, and left set by a call whose time was over then.
    waits: bool,
    /// The largest use by an instance of the same revision.
    peak: Arc<AtomicU64>,
    /// The use that is expected of instances of the same pool.
    expected: ExpectedMemory,
    /// Set once the guest was refused memory, to explain a trap that follows.
    pub(super) refused: bool,
}

impl MemoryBound {
    pub(super) fn new(limit_bytes: u64, held: GuestMemory, peak: Arc<AtomicU64>, expected: ExpectedMemory) -> Self {
        let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        Self { limit, used: 0, held, patience: Duration::ZERO, waits: false, peak, expected, refused: false }
    }

    /// Returns the bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Bounds the waits for the host's budget in a call that has so much time.
    pub(super) fn begin(&mut self, time: Duration) {
        // Half of it: the caller should learn why there is no answer before it stops waiting.
        self.patience = time / 2;
        self.waits = false;
        self.held.begin_call();
    }

    /// Ends a call: what it was expected to take and has not is free for others.
    pub(super) fn end(&mut self) {
        self.rest();
        self.expected.note_call(self.used as u64);
    }

    /// Gives back what is kept for a call that does not follow at once.
    pub(super) fn rest(&mut self) {
        self.held.end_call();
    }

    /// Keeps what the next call is expected to take beside what is used. Does not wait; returns `false` if there is no
    /// room.
    pub(super) fn try_expect(&mut self) -> bool {
        let more = self.expected.bytes().saturating_sub(self.used as u64);
        // A few pages more or less are not worth the count in the host's books.
        more < SLACK || self.held.try_expect(more)
    }

    /// Returns `true` if a call whose time is over was waiting for the host's budget.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    async fn grow(&mut self, by: usize) -> wasmtime::Result<bool> {
        let Some(sum) = self.used.checked_add(by).filter(|sum| *sum <= self.limit) else {
            // Never reset: a guest that survives the refusal may fail for it much later.
            self.refused = true;
            return Ok(false);
        };
        self.reserve(by as u64).await?;
        // Never lowered: WebAssembly memories cannot shrink.
        self.used = sum;
        // Shared with other instances of the revision.
        self.peak.fetch_max(sum as u64, Ordering::Relaxed);
        self.expected.note_growth(sum as u64);
        Ok(true)
    }

    async fn reserve(&mut self, by: u64) -> Result<(), MemoryShortage> {
        self.waits = true;
        let left = (self.limit - self.used) as u64;
        let likely = self.expected.bytes().saturating_sub(self.used as u64);
        let grown = self.held.grow(by, (left, likely), Instant::now() + self.patience).await;
        self.waits = false;
        if grown.is_err() {
            // The next one begins when there is room for more, and not to end as this one did.
            self.expected.note_end(self.used as u64 + by, self.limit as u64);
        }
        grown
    }
}

// Async, because growth may wait for other guests to end.
#[wasmtime_wasi::async_trait]
impl ResourceLimiterAsync for MemoryBound {
    async fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current)).await
    }

    async fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current).saturating_mul(TABLE_ENTRY_BYTES)).await
    }
}

/// Measures the time that one call spends on a core: the sum of its polls.
///
/// Every poll is ended by the engine's next tick. A call of one poll is so short that its wall-clock time is its CPU
/// time. For a longer one the system is asked: on a busy machine a thread is preempted in the middle of a poll, which
/// the guest must not pay for.
///
/// The meter is shared between the polled future and the epoch callback inside it, which run on the same thread. The
/// atomics only satisfy the compiler.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Instant,
    used_ns: AtomicU64,
    /// The start of the current poll in nanoseconds after `origin`.
    poll_began_ns: AtomicU64,
    /// The end of the last poll in nanoseconds after `origin`.
    poll_ended_ns: AtomicU64,
    /// The start of the current step of a migration in nanoseconds after `origin`.
    step_began_ns: AtomicU64,
    /// The CPU time of the thread at the start of the current poll in nanoseconds; [`UNKNOWN`] in a call's first poll.
    core_began_ns: AtomicU64,
    /// Set if a tick occurred during the call.
    ticked: AtomicBool,
    budget_ns: AtomicU64,
}

/// Marks the first poll of a call, for which no system call is made.
const UNKNOWN: u64 = u64::MAX;
/// The most that a first poll counts if a tick has ended it: it began after the previous tick, and does little between
/// two checks.
const FIRST_POLL_NS: u64 = 2_000_000;

/// The first slice of a guest: one that has used it up computes rather than answers. Moving costs some ten microseconds.
const FIRST_SLICE_NS: u64 = 1_000_000;

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            used_ns: AtomicU64::new(0),
            poll_began_ns: AtomicU64::new(0),
            poll_ended_ns: AtomicU64::new(0),
            step_began_ns: AtomicU64::new(0),
            core_began_ns: AtomicU64::new(UNKNOWN),
            ticked: AtomicBool::new(false),
            budget_ns: AtomicU64::new(u64::MAX),
        })
    }

    /// Resets the meter for another call.
    pub(super) fn begin(&self, budget: Duration) {
        self.used_ns.store(0, Ordering::Relaxed);
        // Most calls are over before the first tick, and cost no system call.
        self.ticked.store(false, Ordering::Relaxed);
        self.budget_ns.store(nanoseconds(budget), Ordering::Relaxed);
    }

    /// Starts a step of a migration: resets the count, even in the middle of a poll.
    pub(super) fn begin_step(&self) {
        self.used_ns.store(0, Ordering::Relaxed);
        self.begin_poll();
        self.step_began_ns.store(self.poll_began_ns.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Returns the start of the current step of a migration.
    pub(super) fn step_began(&self) -> Instant {
        self.origin + Duration::from_nanos(self.step_began_ns.load(Ordering::Relaxed))
    }

    fn begin_poll(&self) {
        self.poll_began_ns.store(self.now(), Ordering::Relaxed);
        let ticked = self.ticked.load(Ordering::Relaxed);
        // The system call costs about 600 ns, more than most calls of a guest, and is made only for long ones.
        let core = if ticked { nanoseconds(clock::core_time()) } else { UNKNOWN };
        self.core_began_ns.store(core, Ordering::Relaxed);
    }

    fn end_poll(&self) {
        let now = self.now();
        self.poll_ended_ns.store(now, Ordering::Relaxed);
        let used = self.used_ns.load(Ordering::Relaxed).saturating_add(self.spent(now));
        self.used_ns.store(used, Ordering::Relaxed);
    }

    /// Returns the CPU time of the current poll.
    fn spent(&self, now: u64) -> u64 {
        let core = self.core_began_ns.load(Ordering::Relaxed);
        if core != UNKNOWN {
            return nanoseconds(clock::core_time()).saturating_sub(core);
        }
        let passed = now.saturating_sub(self.poll_began_ns.load(Ordering::Relaxed));
        if self.ticked.load(Ordering::Relaxed) { passed.min(FIRST_POLL_NS) } else { passed }
    }

    /// Returns the start of the last poll.
    pub(super) fn poll_began(&self) -> Instant {
        self.origin + Duration::from_nanos(self.poll_began_ns.load(Ordering::Relaxed))
    }

    /// Returns the end of the last poll.
    pub(super) fn poll_ended(&self) -> Instant {
        self.origin + Duration::from_nanos(self.poll_ended_ns.load(Ordering::Relaxed))
    }

    /// Returns the CPU time so far, without the current poll.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed))
    }

    /// Returns `true` if the budget is used up, including the current poll. Called at each tick.
    pub(super) fn is_over(&self) -> bool {
        // From now on polls are measured by the thread's clock.
        self.ticked.store(true, Ordering::Relaxed);
        let used = self.used_ns.load(Ordering::Relaxed).saturating_add(self.spent(self.now()));
        used > self.budget_ns.load(Ordering::Relaxed)
    }

    /// Ends the slice: others run until the next tick, so that one guest does not occupy a thread. One that has used up
    /// its first slice moves to the threads for guests.
    pub(super) fn give_way(&self) -> UpdateDeadline {
        // Without the current poll: the first is measured by the clock, and another thread may have had the core in it.
        if self.used_ns.load(Ordering::Relaxed) < FIRST_SLICE_NS || guest_threads::is_here() {
            // At once where nothing else is queued: an instance that is nearly done should free its slot soon.
            return UpdateDeadline::Yield(1);
        }
        guest_threads::ask_to_move();
        // For what cannot move. The runtime's own yield has connections polled before the guest goes on. One that wakes
        // itself keeps the worker's queue full, and connections are polled only after 61 turns then.
        UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
    }

    fn now(&self) -> u64 {
        nanoseconds(self.origin.elapsed())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A future whose polls are measured by a [`Meter`].
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
    use caxton_control::memory::MemoryPriority;

    use crate::memory_budget::MemoryBudget;

    #[tokio::test]
    async fn memory_is_bounded_as_a_sum_of_memories_and_tables() {
        let budget = MemoryBudget::new(1_500);
        let peak = Arc::new(AtomicU64::new(0));
        let later = Instant::now() + Duration::from_secs(60);
        let mut guests = Vec::new();
        for _ in 0..2 {
            guests.push(budget.reserve_guest(0, 0, MemoryPriority::Instances, later).await.unwrap());
        }
        let mut bound = || MemoryBound::new(1_000, guests.pop().unwrap(), Arc::clone(&peak), ExpectedMemory::default());
        let mut first = bound();
        assert!(first.memory_growing(0, 600, None).await.unwrap());
        assert!(!first.memory_growing(0, 600, None).await.unwrap(), "a second memory counts too");
        assert!(first.refused);
        assert!(first.table_growing(0, 50, None).await.unwrap());
        assert_eq!((first.used(), budget.used()), (1_000, 1_000));
        assert!(!first.table_growing(50, 51, None).await.unwrap());
        let mut another = bound();
        assert!(another.memory_growing(0, 499, None).await.unwrap());
        assert_eq!(peak.load(Ordering::Relaxed), 1_000, "the most of one, not the last and not the sum");
        // Within its own bound, and beyond that of the host.
        another.begin(Duration::from_millis(1));
        let error = another.memory_growing(499, 501, None).await.unwrap_err();
        assert!(error.is::<MemoryShortage>() && !another.refused && !another.waits());
        drop(first);
        assert!(another.memory_growing(499, 501, None).await.unwrap());
        drop(another);
        assert_eq!(budget.used(), 0);
    }

    /// Keeps a core busy for this time.
    fn burn(time: Duration) {
        let began = clock::core_time();
        while clock::core_time() - began < time {}
    }

    #[tokio::test]
    async fn calls_are_charged_for_their_own_cpu_time_only() {
        let meter = Meter::new();
        let budget = Duration::from_millis(20);
        meter.begin(budget);
        let mut polls = 0;
        let others = std::future::poll_fn(|cx| {
            polls += 1;
            // Another thread has the core, for longer than the budget each time.
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
