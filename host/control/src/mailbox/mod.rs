//! The mailbox of an agent: the order in which its messages are handled.
//!
//! ```text
//! reserve -> push --> waits behind its conversation --> ready -> take -> in flight -> done
//!    |                                                    ^ ^                |
//!    '-> release          later (not before its time) ----' '--- put_back ---+
//!                           ^                                                |
//!                           '---------------------------------- defer -------'
//! ```
//! A deferred message queues behind those that are ready when it is due: one that fails every time takes its turn like
//! the others and cannot occupy the whole agent.
//!
//! Every step of a message takes constant time, independent of the depth and the number of conversations; only
//! deferring costs the logarithm of the number of deferred messages. Times are milliseconds of any clock. A message
//! sent for later is not in the mailbox before it is due.

use std::collections::{BinaryHeap, VecDeque};
use std::hash::Hash;

use prefetch_index::prefetch_index;

use self::arena::NodeIndex;
use self::deferred::Deferred;
use self::lanes::Lanes;
use self::message::Waiting;

use crate::desired::MailboxOrder;

mod arena;
mod deferred;
mod lanes;
mod message;

pub use message::{Lane, Priority, TakenMessage};

/// The error for a mailbox at its depth limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox holds {limit} messages, as many as it may")]
pub struct MailboxFull {
    /// The depth limit.
    pub limit: u32,
}

/// The wait that gains a message another point, in milliseconds.
const POINT_MS: u64 = 1_000;
/// The distance from the front of a queue at which a ready message is prefetched, far enough ahead for the memory
/// access to end.
const PREFETCH_DISTANCE: usize = 8;

/// The queued messages of an agent.
///
/// `C` names a conversation, `T` is a message. A conversation is *open* while one of its messages is ready, in flight
/// or deferred; its further messages queue behind that one.
#[derive(Debug)]
pub struct Mailbox<C, T> {
    order: MailboxOrder,
    /// The number of messages that may be held, `mailbox.depth`.
    limit: u32,
    /// Messages and reservations that count against the depth: all but those in flight.
    occupied: u32,
    in_flight: u32,
    /// The ready messages by priority; each queue in the order in which they became ready.
    ready: [VecDeque<Ready<C, T>>; Priority::ALL.len()],
    lanes: Lanes<C, T>,
    deferred: BinaryHeap<Deferred<C, T>>,
    /// The number of deferrals so far; keeps messages with the same due time in order.
    deferral_count: u64,
}

/// A message that may be handled now.
#[derive(Debug)]
struct Ready<C, T> {
    item: TakenMessage<C, T>,
    /// The place of the next message of its lane at the time when this one became ready, to prefetch it.
    behind: Option<NodeIndex>,
}

impl<C: Clone + Eq + Hash, T> Mailbox<C, T> {
    /// Creates an empty mailbox.
    pub fn new(order: MailboxOrder, limit: u32) -> Self {
        Self {
            order,
            limit,
            occupied: 0,
            in_flight: 0,
            ready: Default::default(),
            lanes: Lanes::default(),
            deferred: BinaryHeap::new(),
            deferral_count: 0,
        }
    }

    /// Applies changed settings in place. Queued messages keep the order under which they came.
    pub fn configure(&mut self, order: MailboxOrder, limit: u32) {
        // Lanes are kept: the queued messages were promised the order of their arrival.
        self.order = order;
        self.limit = limit;
    }

    /// Reserves a place for a message.
    ///
    /// # Errors
    /// The mailbox is full.
    pub fn reserve(&mut self) -> Result<(), MailboxFull> {
        // Not `==`: the limit may have been lowered, and `reserve_beyond` exceeds it.
        if self.occupied >= self.limit {
            return Err(MailboxFull { limit: self.limit });
        }
        self.occupied += 1;
        Ok(())
    }

    /// Reserves a place beyond the limit, for a message that can no longer be refused: it was accepted before, or its
    /// receiver has to get it.
    pub fn reserve_beyond(&mut self) {
        self.occupied = self.occupied.saturating_add(1);
    }

    /// Gives up a reserved place.
    pub fn release(&mut self) {
        // A count that is too low accepts one message too many; an underflow would refuse all of them.
        self.occupied = self.occupied.saturating_sub(1);
    }

    /// Queues a message in its reserved place; it waits since `since`.
    pub fn push(&mut self, conversation: C, rank: Priority, since: u64, message: T) {
        let lane = match self.order {
            MailboxOrder::Conversation => Lane::Conversation(conversation),
            MailboxOrder::Agent => Lane::Agent,
            MailboxOrder::None => Lane::Free,
        };
        if let Some(Waiting { rank, since, message }) = self.lanes.enter(&lane, Waiting { rank, since, message }) {
            self.make_ready(TakenMessage { lane, rank, since, follows: None, message }, None);
        }
    }

    /// Prefetches the memory that a [`push`](Self::push) for this conversation will touch.
    pub fn prefetch(&self, conversation: &C) {
        if let MailboxOrder::Conversation = self.order {
            self.lanes.prefetch_end(conversation);
        }
    }

    fn wait_until(&mut self, due: u64, taken: TakenMessage<C, T>) {
        // The number breaks ties, as a heap keeps no order of equal elements.
        self.deferral_count += 1;
        self.deferred.push(Deferred { due, count: self.deferral_count, item: taken });
    }

    fn make_ready(&mut self, taken: TakenMessage<C, T>, behind: Option<NodeIndex>) {
        self.ready[taken.rank as usize].push_back(Ready { item: taken, behind });
    }

    /// Takes the most urgent message that may be handled, waiting time included. Its lane is blocked until
    /// [`done`](Self::done), [`put_back`](Self::put_back) or [`defer`](Self::defer).
    pub fn take(&mut self, now: u64) -> Option<TakenMessage<C, T>> {
        let score = |ready: &Ready<C, T>| {
            // In milliseconds, so that waiting counts continuously and not in whole seconds.
            (ready.item.rank.points() * POINT_MS).saturating_add(now.saturating_sub(ready.item.since))
        };
        // Only the fronts compete: within a rank, messages go in the order in which they became ready.
        let best = self.ready.iter().enumerate().filter_map(|(rank, queue)| Some((score(queue.front()?), rank))).max();
        self.take_at(best?.1, 0)
    }

    /// Takes the message for a trial, whose result shows if the agent works again: the one with the fewest failures, and
    /// of those the most urgent. Takes time in proportion to the ready messages that have failed.
    pub fn take_trial(&mut self, failures: impl Fn(&T) -> u32) -> Option<TakenMessage<C, T>> {
        let mut best: Option<(u32, usize, usize)> = None;
        // From the most urgent rank, so that among equals the first one found is the most urgent.
        'search: for (rank, queue) in self.ready.iter().enumerate().rev() {
            for (at, ready) in queue.iter().enumerate() {
                let failed = failures(&ready.item.message);
                if best.is_none_or(|(least, ..)| failed < least) {
                    best = Some((failed, rank, at));
                }
                if failed == 0 {
                    // No message can have fewer failures, and the more urgent ranks were searched before.
                    break 'search;
                }
            }
        }
        let (_, rank, at) = best?;
        self.take_at(rank, at)
    }

    fn take_at(&mut self, rank: usize, at: usize) -> Option<TakenMessage<C, T>> {
        let queue = &mut self.ready[rank];
        let Ready { item: taken, behind } = if at == 0 { queue.pop_front()? } else { queue.remove(at)? };
        if let Some(soon) = queue.get(PREFETCH_DISTANCE) {
            prefetch_index(std::slice::from_ref(soon), 0);
        }
        // Read when this message is done.
        if let Some(behind) = behind {
            self.lanes.prefetch(behind);
        }
        // The depth bounds what waits, so a message in flight frees its place.
        self.occupied = self.occupied.saturating_sub(1);
        self.in_flight += 1;
        Some(taken)
    }

    /// Returns the message that will be [taken](Self::take) `places` after the next one if nothing more urgent comes.
    pub fn peek_ahead(&self, places: usize) -> Option<&T> {
        self.ready.iter().rev().find_map(|queue| queue.get(places)).map(|ready| &ready.item.message)
    }

    /// Ends a message that was taken; the next of its lane becomes ready. If the next of its conversation is queued
    /// already, it [`follows`](TakenMessage::follows) the value given here.
    pub fn done(&mut self, lane: Lane<C>, follows: Option<u64>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.advance(lane, follows);
    }

    /// Makes the next message of a lane ready, or closes the lane.
    fn advance(&mut self, lane: Lane<C>, follows: Option<u64>) {
        if let Some((Waiting { rank, since, message }, behind)) = self.lanes.advance(&lane) {
            // In the order of the whole agent the next message belongs to another conversation.
            let follows = follows.filter(|_| matches!(lane, Lane::Conversation(_)));
            self.make_ready(TakenMessage { lane, rank, since, follows, message }, behind);
        }
    }

    /// Returns a message that was taken and not handled to the front: it comes before any other of its lane. The limit
    /// does not apply, since it was accepted before.
    pub fn put_back(&mut self, taken: TakenMessage<C, T>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.occupied = self.occupied.saturating_add(1);
        // A taken message does not know the one behind it; without it only a prefetch is lost.
        self.ready[taken.rank as usize].push_front(Ready { item: taken, behind: None });
    }

    /// Does the same, but not before `due`. The lane of the message stays blocked; all others go on.
    pub fn defer(&mut self, taken: TakenMessage<C, T>, due: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.occupied = self.occupied.saturating_add(1);
        self.wait_until(due, taken);
    }

    /// Queues a message that was tried before, in the state in which [`defer`](Self::defer) left it, when a mailbox is
    /// loaded from the store. Its place is reserved; it waits since `since`.
    pub fn push_deferred(&mut self, conversation: C, rank: Priority, since: u64, due: u64, message: T) {
        let lane = match self.order {
            MailboxOrder::Conversation => Lane::Conversation(conversation),
            MailboxOrder::Agent => Lane::Agent,
            MailboxOrder::None => Lane::Free,
        };
        if let Some(Waiting { rank, since, message }) = self.lanes.enter(&lane, Waiting { rank, since, message }) {
            self.wait_until(due, TakenMessage { lane, rank, since, follows: None, message });
        }
    }

    /// Reserves places for up to `most` messages that were sent for later and are due now, and returns their number.
    /// They may fill half of the mailbox. Beyond that one gets a place only when another message has just left
    /// (`one_left`), so that they never make the mailbox fuller than it is and new messages are still accepted.
    pub fn reserve_due(&mut self, most: u32, one_left: bool) -> u32 {
        // The other half is for messages that are sent now, whose senders would get an error.
        let half = self.limit.div_ceil(2);
        let free = match half.saturating_sub(self.occupied) {
            0 => u32::from(one_left && self.occupied < self.limit),
            free => free,
        };
        let places = free.min(most);
        self.occupied += places;
        places
    }

    /// Moves up to `most` due messages to the ready queues. Returns the next due time, which may be in the past if
    /// there were more. O(log n) for each message.
    pub fn release_due(&mut self, now: u64, most: usize) -> Option<u64> {
        // Bounded, so that a burst of due messages does not hold the others up for long.
        for _ in 0..most {
            if self.deferred.peek().is_none_or(|first| first.due > now) {
                break;
            }
            let Deferred { item: taken, .. } = self.deferred.pop()?;
            self.make_ready(taken, None);
        }
        self.next_due()
    }

    /// Returns the time at which the next deferred message is due.
    pub fn next_due(&self) -> Option<u64> {
        self.deferred.peek().map(|first| first.due)
    }

    /// Returns all queued messages, in no order.
    pub fn messages(&self) -> impl Iterator<Item = &T> {
        let ready = self.ready.iter().flatten().map(|ready| &ready.item.message);
        let behind = self.lanes.waiting();
        let deferred = self.deferred.iter().map(|deferred| &deferred.item.message);
        ready.chain(behind).chain(deferred)
    }

    /// Removes and returns all queued messages, when the mailbox ends. Messages behind one another stay in order.
    pub fn drain(&mut self) -> Vec<T> {
        let mut out: Vec<T> = Vec::with_capacity(self.waiting());
        // Each ready message is followed by its lane, which keeps the order within a conversation.
        for Ready { item: taken, .. } in self.ready.iter_mut().flat_map(std::mem::take) {
            out.push(taken.message);
            out.extend(self.lanes.shut(&taken.lane).into_iter().map(|waiting| waiting.message));
        }
        // The lanes themselves stay open: their messages in flight end after this and close them.
        out.extend(self.lanes.drain().map(|waiting| waiting.message));
        for deferred in std::mem::take(&mut self.deferred) {
            out.push(deferred.item.message);
            // Empty by now, and no message is left that would close it.
            drop(self.lanes.shut(&deferred.item.lane));
        }
        self.occupied = self.occupied.saturating_sub(u32::try_from(out.len()).unwrap_or(u32::MAX));
        out
    }

    /// Removes and returns the queued messages for which `is_over` holds; the next of each lane takes their place.
    /// Takes time in proportion to all queued messages.
    pub fn expire(&mut self, mut is_over: impl FnMut(&T) -> bool) -> Vec<T> {
        let (mut over, mut advance) = (Vec::new(), Vec::new());
        self.lanes.expire(&mut over, &mut is_over);
        for queue in &mut self.ready {
            // Most queues have none, and rebuilding one moves all its messages.
            if queue.iter().any(|ready| is_over(&ready.item.message)) {
                for ready in std::mem::take(queue) {
                    if is_over(&ready.item.message) {
                        over.push(ready.item.message);
                        advance.push((ready.item.lane, ready.item.follows));
                    } else {
                        queue.push_back(ready);
                    }
                }
            }
        }
        let message = |deferred: &Deferred<C, T>| is_over(&deferred.item.message);
        let (gone, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.deferred).into_iter().partition(message);
        self.deferred = stay.into();
        for Deferred { item: taken, .. } in gone {
            over.push(taken.message);
            advance.push((taken.lane, taken.follows));
        }
        // The next messages of these lanes were checked first, so none of them has expired.
        advance.into_iter().for_each(|(lane, follows)| self.advance(lane, follows));
        self.occupied = self.occupied.saturating_sub(u32::try_from(over.len()).unwrap_or(u32::MAX));
        over
    }

    /// Returns the number of queued messages, reservations included.
    #[allow(clippy::misnamed_getters, reason = "the field `depth` is the limit, the method returns the present depth")]
    pub fn depth(&self) -> u32 {
        self.occupied
    }

    /// Returns the number of messages in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Returns the number of deferred messages.
    pub fn deferred(&self) -> usize {
        self.deferred.len()
    }

    /// Returns the time since which the longest waiting message waits that could be handled now or queues behind one in
    /// flight. Takes time in proportion to the ready messages and the open lanes.
    pub fn oldest(&self) -> Option<u64> {
        let ready = self.ready.iter().flatten().map(|ready| ready.item.since);
        let behind = self.lanes.first();
        ready.chain(behind).min()
    }

    /// Returns `true` if [`take`](Self::take) would return a message.
    pub fn has_ready(&self) -> bool {
        self.ready.iter().any(|queue| !queue.is_empty())
    }

    /// Returns `true` if a message of the conversation is ready, in flight or deferred. Always `false` if conversations
    /// are not handled one message at a time.
    pub fn is_open(&self, conversation: &C) -> bool {
        self.lanes.is_open(conversation)
    }

    /// Returns `true` if another message of the same conversation is queued behind one of this lane.
    pub fn has_behind(&self, lane: &Lane<C>) -> bool {
        match lane {
            Lane::Free | Lane::Agent => false,
            Lane::Conversation(name) => self.lanes.has_behind(name),
        }
    }

    fn waiting(&self) -> usize {
        let ready = self.ready.iter().map(VecDeque::len).sum::<usize>();
        ready + self.lanes.len() + self.deferred.len()
    }
}

#[cfg(test)]
mod tests;
