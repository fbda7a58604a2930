//! Slots for instances: a bounded number of instances lives at once, and callers queue when all slots are taken.
//!
//! A woken waiter looks for a slot instead of being handed one: between the wake and the look, running callers may use
//! it. If slots were kept for sleeping waiters, then with more callers than slots all of them would belong to sleepers,
//! and every message would cost an instance start. A woken waiter that loses this race moves to the priority queue and
//! is handed the next slot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::pool::Pool;
use super::spares::Idle;

/// One in this many slots is kept free of instances that wait for an answer. Otherwise all slots could belong to agents
/// that ask, the agents they ask would find none, and all would wait until their deadlines.
const RESERVED_SHARE: u32 = 8;

/// The slots of a runtime.
pub(super) struct Places {
    total: u32,
    state: Mutex<State>,
    /// The number of queued waiters, readable without the lock.
    waiting: AtomicUsize,
    /// The number of instances that wait for an answer.
    asking: AtomicU32,
}

/// Both queues are in order of arrival. Waiters may have left.
struct State {
    free: u32,
    /// Starved waiters: woken once without success, and handed the next slot.
    insisting: VecDeque<oneshot::Sender<Turn>>,
    /// Waiters to be woken.
    queue: VecDeque<oneshot::Sender<Turn>>,
}

/// A slot for one instance. Dropping it frees the slot for the next waiter.
pub(crate) struct Place {
    /// `None` once the slot was passed on.
    places: Option<Arc<Places>>,
}

/// The message to a waiter whose turn it is.
pub(super) enum Turn {
    /// The slot is the waiter's.
    Take(Place),
    /// There may be a free slot, or an idle instance to evict.
    Look(Look),
}

/// The wake-up of a waiter. Dropping it wakes the next one: the waiter has left, or there may be more slots.
pub(super) struct Look {
    /// `None` if no further waiter needs to be woken.
    places: Option<Arc<Places>>,
    /// The pool whose instance became idle.
    idle: Option<Arc<Pool>>,
}

impl Look {
    /// Evicts the instance that caused the wake-up, if it is still idle, and returns its slot.
    pub(super) fn spare(&self) -> Option<Place> {
        self.idle.as_ref()?.spare().map(Idle::end)
    }

    /// Drops the wake-up without waking the next waiter.
    pub(super) fn done(mut self) {
        self.places = None;
    }
}

/// A place in the queue.
pub(super) struct Waits {
    /// Resolves when the waiter is woken or handed a slot.
    pub(super) turn: oneshot::Receiver<Turn>,
    /// The number of waiters in front.
    pub(super) before: usize,
}

impl Places {
    pub(super) fn new(total: u32) -> Arc<Self> {
        let state = State { free: total, insisting: VecDeque::new(), queue: VecDeque::new() };
        Arc::new(Self { total, state: Mutex::new(state), waiting: AtomicUsize::new(0), asking: AtomicU32::new(0) })
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    pub(super) fn free(&self) -> u32 {
        self.state.lock().free
    }

    /// Returns the number of queued waiters.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Counts an instance as waiting for an answer while the returned guard lives. `None` if too many do.
    pub(super) fn ask(self: &Arc<Self>) -> Option<Asking> {
        let most = self.most_asking();
        let one_more = |asking| (asking < most).then_some(asking + 1);
        let asks = self.asking.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok();
        asks.then(|| Asking { places: Arc::clone(self) })
    }

    /// Returns the number of instances that may wait for answers at once.
    pub(super) fn most_asking(&self) -> u32 {
        self.total - self.total.div_ceil(RESERVED_SHARE)
    }

    /// Takes a free slot.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        self.take_of(&mut self.state.lock())
    }

    /// Takes a free slot, or joins one of the queues. `insists` chooses the priority queue.
    pub(super) fn take_or_wait(self: &Arc<Self>, insists: bool) -> Result<Place, Waits> {
        let mut state = self.state.lock();
        if let Some(place) = self.take_of(&mut state) {
            return Ok(place);
        }
        let before = state.insisting.len() + state.queue.len();
        let queue = if insists { &mut state.insisting } else { &mut state.queue };
        // Waiters that left are removed only when the queue would have to grow, which keeps the cost per waiter
        // constant.
        if queue.len() == queue.capacity() {
            queue.retain(|waits| !waits.is_closed());
        }
        let (sender, turn) = oneshot::channel();
        queue.push_back(sender);
        self.count(&state);
        Err(Waits { turn, before })
    }

    /// Wakes the next waiter after a slot was freed or an instance of the pool `idle` became idle. Returns `false` if a
    /// starved waiter has priority.
    pub(super) fn call(self: &Arc<Self>, idle: Option<&Arc<Pool>>) -> bool {
        loop {
            let next = {
                let mut state = self.state.lock();
                // A starved waiter that left must not block those behind it.
                state.insisting.retain(|waits| !waits.is_closed());
                if !state.insisting.is_empty() {
                    return false;
                }
                let next = state.queue.pop_front();
                self.count(&state);
                next
            };
            let Some(next) = next else { return true };
            match next.send(Turn::Look(Look { places: Some(Arc::clone(self)), idle: idle.cloned() })) {
                // The waiter has left; the loop wakes the next.
                Err(Turn::Look(look)) => look.done(),
                Ok(()) | Err(Turn::Take(_)) => return true,
            }
        }
    }

    /// Hands a freed slot to the first starved waiter, or marks it free and wakes the next waiter.
    fn freed(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.insisting.pop_front();
                state.free += u32::from(next.is_none());
                self.count(&state);
                next
            };
            let Some(next) = next else { break };
            match next.send(Turn::Take(Place { places: Some(Arc::clone(self)) })) {
                // The waiter has left. The slot must not be freed by the drop, which would recurse.
                Err(Turn::Take(mut place)) => place.places = None,
                Ok(()) | Err(Turn::Look(_)) => return,
            }
        }
        // A waiter that became starved since then has taken it from `free` already.
        self.call(None);
    }

    fn take_of(self: &Arc<Self>, state: &mut State) -> Option<Place> {
        state.free = state.free.checked_sub(1)?;
        Some(Place { places: Some(Arc::clone(self)) })
    }

    fn count(&self, state: &State) {
        // SeqCst pairs with the check of a pool whose instance becomes idle: either it sees the waiter, or the waiter
        // finds the instance.
        self.waiting.store(state.insisting.len() + state.queue.len(), Ordering::SeqCst);
    }
}

/// A guard that counts an instance as waiting for an answer.
pub(super) struct Asking {
    places: Arc<Places>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.places.asking.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            places.freed();
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            places.call(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(places: &Arc<Places>, insists: bool) -> oneshot::Receiver<Turn> {
        let Err(Waits { turn, .. }) = places.take_or_wait(insists) else { panic!("there is no place") };
        turn
    }

    fn look(turn: &mut oneshot::Receiver<Turn>) -> Option<Look> {
        match turn.try_recv() {
            Ok(Turn::Look(look)) => Some(look),
            Ok(Turn::Take(_)) => panic!("it does not insist"),
            Err(_) => None,
        }
    }

    #[test]
    fn waiters_are_woken_in_order_without_those_who_left() {
        let places = Places::new(2);
        let (one, two) = (places.take().unwrap(), places.take().unwrap());
        let (mut first, left, mut second, mut third) =
            (waits(&places, false), waits(&places, false), waits(&places, false), waits(&places, false));
        assert_eq!((places.free(), places.waiting()), (0, 4));
        drop(left);
        drop(one);
        assert_eq!((places.free(), places.waiting()), (1, 3));
        let called = look(&mut first).unwrap();
        assert!(look(&mut second).is_none());
        // It takes the slot; there may be another.
        let one = places.take().unwrap();
        drop(called);
        let called = look(&mut second).unwrap();
        assert!(places.take().is_none() && called.spare().is_none());
        called.done();
        assert!(look(&mut third).is_none());
        // A waiter that is woken and leaves wakes the next.
        let last = waits(&places, false);
        drop(two);
        drop(third);
        drop(last);
        drop(one);
        assert_eq!((places.free(), places.waiting(), places.total()), (2, 0, 2));
    }

    #[test]
    fn starved_waiters_are_handed_the_next_slot() {
        let places = Places::new(1);
        let one = places.take().unwrap();
        let mut waits_longer = waits(&places, false);
        let left = waits(&places, true);
        let mut insists = waits(&places, true);
        assert!(!places.call(None), "starved waiters have priority");
        drop(left);
        drop(one);
        let Ok(Turn::Take(place)) = insists.try_recv() else { panic!("it has the place") };
        assert!(look(&mut waits_longer).is_none());
        assert!(places.take().is_none() && places.call(None));
        look(&mut waits_longer).unwrap().done();
        // A slot that was handed over and not taken is free again.
        let insists = waits(&places, true);
        drop(place);
        assert_eq!(places.free(), 0);
        drop(insists);
        assert_eq!((places.free(), places.waiting()), (1, 0));
    }

    #[test]
    fn waiters_that_left_do_not_accumulate() {
        let places = Places::new(1);
        let _one = places.take();
        for number in 0..10_000 {
            drop(waits(&places, number % 2 == 0));
        }
        assert!(places.waiting() < 64, "{}", places.waiting());
        // The first idle instance finds that no waiter is left.
        assert!(places.call(None));
        assert_eq!(places.waiting(), 0);
    }
}
