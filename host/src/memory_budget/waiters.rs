//! The requests for memory that wait, with the channels on which they are served.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use caxton_control::memory::MemoryPriority;
use caxton_control::memory_queue::{MemoryQueue, MemoryRequest, SMALL_REQUEST};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::kind::MemoryKind;

/// The number of priorities, each of which has a queue.
pub(super) const PRIORITIES: usize = MemoryPriority::ALL.len();

/// The owner of a request, who waits for a `T`.
struct MemoryWaiter<T> {
    kind: MemoryKind,
    granted: oneshot::Sender<T>,
}

/// The requests that wait.
pub(super) struct Waiters<T> {
    // A small lock, taken only while memory is short.
    queue: Mutex<MemoryQueue<MemoryWaiter<T>>>,
    /// The number of waiters of each priority, readable without the lock.
    counts: [AtomicUsize; PRIORITIES],
    /// The number of all: looked at whenever memory is given back.
    total: AtomicUsize,
    /// The number of guests that had to wait so far.
    tickets: AtomicU64,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            counts: Default::default(),
            total: AtomicUsize::new(0),
            tickets: AtomicU64::new(0),
        }
    }
}

impl<T> Waiters<T> {
    /// Returns the number of waiters, those included that have left and were not met since.
    pub(super) fn count(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }

    /// Returns the seniority of a guest that waits for the first time in its call.
    pub(super) fn new_seniority(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns `true` if a new request has to wait behind others.
    pub(super) fn blocks(&self, priority: MemoryPriority, bytes: u64) -> bool {
        let waiting = |priority: MemoryPriority| self.counts[priority as usize].load(Ordering::SeqCst) > 0;
        waiting(priority) || (waiting(MemoryPriority::Work) && bytes > SMALL_REQUEST)
    }

    /// Returns `true` if no growth waits that is older.
    pub(super) fn is_oldest_growth(&self, seniority: Option<u64>) -> bool {
        // Without the lock in the usual case.
        self.counts[MemoryPriority::Work as usize].load(Ordering::SeqCst) == 0
            || self
                .queue
                .lock()
                .oldest_growth()
                .is_none_or(|oldest| seniority.is_some_and(|own| own <= oldest.seniority))
    }

    /// Queues a request. Returns the receiver of its memory.
    pub(super) fn queue(&self, kind: MemoryKind, request: MemoryRequest) -> oneshot::Receiver<T> {
        let (granted, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.push(request, MemoryWaiter { kind, granted });
        self.recount(&queue);
        receiver
    }

    /// Takes the next waiter whose request `fits`, as [`MemoryQueue::serve`] says. Takes time in proportion to the
    /// waiters.
    pub(super) fn next_that(
        &self,
        fits: impl FnMut(&MemoryRequest, bool) -> bool,
    ) -> Option<(oneshot::Sender<T>, MemoryKind, u64)> {
        let mut queue = self.queue.lock();
        queue.retain(|waiter| !waiter.granted.is_closed());
        let found = queue.serve(fits);
        self.recount(&queue);
        found.map(|(request, MemoryWaiter { kind, granted })| (granted, kind, request.bytes))
    }

    /// Gives up the youngest growths for the oldest, which lacks `short` bytes of its request. Their guests end.
    /// Returns `false` if there are no others.
    pub(super) fn give_up_youngest(&self, short: impl FnOnce(&MemoryRequest) -> u64) -> bool {
        let mut queue = self.queue.lock();
        queue.retain(|waiter| !waiter.granted.is_closed());
        let Some(oldest) = queue.oldest_growth() else { return false };
        let ended = queue.give_up_youngest(short(&oldest));
        self.recount(&queue);
        drop(queue);
        // After the lock is released: dropping them wakes the guests, which give back what they hold.
        !ended.is_empty()
    }

    fn recount(&self, queue: &MemoryQueue<MemoryWaiter<T>>) {
        let mut total = 0;
        for priority in MemoryPriority::ALL {
            total += queue.len(priority);
            // SeqCst pairs with the memory that is given back: see `MemoryBudget::give_back`.
            self.counts[priority as usize].store(queue.len(priority), Ordering::SeqCst);
        }
        self.total.store(total, Ordering::SeqCst);
    }
}
