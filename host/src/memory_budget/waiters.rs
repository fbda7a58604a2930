//! The requests for memory that wait, by priority and in the order of their arrival.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use caxton_control::memory::MemoryPriority;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::kind::MemoryKind;

/// The number of priorities, each of which has a queue.
pub(super) const PRIORITIES: usize = MemoryPriority::ALL.len();

/// A request that waits for a `T`.
struct MemoryWaiter<T> {
    /// Tells it from others.
    ticket: u64,
    kind: MemoryKind,
    bytes: u64,
    granted: oneshot::Sender<T>,
}

/// The queues, one for each priority.
pub(super) struct Waiters<T> {
    // A small lock, taken only while memory is short.
    queues: Mutex<[VecDeque<MemoryWaiter<T>>; PRIORITIES]>,
    /// The number of waiters, readable without the lock.
    count: AtomicUsize,
    /// The number of requests that had to wait so far.
    tickets: AtomicU64,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        let queues = Mutex::new(std::array::from_fn(|_| VecDeque::new()));
        Self { queues, count: AtomicUsize::new(0), tickets: AtomicU64::new(0) }
    }
}

impl<T> Waiters<T> {
    /// Returns the number of waiters, those included that have left and were not met since.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Queues a request. Returns its ticket, and the receiver of its memory.
    pub(super) fn queue(&self, kind: MemoryKind, bytes: u64, priority: MemoryPriority) -> (u64, oneshot::Receiver<T>) {
        let (granted, receiver) = oneshot::channel();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let mut queues = self.queues.lock();
        queues[priority as usize].push_back(MemoryWaiter { ticket, kind, bytes, granted });
        self.recount(&queues);
        (ticket, receiver)
    }

    /// Returns `true` if work with this ticket waits behind other work.
    pub(super) fn is_last_of_several(&self, ticket: u64, priority: MemoryPriority) -> bool {
        if priority != MemoryPriority::Work {
            return false;
        }
        let queues = self.queues.lock();
        let mut left = queues[priority as usize].iter().rev().filter(|waiter| !waiter.granted.is_closed());
        left.next().is_some_and(|last| last.ticket == ticket) && left.next().is_some()
    }

    /// Takes the first waiter that `fits`, the most important first. Takes time in proportion to the waiters in front.
    pub(super) fn next_that(
        &self,
        fits: impl Fn(u64, MemoryPriority) -> bool,
    ) -> Option<(oneshot::Sender<T>, MemoryKind, u64)> {
        let mut queues = self.queues.lock();
        let mut found = None;
        for priority in MemoryPriority::ALL.into_iter().rev() {
            let queue = &mut queues[priority as usize];
            queue.retain(|waiter| !waiter.granted.is_closed());
            // Work that needs little passes work that needs more than there is: when it ends there is more.
            let reach = if priority == MemoryPriority::Work { queue.len() } else { queue.len().min(1) };
            let at = queue.iter().take(reach).position(|waiter| fits(waiter.bytes, priority));
            found = at.and_then(|at| queue.remove(at));
            // Who waits with a lower priority gets nothing while there is not enough for a higher one.
            if found.is_some() || !queue.is_empty() {
                break;
            }
        }
        self.recount(&queues);
        found.map(|MemoryWaiter { kind, bytes, granted, .. }| (granted, kind, bytes))
    }

    fn recount(&self, queues: &[VecDeque<MemoryWaiter<T>>; PRIORITIES]) {
        // SeqCst pairs with the memory that is given back: see `MemoryBudget::give_back`.
        self.count.store(queues.iter().map(VecDeque::len).sum(), Ordering::SeqCst);
    }
}
