//! The places for instances: so many may live at once, and who comes when all are taken gets the next, in turn.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// All the places of a runtime.
pub(super) struct Places {
    total: u32,
    state: Mutex<State>,
    /// How many are in the queue, to be read where the lock would cost too much.
    waiting: AtomicUsize,
}

struct State {
    free: u32,
    /// Who waits; the one that came first is in front. Some may have left.
    queue: VecDeque<oneshot::Sender<Place>>,
}

/// Room for one instance. Dropping it hands it on.
pub(crate) struct Place {
    /// None when it was handed on.
    places: Option<Arc<Places>>,
}

/// What [`Places::take`] gives.
pub(super) enum Taken {
    /// A place that was free.
    Place(Place),
    /// The next that is handed on, after those of `before` others.
    Next { place: oneshot::Receiver<Place>, before: usize },
}

impl Places {
    pub(super) fn new(total: u32) -> Arc<Self> {
        let state = State { free: total, queue: VecDeque::new() };
        Arc::new(Self { total, state: Mutex::new(state), waiting: AtomicUsize::new(0) })
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    pub(super) fn free(&self) -> u32 {
        self.state.lock().free
    }

    /// How many wait for a place. A place that is handed on is one for which nobody waits any more, however long it
    /// takes until who waited comes to it.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// A place that nobody has.
    pub(super) fn free_place(self: &Arc<Self>) -> Option<Place> {
        self.free_of(&mut self.state.lock())
    }

    fn free_of(self: &Arc<Self>, state: &mut State) -> Option<Place> {
        state.free = state.free.checked_sub(1)?;
        Some(Place { places: Some(Arc::clone(self)) })
    }

    /// A place, or a place in the queue.
    pub(super) fn take(self: &Arc<Self>) -> Taken {
        let mut state = self.state.lock();
        if let Some(place) = self.free_of(&mut state) {
            return Taken::Place(place);
        }
        // Who left is forgotten at a cost that those who came have paid for.
        if state.queue.len() == state.queue.capacity() {
            state.queue.retain(|waits| !waits.is_closed());
        }
        let before = state.queue.len();
        let (sender, place) = oneshot::channel();
        state.queue.push_back(sender);
        self.waiting.store(before + 1, Ordering::SeqCst);
        Taken::Next { place, before }
    }

    /// The first of the queue, for whom there is a place now; without a queue the place is free.
    fn next(&self) -> Option<oneshot::Sender<Place>> {
        let mut state = self.state.lock();
        let next = state.queue.pop_front();
        match next {
            Some(_) => self.waiting.store(state.queue.len(), Ordering::SeqCst),
            None => state.free += 1,
        }
        next
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while let Some(places) = self.places.take() {
            let Some(next) = places.next() else { return };
            // Who has left gives it back.
            if let Err(mut back) = next.send(Self { places: Some(places) }) {
                self.places = back.places.take();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(places: &Arc<Places>) -> Place {
        let Taken::Place(place) = places.take() else { panic!("there is a place") };
        place
    }

    fn waits(places: &Arc<Places>) -> oneshot::Receiver<Place> {
        let Taken::Next { place, .. } = places.take() else { panic!("there is no place") };
        place
    }

    #[test]
    fn places_go_to_those_who_wait_in_turn_and_past_those_who_left() {
        let places = Places::new(2);
        let (one, two) = (taken(&places), taken(&places));
        let (mut first, left, mut last) = (waits(&places), waits(&places), waits(&places));
        assert_eq!((places.free(), places.waiting()), (0, 3));
        drop(left);
        drop(one);
        let _first = first.try_recv().unwrap();
        assert!(last.try_recv().is_err());
        drop(two);
        assert_eq!((places.free(), places.waiting()), (0, 0));
        // One that was handed on and not taken is handed on again.
        let mut again = waits(&places);
        drop(last);
        let again = again.try_recv().unwrap();
        drop(again);
        assert_eq!((places.free(), places.waiting(), places.total()), (1, 0, 2));
    }

    #[test]
    fn those_who_left_do_not_gather() {
        let places = Places::new(1);
        let _one = taken(&places);
        for _ in 0..10_000 {
            drop(waits(&places));
        }
        assert!(places.waiting() < 64, "{}", places.waiting());
    }
}
