//! The places for instances: so many may live at once, and who comes when all are taken is called in turn.
//!
//! Who is called looks for a place, rather than being given one: between the call and the look others, who are at
//! work, use it. Were it kept for whoever sleeps, then with more at work than there are places all of them would belong
//! to sleepers, and every message would cost a start. Who was called and found nothing insists, and is given the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::pool::Pool;
use super::spares::Idle;

/// Of so many places at least one has no instance that waits for an answer: who is asked has to find a place, or all who
/// ask would wait until their deadlines.
const ONE_ANSWERS: u32 = 8;

/// All the places of a runtime.
pub(super) struct Places {
    total: u32,
    state: Mutex<State>,
    /// How many are in the queues, to be read where the lock would cost too much.
    waiting: AtomicUsize,
    /// How many have an instance that waits for an answer.
    asking: AtomicU32,
}

/// Who came first is in front of either queue. Some may have left.
struct State {
    free: u32,
    /// Who was called in vain, and is given the next place.
    insisting: VecDeque<oneshot::Sender<Turn>>,
    /// Who is to be called.
    queue: VecDeque<oneshot::Sender<Turn>>,
}

/// Room for one instance. Dropping it leaves it to the next.
pub(crate) struct Place {
    /// None when there is nothing to be left.
    places: Option<Arc<Places>>,
}

/// What somebody hears whose turn it is.
pub(super) enum Turn {
    /// There is this place.
    Take(Place),
    /// There may be one, or an instance that makes way.
    Look(Look),
}

/// A call. Dropping it calls the next: whoever was called has left, or there may be more for others.
pub(super) struct Look {
    /// None when there is no need.
    places: Option<Arc<Places>>,
    /// Whose instance became idle.
    idle: Option<Arc<Pool>>,
}

impl Look {
    /// The place of the instance for which it was called, if that is still idle.
    pub(super) fn spare(&self) -> Option<Place> {
        self.idle.as_ref()?.spare().map(Idle::end)
    }

    /// Nobody else is to be called for it.
    pub(super) fn done(mut self) {
        self.places = None;
    }
}

/// Somebody in the queue.
pub(super) struct Waits {
    /// When it is called, or given a place.
    pub(super) turn: oneshot::Receiver<Turn>,
    /// How many waited before.
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

    /// How many wait to be called or to be given a place.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The instance of a place is to wait for an answer, for as long as this lives; none if too many do already.
    pub(super) fn ask(self: &Arc<Self>) -> Option<Asking> {
        let most = self.most_asking();
        let one_more = |asking| (asking < most).then_some(asking + 1);
        let asks = self.asking.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok();
        asks.then(|| Asking { places: Arc::clone(self) })
    }

    /// How many instances may wait for answers at once.
    pub(super) fn most_asking(&self) -> u32 {
        self.total - self.total.div_ceil(ONE_ANSWERS)
    }

    /// A place that nobody has.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        self.take_of(&mut self.state.lock())
    }

    /// A place that nobody has, or one in the queue.
    pub(super) fn take_or_wait(self: &Arc<Self>, insists: bool) -> Result<Place, Waits> {
        let mut state = self.state.lock();
        if let Some(place) = self.take_of(&mut state) {
            return Ok(place);
        }
        let before = state.insisting.len() + state.queue.len();
        let queue = if insists { &mut state.insisting } else { &mut state.queue };
        // Who left is forgotten at a cost that those who came have paid for.
        if queue.len() == queue.capacity() {
            queue.retain(|waits| !waits.is_closed());
        }
        let (sender, turn) = oneshot::channel();
        queue.push_back(sender);
        self.count(&state);
        Err(Waits { turn, before })
    }

    /// An instance is idle (of this pool), or a place is free, or was a moment ago: calls the next. False if somebody
    /// insists on a place instead.
    pub(super) fn call(self: &Arc<Self>, idle: Option<&Arc<Pool>>) -> bool {
        loop {
            let next = {
                let mut state = self.state.lock();
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
                Err(Turn::Look(look)) => look.done(),
                Ok(()) | Err(Turn::Take(_)) => return true,
            }
        }
    }

    /// A place is free: it is for who insists, or for whoever comes first.
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
                Err(Turn::Take(mut place)) => place.places = None,
                Ok(()) | Err(Turn::Look(_)) => return,
            }
        }
        // Whoever insists since then has taken it.
        self.call(None);
    }

    fn take_of(self: &Arc<Self>, state: &mut State) -> Option<Place> {
        state.free = state.free.checked_sub(1)?;
        Some(Place { places: Some(Arc::clone(self)) })
    }

    fn count(&self, state: &State) {
        self.waiting.store(state.insisting.len() + state.queue.len(), Ordering::SeqCst);
    }
}

/// An instance waits for an answer.
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
    fn who_waits_is_called_in_turn_past_those_who_left() {
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
        // It takes the place; there may be another.
        let one = places.take().unwrap();
        drop(called);
        let called = look(&mut second).unwrap();
        assert!(places.take().is_none() && called.spare().is_none());
        called.done();
        assert!(look(&mut third).is_none());
        // One that is called and leaves calls the next.
        let last = waits(&places, false);
        drop(two);
        drop(third);
        drop(last);
        drop(one);
        assert_eq!((places.free(), places.waiting(), places.total()), (2, 0, 2));
    }

    #[test]
    fn who_was_called_in_vain_is_given_the_next_place() {
        let places = Places::new(1);
        let one = places.take().unwrap();
        let mut waits_longer = waits(&places, false);
        let left = waits(&places, true);
        let mut insists = waits(&places, true);
        assert!(!places.call(None), "nobody is called before who insists");
        drop(left);
        drop(one);
        let Ok(Turn::Take(place)) = insists.try_recv() else { panic!("it has the place") };
        assert!(look(&mut waits_longer).is_none());
        assert!(places.take().is_none() && places.call(None));
        look(&mut waits_longer).unwrap().done();
        // One that was given and not taken is free again.
        let insists = waits(&places, true);
        drop(place);
        assert_eq!(places.free(), 0);
        drop(insists);
        assert_eq!((places.free(), places.waiting()), (1, 0));
    }

    #[test]
    fn those_who_left_do_not_gather() {
        let places = Places::new(1);
        let _one = places.take();
        for number in 0..10_000 {
            drop(waits(&places, number % 2 == 0));
        }
        assert!(places.waiting() < 64, "{}", places.waiting());
        // The first that becomes idle finds that nobody waits.
        assert!(places.call(None));
        assert_eq!(places.waiting(), 0);
    }
}
