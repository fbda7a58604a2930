//! Slots for instances: a bounded number of instances lives at once, and callers queue when all slots are taken.
//!
//! A woken waiter looks for a slot instead of being handed one: between the wake and the look, running callers may use
//! it. If slots were kept for sleeping waiters, then with more callers than slots all of them would belong to sleepers,
//! and every message would cost an instance start. A woken waiter that loses this race moves to the priority queue and
//! is handed the next slot.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::memory_budget::{MemoryBudget, MemoryKind, Reservation};

/// The share of slots that is kept free of instances that wait for an answer. Otherwise all slots could belong to
/// agents that ask, the agents they ask would find none, and all would wait until their deadlines.
const RESERVED_SHARE: u32 = 8;

/// The slots of a runtime.
pub(in crate::wasm) struct InstanceSlots {
    total: u32,
    state: Mutex<SlotsState>,
    /// The number of queued waiters, readable without the lock.
    waiting: AtomicUsize,
    /// The number of instances that wait for an answer.
    blocked: AtomicU32,
    /// The memory of the stacks, which stay for the next instances.
    // Locked when more instances live than ever before, and after a stack was used up.
    stacks: Mutex<StacksMemory>,
}

/// The memory of stacks.
struct StacksMemory {
    held: Reservation,
    /// The stacks that were used: as many as instances have lived at once.
    used: u32,
    /// Those of them that were used up, at most.
    used_up: u32,
}

/// The bytes of a stack that calls touch, beside what an instance is counted with.
const STACK_BYTES: u64 = 8 << 10;
/// The bytes of a stack that a guest used up: the engine's bound.
const WHOLE_STACK_BYTES: u64 = 512 << 10;

impl StacksMemory {
    fn count(&mut self) {
        let whole = u64::from(self.used_up.min(self.used)) * WHOLE_STACK_BYTES;
        self.held.hold(u64::from(self.used) * STACK_BYTES + whole);
    }
}

/// The free slots and the waiters. Both queues are in order of arrival, and their waiters may have left.
struct SlotsState {
    free: u32,
    /// The least that were free so far.
    least_free: u32,
    /// The starved waiters: woken once without success, and handed the next slot.
    starved: VecDeque<oneshot::Sender<Wakeup>>,
    /// Waiters to be woken.
    queue: VecDeque<oneshot::Sender<Wakeup>>,
}

/// A slot for one instance. Dropping it frees the slot for the next waiter.
pub(crate) struct InstanceSlot {
    /// `None` once the slot was passed on.
    slots: Option<Arc<InstanceSlots>>,
}

/// The message to a waiter that is woken.
pub(in crate::wasm) enum Wakeup {
    /// The slot is the waiter's.
    Granted(InstanceSlot),
    /// A hint that there may be a free slot, or an idle instance to evict.
    Retry(RetryToken),
}

/// A pool whose idle instance may be ended for its slot. A trait, because slots come before pools: a pool is made of
/// instances, and an instance has a slot.
pub(in crate::wasm) trait Evict: Send + Sync {
    /// Takes an idle instance out of the pool.
    fn evict(&self) -> Option<EvictedInstance>;
}

/// An instance that has to end before its slot is passed on.
pub(in crate::wasm) struct EvictedInstance {
    instance: Box<dyn Any + Send>,
    slot: InstanceSlot,
}

impl EvictedInstance {
    pub(in crate::wasm) fn new(instance: Box<dyn Any + Send>, slot: InstanceSlot) -> Self {
        Self { instance, slot }
    }

    /// Ends the instance and returns its slot. Takes long, so that no lock may be held.
    pub(in crate::wasm) fn end(self) -> InstanceSlot {
        // First: the allocator has no room for the next instance before that.
        drop(self.instance);
        self.slot
    }
}

/// The wake-up of a waiter. Dropping it wakes the next one: the waiter has left, or there may be more slots.
pub(in crate::wasm) struct RetryToken {
    /// `None` if no further waiter needs to be woken.
    slots: Option<Arc<InstanceSlots>>,
    /// The pool whose instance became idle.
    idle: Option<Arc<dyn Evict>>,
}

impl RetryToken {
    /// Evicts the instance that caused the wake-up, if it is still idle, and returns its slot.
    pub(in crate::wasm) fn evict(&self) -> Option<InstanceSlot> {
        self.idle.as_ref()?.evict().map(EvictedInstance::end)
    }

    /// Drops the wake-up without waking the next waiter.
    pub(in crate::wasm) fn done(mut self) {
        // Its drop would wake the next waiter, for which there is no slot.
        self.slots = None;
    }
}

/// A slot in the queue.
pub(in crate::wasm) struct QueuedWaiter {
    /// Resolves when the waiter is woken or handed a slot.
    pub(in crate::wasm) wakeup: oneshot::Receiver<Wakeup>,
    /// The number of waiters in front.
    pub(in crate::wasm) waiters_ahead: usize,
}

impl InstanceSlots {
    pub(in crate::wasm) fn new(total: u32, memory: &MemoryBudget) -> Arc<Self> {
        let state = SlotsState { free: total, least_free: total, starved: VecDeque::new(), queue: VecDeque::new() };
        let stacks = StacksMemory { held: memory.empty(MemoryKind::Stacks), used: 0, used_up: 0 };
        Arc::new(Self {
            total,
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            blocked: AtomicU32::new(0),
            stacks: Mutex::new(stacks),
        })
    }

    /// Counts a stack that a guest has used up. It stays in memory.
    pub(in crate::wasm) fn note_used_up_stack(&self) {
        let mut stacks = self.stacks.lock();
        stacks.used_up = stacks.used_up.saturating_add(1);
        stacks.count();
    }

    pub(in crate::wasm) fn total(&self) -> u32 {
        self.total
    }

    pub(in crate::wasm) fn free(&self) -> u32 {
        self.state.lock().free
    }

    /// Returns the number of queued waiters.
    pub(in crate::wasm) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Counts an instance as waiting for an answer while the returned guard lives. `None` if too many do.
    pub(in crate::wasm) fn block(self: &Arc<Self>) -> Option<BlockedInstance> {
        let most = self.max_blocked();
        let one_more = |blocked| (blocked < most).then_some(blocked + 1);
        let is_granted = self.blocked.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok();
        is_granted.then(|| BlockedInstance { slots: Arc::clone(self) })
    }

    /// Returns the number of instances that may wait for answers at once.
    pub(in crate::wasm) fn max_blocked(&self) -> u32 {
        // Rounded in favour of the reserve, so that the smallest host has one slot for answers as well.
        self.total - self.total.div_ceil(RESERVED_SHARE)
    }

    /// Takes a free slot.
    pub(in crate::wasm) fn take(self: &Arc<Self>) -> Option<InstanceSlot> {
        self.take_of(&mut self.state.lock())
    }

    /// Takes a free slot, or joins one of the queues. `is_starved` chooses the priority queue.
    pub(in crate::wasm) fn take_or_queue(self: &Arc<Self>, is_starved: bool) -> Result<InstanceSlot, QueuedWaiter> {
        let mut state = self.state.lock();
        if let Some(slot) = self.take_of(&mut state) {
            return Ok(slot);
        }
        let waiters_ahead = state.starved.len() + state.queue.len();
        let queue = if is_starved { &mut state.starved } else { &mut state.queue };
        // Waiters that left are removed only when the queue would have to grow, which keeps the cost per waiter
        // constant.
        if queue.len() == queue.capacity() {
            queue.retain(|waits| !waits.is_closed());
        }
        let (sender, wakeup) = oneshot::channel();
        queue.push_back(sender);
        self.count(&state);
        Err(QueuedWaiter { wakeup, waiters_ahead })
    }

    /// Wakes the next waiter after a slot was freed or an instance of the pool `idle` became idle. Returns `false` if a
    /// starved waiter has priority.
    pub(in crate::wasm) fn wake_next(self: &Arc<Self>, idle: Option<&Arc<dyn Evict>>) -> bool {
        loop {
            let next = {
                let mut state = self.state.lock();
                // A starved waiter that left must not block those behind it.
                state.starved.retain(|waits| !waits.is_closed());
                if !state.starved.is_empty() {
                    // An instance given to a waiter of the ordinary queue would pass the starved one by.
                    return false;
                }
                let next = state.queue.pop_front();
                self.count(&state);
                next
            };
            let Some(next) = next else { return true };
            match next.send(Wakeup::Retry(RetryToken { slots: Some(Arc::clone(self)), idle: idle.cloned() })) {
                // The waiter has left; the loop wakes the next.
                Err(Wakeup::Retry(look)) => look.done(),
                Ok(()) | Err(Wakeup::Granted(_)) => return true,
            }
        }
    }

    /// Hands a freed slot to the first starved waiter, or marks it free and wakes the next waiter.
    fn slot_freed(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.starved.pop_front();
                // A slot that is handed over never becomes free, so that no running caller can take it.
                state.free += u32::from(next.is_none());
                self.count(&state);
                next
            };
            let Some(next) = next else { break };
            match next.send(Wakeup::Granted(InstanceSlot { slots: Some(Arc::clone(self)) })) {
                // The waiter has left. The slot must not be freed by the drop, which would recurse.
                Err(Wakeup::Granted(mut slot)) => slot.slots = None,
                Ok(()) | Err(Wakeup::Retry(_)) => return,
            }
        }
        // A waiter that became starved since then has taken it from `free` already.
        self.wake_next(None);
    }

    fn take_of(self: &Arc<Self>, state: &mut SlotsState) -> Option<InstanceSlot> {
        state.free = state.free.checked_sub(1)?;
        if state.free < state.least_free {
            state.least_free = state.free;
            let mut stacks = self.stacks.lock();
            stacks.used = self.total - state.free;
            stacks.count();
        }
        Some(InstanceSlot { slots: Some(Arc::clone(self)) })
    }

    fn count(&self, state: &SlotsState) {
        // SeqCst pairs with the check of a pool whose instance becomes idle: either it sees the waiter, or the waiter
        // finds the instance.
        self.waiting.store(state.starved.len() + state.queue.len(), Ordering::SeqCst);
    }
}

/// A guard that counts an instance as waiting for an answer.
pub(in crate::wasm) struct BlockedInstance {
    slots: Arc<InstanceSlots>,
}

impl Drop for BlockedInstance {
    fn drop(&mut self) {
        self.slots.blocked.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for InstanceSlot {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.take() {
            slots.slot_freed();
        }
    }
}

impl Drop for RetryToken {
    fn drop(&mut self) {
        if let Some(slots) = self.slots.take() {
            slots.wake_next(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(slots: &Arc<InstanceSlots>, is_starved: bool) -> oneshot::Receiver<Wakeup> {
        let Err(QueuedWaiter { wakeup, .. }) = slots.take_or_queue(is_starved) else { panic!("there is no slot") };
        wakeup
    }

    fn look(wakeup: &mut oneshot::Receiver<Wakeup>) -> Option<RetryToken> {
        match wakeup.try_recv() {
            Ok(Wakeup::Retry(look)) => Some(look),
            Ok(Wakeup::Granted(_)) => panic!("it does not insist"),
            Err(_) => None,
        }
    }

    #[test]
    fn waiters_are_woken_in_order_without_those_who_left() {
        let slots = InstanceSlots::new(2, &MemoryBudget::new(u64::MAX));
        let (one, two) = (slots.take().unwrap(), slots.take().unwrap());
        let (mut first, left, mut second, mut third) =
            (waits(&slots, false), waits(&slots, false), waits(&slots, false), waits(&slots, false));
        assert_eq!((slots.free(), slots.waiting()), (0, 4));
        drop(left);
        drop(one);
        assert_eq!((slots.free(), slots.waiting()), (1, 3));
        let called = look(&mut first).unwrap();
        assert!(look(&mut second).is_none());
        // It takes the slot; there may be another.
        let one = slots.take().unwrap();
        drop(called);
        let called = look(&mut second).unwrap();
        assert!(slots.take().is_none() && called.evict().is_none());
        called.done();
        assert!(look(&mut third).is_none());
        // A waiter that is woken and leaves wakes the next.
        let last = waits(&slots, false);
        drop(two);
        drop(third);
        drop(last);
        drop(one);
        assert_eq!((slots.free(), slots.waiting(), slots.total()), (2, 0, 2));
    }

    #[test]
    fn starved_waiters_are_handed_the_next_slot() {
        let slots = InstanceSlots::new(1, &MemoryBudget::new(u64::MAX));
        let one = slots.take().unwrap();
        let mut waits_longer = waits(&slots, false);
        let left = waits(&slots, true);
        let mut is_starved = waits(&slots, true);
        assert!(!slots.wake_next(None), "starved waiters have priority");
        drop(left);
        drop(one);
        let Ok(Wakeup::Granted(slot)) = is_starved.try_recv() else { panic!("it has the slot") };
        assert!(look(&mut waits_longer).is_none());
        assert!(slots.take().is_none() && slots.wake_next(None));
        look(&mut waits_longer).unwrap().done();
        // A slot that was handed over and not taken is free again.
        let is_starved = waits(&slots, true);
        drop(slot);
        assert_eq!(slots.free(), 0);
        drop(is_starved);
        assert_eq!((slots.free(), slots.waiting()), (1, 0));
    }

    #[test]
    fn waiters_that_left_do_not_accumulate() {
        let slots = InstanceSlots::new(1, &MemoryBudget::new(u64::MAX));
        let _one = slots.take();
        for number in 0..10_000 {
            drop(waits(&slots, number % 2 == 0));
        }
        assert!(slots.waiting() < 64, "{}", slots.waiting());
        // The first idle instance finds that no waiter is left.
        assert!(slots.wake_next(None));
        assert_eq!(slots.waiting(), 0);
    }
}
