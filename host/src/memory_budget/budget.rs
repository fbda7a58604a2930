//! The books of the budget, and the reservations in them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use caxton_control::memory::MemoryPriority;
use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

use super::kind::{MemoryKind, MemoryShortage};
use super::waiters::{PRIORITIES, Waiters};
use crate::telemetry::histogram::Sharded;

/// The time in which something has to be freed while several guests wait for memory to go on.
const STANDSTILL: Duration = Duration::from_millis(500);

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
    /// Grows whenever memory is freed while requests wait.
    freed: AtomicU64,
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
            freed: AtomicU64::new(0),
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

    /// Returns `true` if there is room for a priority, after ending idle instances if that is needed. One load while
    /// there is.
    pub(crate) fn has_room(&self, priority: MemoryPriority) -> bool {
        while !self.is_below(priority) {
            if !self.reclaim() {
                return false;
            }
        }
        true
    }

    /// Waits until there is room for a priority.
    ///
    /// # Errors
    /// There was none by `deadline`.
    pub(crate) async fn admit(&self, priority: MemoryPriority, deadline: Instant) -> Result<(), MemoryShortage> {
        // A request of one byte, which is free again at once, waits in turn with all others.
        if self.has_room(priority) {
            return Ok(());
        }
        self.reserve(MemoryKind::Bodies, 1, priority, deadline).await.map(drop)
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

    /// Reserves bytes. Ends idle instances if that is needed, and does not wait.
    pub(crate) fn try_reserve(&self, kind: MemoryKind, bytes: u64, priority: MemoryPriority) -> Option<Reservation> {
        if self.make_room(bytes, priority) {
            self.count(kind, bytes);
            return Some(Reservation::new(self, kind, bytes));
        }
        self.note_refusal(priority);
        None
    }

    /// Reserves bytes. Ends idle instances if that is needed, and then waits in turn.
    ///
    /// # Errors
    /// There was no room by `deadline`, or there can be none.
    pub(crate) async fn reserve(
        &self,
        kind: MemoryKind,
        bytes: u64,
        priority: MemoryPriority,
        deadline: Instant,
    ) -> Result<Reservation, MemoryShortage> {
        // Others that wait come first, unless this is for work whose end frees memory.
        let is_next = priority == MemoryPriority::Work || !self.has_waiters();
        if is_next && self.make_room(bytes, priority) {
            self.count(kind, bytes);
            return Ok(Reservation::new(self, kind, bytes));
        }
        // No wait helps one that can never fit.
        let waits = bytes <= self.ceiling(priority);
        let waited = if waits { self.wait(kind, bytes, priority, deadline).await } else { None };
        waited.ok_or_else(|| {
            self.note_refusal(priority);
            MemoryShortage
        })
    }

    /// Waits in turn until bytes are free; `None` if they were not by `deadline`.
    async fn wait(
        &self,
        kind: MemoryKind,
        bytes: u64,
        priority: MemoryPriority,
        deadline: Instant,
    ) -> Option<Reservation> {
        self.note_shortage();
        let deadline = tokio::time::Instant::from_std(deadline);
        // Before the receiver, and so dropped after it, however the wait ends.
        let _departure = Departure(self);
        let (ticket, mut granted) = self.0.waiters.queue(kind, bytes, priority);
        // Memory that was freed before this request was in the queue has woken nobody.
        self.serve_waiters();
        let mut freed = self.0.freed.load(Ordering::Relaxed);
        loop {
            let look = (tokio::time::Instant::now() + STANDSTILL).min(deadline);
            if let Ok(granted) = tokio::time::timeout_at(look, &mut granted).await {
                return granted.ok();
            }
            let now = self.0.freed.load(Ordering::Relaxed);
            let stands_still = std::mem::replace(&mut freed, now) == now;
            // Guests that all wait for each other's memory would wait until their time is over. The one that came last
            // ends, so that the others go on.
            if look >= deadline || (stands_still && self.0.waiters.is_last_of_several(ticket, priority)) {
                // Granted since, or gone with the receiver.
                return granted.try_recv().ok();
            }
        }
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
    fn add(&self, kind: MemoryKind, bytes: u64) {
        if bytes > 0 {
            self.0.used.fetch_add(bytes, Ordering::SeqCst);
            self.count(kind, bytes);
        }
    }

    /// Counts bytes, which are in the sum already, under their kind.
    fn count(&self, kind: MemoryKind, bytes: u64) {
        // Relaxed: a count publishes no other memory. It wraps, as a shard may have subtracted what another has added.
        self.0.kinds.here()[kind as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Subtracts bytes, and lets waiters go on.
    fn subtract(&self, kind: MemoryKind, bytes: u64) {
        if bytes == 0 {
            // Subtracting nothing would still take the cache line from the other threads.
            return;
        }
        self.0.kinds.here()[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.give_back(bytes);
    }

    fn give_back(&self, bytes: u64) {
        // SeqCst pairs with the queue of waiters: either this sees the waiter, or the waiter sees the room.
        self.0.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.has_waiters() {
            self.0.freed.fetch_add(1, Ordering::Relaxed);
            self.serve_waiters();
        }
    }

    fn ceiling(&self, priority: MemoryPriority) -> u64 {
        self.0.ceilings[priority as usize].load(Ordering::Relaxed)
    }

    /// Adds bytes to the sum if they fit.
    fn try_add(&self, bytes: u64, priority: MemoryPriority) -> bool {
        // Added before it is compared: two threads cannot both take the last bytes.
        let fits = self.0.used.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes) <= self.ceiling(priority);
        if !fits {
            self.0.used.fetch_sub(bytes, Ordering::SeqCst);
        }
        fits
    }

    /// Adds bytes to the sum, after ending as many idle instances as that takes.
    fn make_room(&self, bytes: u64, priority: MemoryPriority) -> bool {
        loop {
            if self.try_add(bytes, priority) {
                return true;
            }
            // Ending instances for what can never fit would be in vain.
            if bytes > self.ceiling(priority) || !self.reclaim() {
                return false;
            }
        }
    }

    fn reclaim(&self) -> bool {
        self.0.reclaim.get().is_some_and(|reclaim| reclaim())
    }

    fn note_refusal(&self, priority: MemoryPriority) {
        self.0.refused[priority as usize].fetch_add(1, Ordering::Relaxed);
        self.note_shortage();
    }

    fn note_shortage(&self) {
        if !self.0.is_short.swap(true, Ordering::SeqCst) {
            self.0.shortage.notify_one();
        }
    }

    /// Hands free memory to those that wait for it, the most important first.
    fn serve_waiters(&self) {
        while let Some((waiter, kind, bytes)) =
            self.0.waiters.next_that(|bytes, priority| self.try_add(bytes, priority))
        {
            self.count(kind, bytes);
            // A waiter that has left drops the reservation, which serves the next one: after the lock, which is not
            // held here.
            drop(waiter.send(Reservation::new(self, kind, bytes)));
        }
    }
}

/// Takes a request that leaves out of the queue, so that it is not counted among those that wait.
struct Departure<'a>(&'a MemoryBudget);

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        self.0.serve_waiters();
    }
}

/// Bytes of the budget. Dropping it gives them back.
pub(crate) struct Reservation {
    budget: MemoryBudget,
    kind: MemoryKind,
    bytes: u64,
}

impl std::fmt::Debug for Reservation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of {}", self.bytes, self.kind.as_str())
    }
}

impl Reservation {
    fn new(budget: &MemoryBudget, kind: MemoryKind, bytes: u64) -> Self {
        Self { budget: budget.clone(), kind, bytes }
    }

    /// Returns the bytes that it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes if there is room, after ending idle instances if that is needed.
    ///
    /// # Errors
    /// There is no room.
    pub(crate) fn try_grow(&mut self, by: u64, priority: MemoryPriority) -> Result<(), MemoryShortage> {
        let more = self.budget.try_reserve(self.kind, by, priority).ok_or(MemoryShortage)?;
        self.merge(more);
        Ok(())
    }

    /// Adds bytes. Ends idle instances if that is needed, and then waits in turn.
    ///
    /// # Errors
    /// There was no room by `deadline`, or there can be none.
    pub(crate) async fn grow(
        &mut self,
        by: u64,
        priority: MemoryPriority,
        deadline: Instant,
    ) -> Result<(), MemoryShortage> {
        let more = self.budget.reserve(self.kind, by, priority, deadline).await?;
        self.merge(more);
        Ok(())
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

    /// Adds the bytes of another reservation of the same kind.
    fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Counts the bytes under another kind from now on.
    #[must_use]
    pub(crate) fn into_kind(mut self, kind: MemoryKind) -> Self {
        let bytes = std::mem::take(&mut self.bytes);
        self.budget.0.kinds.here()[self.kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.budget.count(kind, bytes);
        Self::new(&self.budget, kind, bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.subtract(self.kind, self.bytes);
    }
}
