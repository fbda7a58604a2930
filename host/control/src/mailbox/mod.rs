//! The order in which an agent's messages are handled.
//!
//! ```text
//! reserve -> push --> waits behind its conversation --> ready -> take -> in flight -> done
//!    |                                                    ^ ^                |
//!    '-> release          later (not before its time) ----' '--- put_back ---+
//!                           ^                                                |
//!                           '---------------------------------- defer -------'
//! ```
//! A message that was deferred comes after those that are ready when it is due: one that fails each time takes its turn
//! like the others, and never the whole of an agent.
//!
//! Every step takes the same time whatever the depth and the number of conversations; only what is tried again later
//! costs the logarithm of how many such messages there are. Times are milliseconds, of any clock. A message that is sent
//! for later is not here before it is due.

use std::collections::{BinaryHeap, VecDeque};
use std::hash::Hash;

use prefetch_index::prefetch_index;

use self::chains::Place;
use self::lanes::Lanes;
use self::later::Later;

use crate::desired::Order;

mod chains;
mod lanes;
mod later;

/// A mailbox that holds as many messages as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox holds {depth} messages, as many as it may")]
pub struct Full {
    /// The bound.
    pub depth: u32,
}

/// How urgently a message is served (SPEC §7). A waiting message gains a point a second, so that none starves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// One point.
    Low,
    /// Five points.
    Normal,
    /// Eight points.
    High,
    /// Ten points.
    Critical,
}

impl Rank {
    /// All, the least urgent first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];

    /// Its points (SPEC §7).
    pub fn points(self) -> u64 {
        match self {
            Self::Low => 1,
            Self::Normal => 5,
            Self::High => 8,
            Self::Critical => 10,
        }
    }
}

/// How long a message waits for another point, in milliseconds.
const POINT: u64 = 1_000;
/// How many messages before its turn what is ready is fetched into the caches.
const SOON: usize = 8;

/// Messages that wait, with the conversations that are under way.
///
/// `C` names a conversation, `T` is a message. A conversation is *open* while one of its messages is ready, in
/// flight or to be handled again; its further messages wait behind that one.
#[derive(Debug)]
pub struct Mailbox<C, T> {
    order: Order,
    depth: u32,
    /// Messages and reservations that count against the depth: all but those in flight.
    held: u32,
    in_flight: u32,
    /// By rank; each in the order in which they became ready.
    ready: [VecDeque<Ready<C, T>>; Rank::ALL.len()],
    open: Lanes<C, T>,
    later: BinaryHeap<Later<C, T>>,
    /// Keeps what is due at the same time in the order in which it came.
    count: u64,
}

/// What is handled one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Lane<C> {
    /// A conversation.
    Conversation(C),
    /// The whole agent.
    Agent,
    /// Nothing: this message waits for no other.
    Free,
}

/// A message with what the mailbox knows of it.
#[derive(Debug)]
struct Waiting<T> {
    rank: Rank,
    since: u64,
    message: T,
}

/// A message that may be handled.
#[derive(Debug)]
struct Ready<C, T> {
    taken: Taken<C, T>,
    /// Where the next of its lane waited when it became ready.
    behind: Option<Place>,
}

/// A message that may be handled, or is.
#[derive(Debug)]
pub struct Taken<C, T> {
    /// What is shut until it is done.
    pub lane: Lane<C>,
    /// How urgent it is.
    pub rank: Rank,
    /// Since when it waits, in milliseconds.
    pub since: u64,
    /// What [`done`](Mailbox::done) was told of the message before it in its conversation; none if it waited for none.
    pub follows: Option<u64>,
    /// The message.
    pub message: T,
}

impl<C: Clone + Eq + Hash, T> Mailbox<C, T> {
    /// An empty mailbox.
    pub fn new(order: Order, depth: u32) -> Self {
        Self {
            order,
            depth,
            held: 0,
            in_flight: 0,
            ready: Default::default(),
            open: Lanes::default(),
            later: BinaryHeap::new(),
            count: 0,
        }
    }

    /// Applies other settings in place. Messages already here keep the order they came in under.
    pub fn configure(&mut self, order: Order, depth: u32) {
        self.order = order;
        self.depth = depth;
    }

    /// Keeps a place for a message that may come.
    ///
    /// # Errors
    /// There is no place.
    pub fn reserve(&mut self) -> Result<(), Full> {
        if self.held >= self.depth {
            return Err(Full { depth: self.depth });
        }
        self.held += 1;
        Ok(())
    }

    /// Keeps a place for a message that cannot be refused any more: it was accepted before, or its receiver
    /// has to hear it.
    pub fn reserve_beyond(&mut self) {
        self.held = self.held.saturating_add(1);
    }

    /// Gives up a place that was kept.
    pub fn release(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// Puts a message in the place that was kept for it; it waits since `since`.
    pub fn push(&mut self, conversation: C, rank: Rank, since: u64, message: T) {
        let lane = match self.order {
            Order::Conversation => Lane::Conversation(conversation),
            Order::Agent => Lane::Agent,
            Order::None => Lane::Free,
        };
        if let Some(Waiting { rank, since, message }) = self.open.enter(&lane, Waiting { rank, since, message }) {
            self.make_ready(Taken { lane, rank, since, follows: None, message }, None);
        }
    }

    /// Lets the processor fetch what a message of this conversation needs, which is soon [put](Self::push) here.
    pub fn expect(&self, conversation: &C) {
        if let Order::Conversation = self.order {
            self.open.prefetch_end(conversation);
        }
    }

    fn wait_until(&mut self, due: u64, taken: Taken<C, T>) {
        self.count += 1;
        self.later.push(Later { due, count: self.count, taken });
    }

    fn make_ready(&mut self, taken: Taken<C, T>, behind: Option<Place>) {
        self.ready[taken.rank as usize].push_back(Ready { taken, behind });
    }

    /// The next message that may be handled: the most urgent, with what it gained by waiting. Its lane is shut
    /// until [`done`](Self::done), [`put_back`](Self::put_back) or [`defer`](Self::defer).
    pub fn take(&mut self, now: u64) -> Option<Taken<C, T>> {
        let score = |ready: &Ready<C, T>| {
            (ready.taken.rank.points() * POINT).saturating_add(now.saturating_sub(ready.taken.since))
        };
        let best = self.ready.iter().enumerate().filter_map(|(rank, queue)| Some((score(queue.front()?), rank))).max();
        self.take_at(best?.1, 0)
    }

    /// The same for a message whose end says how the agent does: the one that failed least often, by `failures`, and of
    /// those the most urgent. Takes time in proportion to those that are ready and failed.
    pub fn take_trial(&mut self, failures: impl Fn(&T) -> u32) -> Option<Taken<C, T>> {
        let mut best: Option<(u32, usize, usize)> = None;
        'search: for (rank, queue) in self.ready.iter().enumerate().rev() {
            for (at, ready) in queue.iter().enumerate() {
                let failed = failures(&ready.taken.message);
                if best.is_none_or(|(least, ..)| failed < least) {
                    best = Some((failed, rank, at));
                }
                if failed == 0 {
                    break 'search;
                }
            }
        }
        let (_, rank, at) = best?;
        self.take_at(rank, at)
    }

    fn take_at(&mut self, rank: usize, at: usize) -> Option<Taken<C, T>> {
        let queue = &mut self.ready[rank];
        let Ready { taken, behind } = if at == 0 { queue.pop_front()? } else { queue.remove(at)? };
        if let Some(soon) = queue.get(SOON) {
            prefetch_index(std::slice::from_ref(soon), 0);
        }
        // Read when this one is done.
        if let Some(behind) = behind {
            self.open.prefetch(behind);
        }
        self.held = self.held.saturating_sub(1);
        self.in_flight += 1;
        Some(taken)
    }

    /// A message that is soon [taken](Self::take), if nothing more urgent comes: so many places after the next one.
    pub fn ahead(&self, places: usize) -> Option<&T> {
        self.ready.iter().rev().find_map(|queue| queue.get(places)).map(|ready| &ready.taken.message)
    }

    /// A message that was taken is handled; the next of its lane becomes ready. The next of its conversation, if it
    /// waits already, [`follows`](Taken::follows) what is told here.
    pub fn done(&mut self, lane: Lane<C>, follows: Option<u64>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.advance(lane, follows);
    }

    /// Lets the next of a lane come.
    fn advance(&mut self, lane: Lane<C>, follows: Option<u64>) {
        if let Some((Waiting { rank, since, message }, behind)) = self.open.advance(&lane) {
            // The next of the whole agent is of another conversation.
            let follows = follows.filter(|_| matches!(lane, Lane::Conversation(_)));
            self.make_ready(Taken { lane, rank, since, follows, message }, behind);
        }
    }

    /// A message that was taken was not handled and is to be handled again, before any other of its lane. It
    /// was accepted before, so the bound does not apply.
    pub fn put_back(&mut self, taken: Taken<C, T>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.held = self.held.saturating_add(1);
        self.ready[taken.rank as usize].push_front(Ready { taken, behind: None });
    }

    /// The same, not before a time. Its lane stays shut; all others go on.
    pub fn defer(&mut self, taken: Taken<C, T>, due: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.held = self.held.saturating_add(1);
        self.wait_until(due, taken);
    }

    /// Puts a message that was tried before into its lane, as [`defer`](Self::defer) left it: for a mailbox that
    /// is filled again. Its place was kept; it waits since `since`.
    pub fn push_again(&mut self, conversation: C, rank: Rank, since: u64, due: u64, message: T) {
        let lane = match self.order {
            Order::Conversation => Lane::Conversation(conversation),
            Order::Agent => Lane::Agent,
            Order::None => Lane::Free,
        };
        if let Some(Waiting { rank, since, message }) = self.open.enter(&lane, Waiting { rank, since, message }) {
            self.wait_until(due, Taken { lane, rank, since, follows: None, message });
        }
    }

    /// Keeps places for messages that were sent for later and are due by now, at most so many: up to half of the mailbox
    /// is for them. Beyond that there is a place for one when another message has just left (`one_left`), so that they
    /// never make the mailbox fuller than it is.
    pub fn reserve_due(&mut self, most: u32, one_left: bool) -> u32 {
        let half = self.depth.div_ceil(2);
        let free = match half.saturating_sub(self.held) {
            0 => u32::from(one_left && self.held < self.depth),
            free => free,
        };
        let places = free.min(most);
        self.held += places;
        places
    }

    /// Lets come what is due by now, but at most so many. Gives when the next is due, which may be already.
    pub fn release_due(&mut self, now: u64, most: usize) -> Option<u64> {
        for _ in 0..most {
            if self.later.peek().is_none_or(|first| first.due > now) {
                break;
            }
            let Later { taken, .. } = self.later.pop()?;
            self.make_ready(taken, None);
        }
        self.next_due()
    }

    /// When the next attempt is due of those that wait for one.
    pub fn next_due(&self) -> Option<u64> {
        self.later.peek().map(|first| first.due)
    }

    /// Everything that waits, in no order.
    pub fn messages(&self) -> impl Iterator<Item = &T> {
        let ready = self.ready.iter().flatten().map(|ready| &ready.taken.message);
        let behind = self.open.waiting();
        let later = self.later.iter().map(|later| &later.taken.message);
        ready.chain(behind).chain(later)
    }

    /// Takes out everything that waits, for a mailbox that ends: what waits behind another comes in its order.
    pub fn drain(&mut self) -> Vec<T> {
        let mut out: Vec<T> = Vec::with_capacity(self.waiting());
        for Ready { taken, .. } in self.ready.iter_mut().flat_map(std::mem::take) {
            out.push(taken.message);
            out.extend(self.open.shut(&taken.lane).into_iter().map(|waiting| waiting.message));
        }
        out.extend(self.open.drain().map(|waiting| waiting.message));
        for later in std::mem::take(&mut self.later) {
            out.push(later.taken.message);
            drop(self.open.shut(&later.taken.lane));
        }
        self.held = self.held.saturating_sub(u32::try_from(out.len()).unwrap_or(u32::MAX));
        out
    }

    /// Takes out what waits and is over; the next of its lane comes in its place. Takes time in proportion to all that
    /// waits.
    pub fn expire(&mut self, mut is_over: impl FnMut(&T) -> bool) -> Vec<T> {
        let (mut over, mut advance) = (Vec::new(), Vec::new());
        self.open.expire(&mut over, &mut is_over);
        for queue in &mut self.ready {
            if queue.iter().any(|ready| is_over(&ready.taken.message)) {
                for ready in std::mem::take(queue) {
                    if is_over(&ready.taken.message) {
                        over.push(ready.taken.message);
                        advance.push((ready.taken.lane, ready.taken.follows));
                    } else {
                        queue.push_back(ready);
                    }
                }
            }
        }
        let message = |later: &Later<C, T>| is_over(&later.taken.message);
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.later).into_iter().partition(message);
        self.later = stay.into();
        for Later { taken, .. } in gone {
            over.push(taken.message);
            advance.push((taken.lane, taken.follows));
        }
        advance.into_iter().for_each(|(lane, follows)| self.advance(lane, follows));
        self.held = self.held.saturating_sub(u32::try_from(over.len()).unwrap_or(u32::MAX));
        over
    }

    /// How many wait, reservations included.
    #[allow(clippy::misnamed_getters, reason = "the field `depth` is the bound; this is how deep it is")]
    pub fn depth(&self) -> u32 {
        self.held
    }

    /// How many are being handled.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Returns the number of messages that wait for another attempt.
    pub fn later(&self) -> usize {
        self.later.len()
    }

    /// Since when the message waits that could be handled, or comes after one in hand, and waits longest. Takes time
    /// in proportion to the messages that are ready and the lanes that are open.
    pub fn oldest(&self) -> Option<u64> {
        let ready = self.ready.iter().flatten().map(|ready| ready.taken.since);
        let behind = self.open.first();
        ready.chain(behind).min()
    }

    /// Whether [`take`](Self::take) would give one.
    pub fn has_ready(&self) -> bool {
        self.ready.iter().any(|queue| !queue.is_empty())
    }

    fn waiting(&self) -> usize {
        let ready = self.ready.iter().map(VecDeque::len).sum::<usize>();
        ready + self.open.len() + self.later.len()
    }
}

#[cfg(test)]
mod tests;
