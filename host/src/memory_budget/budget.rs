//! The books of the budget, and the reservations in them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use caxton_control::memory::MemoryPriority;
use caxton_control::memory_queue::{MemoryRequest, planned_ceiling};
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use super::kind::MemoryKind;
use super::waiters::{PRIORITIES, Waiters};
use crate::telemetry::histogram::Sharded;

const KINDS: usize = MemoryKind::ALL.len();

/// Ends one idle instance. Returns `false` if there is none.
type Reclaim = Box<dyn Fn() -> bool + Send + Sync>;

/// The budget of a host. Clones share it.
#[derive(Clone)]
pub(crate) struct MemoryBudget(Arc<Books>);

struct Books {
    limit: AtomicU64,
    /// The share of each priority, so that a request divides nothing.
    ceilings: [AtomicU64; PRIORITIES],
    /// The sum of all kinds. Padded, because all threads write to it.
    used: CachePadded<AtomicU64>,
    /// The bytes of each kind. A thread adds to its own shard, which another may subtract from: only sums mean anything.
    kinds: Sharded<[AtomicU64; KINDS]>,
    waiters: Waiters<Reservation>,
    /// The requests of each priority that were not met.
    refused: [AtomicU64; PRIORITIES],
    /// Set while requests wait or are refused, until the host reports that they are not any more.
    is_short: AtomicBool,
    shortage: Notify,
    reclaim: OnceLock<Reclaim>,
}

impl std::fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryBudget({} of {})", self.used(), self.limit())
    }
}

impl MemoryBudget {
    /// Creates a budget of so many bytes, of which none is in use.
    pub(crate) fn new(limit: u64) -> Self {
        let budget = Self(Arc::new(Books {
            limit: AtomicU64::new(0),
            ceilings: Default::default(),
            used: CachePadded::default(),
            kinds: Sharded::new(Default::default),
            waiters: Waiters::default(),
            refused: Default::default(),
            is_short: AtomicBool::new(false),
            shortage: Notify::new(),
            reclaim: OnceLock::new(),
        }));
        budget.set_limit(limit);
        budget
    }

    /// Changes the bound. What is held stays; a larger bound lets waiters go on.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.0.limit.store(limit, Ordering::Relaxed);
        for priority in MemoryPriority::ALL {
            self.0.ceilings[priority as usize].store(priority.ceiling(limit), Ordering::Relaxed);
        }
        self.serve_waiters();
    }

    /// Sets the function that ends an idle instance, which is done before anything has to wait.
    pub(crate) fn on_shortage(&self, reclaim: impl Fn() -> bool + Send + Sync + 'static) {
        // A host has one engine; another that is set later in a test changes nothing.
        let _ = self.0.reclaim.set(Box::new(reclaim));
    }

    /// Returns the bound in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// Returns the bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Returns the bytes in use of a kind.
    pub(crate) fn used_by(&self, kind: MemoryKind) -> u64 {
        let sum = |sum: u64, shard: &[AtomicU64; KINDS]| sum.wrapping_add(shard[kind as usize].load(Ordering::Relaxed));
        let sum = self.0.kinds.all().fold(0, sum);
        // Shards are read one after the other, so that a sum may miss an addition whose subtraction it has.
        if sum > i64::MAX as u64 { 0 } else { sum }
    }

    /// Returns the requests that wait.
    pub(super) fn waiters(&self) -> &Waiters<Reservation> {
        &self.0.waiters
    }

    /// Returns the number of requests that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.0.waiters.count() as u64
    }

    /// Returns the number of requests of a priority that were not met.
    pub(crate) fn refused(&self, priority: MemoryPriority) -> u64 {
        self.0.refused[priority as usize].load(Ordering::Relaxed)
    }

    /// Returns `true` if requests wait, so that an instance should end rather than become idle.
    pub(crate) fn has_waiters(&self) -> bool {
        self.0.waiters.count() > 0
    }

    /// Returns `true` if there is room for a priority as things are.
    pub(crate) fn is_below(&self, priority: MemoryPriority) -> bool {
        self.used() < self.ceiling(priority)
    }

    /// Holds bytes that are there already, whatever the bound: others have to wait for them.
    pub(crate) fn hold(&self, kind: MemoryKind, bytes: u64) -> Reservation {
        self.add(kind, bytes);
        Reservation::new(self, kind, bytes)
    }

    /// Returns a reservation of nothing yet.
    pub(crate) fn empty(&self, kind: MemoryKind) -> Reservation {
        Reservation::new(self, kind, 0)
    }

    /// Returns `true` during a shortage.
    pub(crate) fn is_short(&self) -> bool {
        self.0.is_short.load(Ordering::SeqCst)
    }

    /// Waits for the next shortage.
    pub(crate) async fn until_short(&self) {
        while !self.is_short() {
            self.0.shortage.notified().await;
        }
    }

    /// Declares the shortage over. The next request that has to wait begins another.
    pub(crate) fn end_shortage(&self) {
        self.0.is_short.store(false, Ordering::SeqCst);
    }

    /// Adds bytes of a kind, whatever the bound.
    pub(super) fn add(&self, kind: MemoryKind, bytes: u64) {
        if bytes > 0 {
            self.0.used.fetch_add(bytes, Ordering::SeqCst);
            self.count(kind, bytes);
        }
    }

    /// Counts bytes, which are in the sum already, under their kind.
    pub(super) fn count(&self, kind: MemoryKind, bytes: u64) {
        // Relaxed: a count publishes no other memory. It wraps, as a shard may have subtracted what another has added.
        self.0.kinds.here()[kind as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Subtracts bytes, and lets waiters go on.
    pub(super) fn subtract(&self, kind: MemoryKind, bytes: u64) {
        if bytes == 0 {
            // Subtracting nothing would still take the cache line from the other threads.
            return;
        }
        self.uncount(kind, bytes);
        self.give_back(bytes);
    }

    /// Takes bytes, which stay in the sum, from those of their kind.
    pub(super) fn uncount(&self, kind: MemoryKind, bytes: u64) {
        self.0.kinds.here()[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        // SeqCst pairs with the queue of waiters: either this sees the waiter, or the waiter sees the room.
        self.0.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.has_waiters() {
            self.serve_waiters();
        }
    }

    pub(super) fn ceiling(&self, priority: MemoryPriority) -> u64 {
        self.0.ceilings[priority as usize].load(Ordering::Relaxed)
    }

    /// Adds bytes to the sum if they fit below a bound.
    pub(super) fn try_add(&self, bytes: u64, ceiling: u64) -> bool {
        // Added before it is compared: two threads cannot both take the last bytes.
        let fits = self.0.used.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes) <= ceiling;
        if !fits {
            self.0.used.fetch_sub(bytes, Ordering::SeqCst);
        }
        fits
    }

    pub(super) fn reclaim(&self) -> bool {
        self.0.reclaim.get().is_some_and(|reclaim| reclaim())
    }

    pub(super) fn note_refusal(&self, priority: MemoryPriority) {
        self.0.refused[priority as usize].fetch_add(1, Ordering::Relaxed);
        self.note_shortage();
    }

    pub(super) fn note_shortage(&self) {
        if !self.0.is_short.swap(true, Ordering::SeqCst) {
            self.0.shortage.notify_one();
        }
    }

    /// Hands free memory to those that wait for it, in the order of `caxton_control::memory_queue`.
    pub(super) fn serve_waiters(&self) {
        while let Some((waiter, kind, bytes)) =
            self.0.waiters.next_that(|request, is_first| self.fits(request, is_first))
        {
            self.count(kind, bytes);
            // A waiter that has left drops the reservation, which serves the next one: after the lock, which is not
            // held here.
            drop(waiter.send(Reservation::new(self, kind, bytes)));
        }
    }

    /// Returns the bytes up to which the memory of guests is planned.
    pub(super) fn planned_ceiling(&self) -> u64 {
        planned_ceiling(self.limit(), MemoryPriority::Instances)
    }

    /// Returns the bytes that guests hold, or are expected to take.
    pub(super) fn used_by_guests(&self) -> u64 {
        self.used_by(MemoryKind::Instances) + self.used_by(MemoryKind::Expected)
    }

    /// Adds the bytes of a request that waited to the sum, if they fit.
    fn fits(&self, request: &MemoryRequest, is_first: bool) -> bool {
        let MemoryRequest { priority, bytes, .. } = *request;
        let ceiling = match priority {
            // While guests wait for each other, connections and calls keep their room.
            MemoryPriority::Instances | MemoryPriority::Work => self.planned_ceiling(),
            MemoryPriority::Copies | MemoryPriority::Connections | MemoryPriority::Calls => self.ceiling(priority),
        };
        self.try_add(bytes, ceiling)
            || (is_first && self.used_by_guests() == 0 && self.try_add(bytes, self.ceiling(priority)))
    }
}

/// Bytes of the budget. Dropping it gives them back.
pub(crate) struct Reservation {
    pub(super) budget: MemoryBudget,
    pub(super) kind: MemoryKind,
    bytes: u64,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of {}", self.bytes, self.kind.as_str())
    }
}

impl Reservation {
    pub(super) fn new(budget: &MemoryBudget, kind: MemoryKind, bytes: u64) -> Self {
        Self { budget: budget.clone(), kind, bytes }
    }

    /// Returns the bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets the number of bytes, whatever the bound: they are there already.
    pub(crate) fn hold(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.add(self.kind, bytes - self.bytes);
        } else {
            self.budget.subtract(self.kind, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Adds bytes that are in the sum and counted already.
    pub(super) fn add_counted(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Moves bytes to another reservation of the same budget, whose kind they are counted under from now on.
    pub(super) fn move_to(&mut self, other: &mut Self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        if self.kind != other.kind && bytes > 0 {
            self.budget.uncount(self.kind, bytes);
            self.budget.count(other.kind, bytes);
        }
        (self.bytes, other.bytes) = (self.bytes - bytes, other.bytes + bytes);
    }

    /// Adds the bytes of another reservation of the same kind.
    pub(super) fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Counts the bytes under another kind from now on.
    #[must_use]
    pub(crate) fn into_kind(mut self, kind: MemoryKind) -> Self {
        let bytes = std::mem::take(&mut self.bytes);
        self.budget.uncount(self.kind, bytes);
        self.budget.count(kind, bytes);
        Self::new(&self.budget, kind, bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.subtract(self.kind, self.bytes);
    }
}
