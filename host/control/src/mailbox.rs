//! The order in which an agent's messages are handled.
//!
//! ```text
//! reserve -> push --> waits behind its conversation --> ready -> take -> in flight -> done
//!    |                                                             ^                    |
//!    '-> release                                                   '----- put_back -----'
//! ```
//! Every step takes the same time whatever the depth and the number of conversations.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use crate::desired::Order;

/// A mailbox that holds as many messages as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the mailbox holds {depth} messages, as many as it may")]
pub struct Full {
    /// The bound.
    pub depth: u32,
}

/// Messages that wait, with the conversations that are under way.
///
/// `C` names a conversation, `T` is a message. A conversation is *open* while one of its messages is ready or
/// in flight; its further messages wait behind that one.
#[derive(Debug)]
pub struct Mailbox<C, T> {
    order: Order,
    depth: u32,
    /// Messages and reservations that count against the depth: all but those in flight.
    held: u32,
    in_flight: u32,
    ready: VecDeque<(Lane<C>, T)>,
    open: HashMap<Lane<C>, VecDeque<T>>,
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

impl<C: Clone + Eq + Hash, T> Mailbox<C, T> {
    /// An empty mailbox.
    pub fn new(order: Order, depth: u32) -> Self {
        Self { order, depth, held: 0, in_flight: 0, ready: VecDeque::new(), open: HashMap::new() }
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

    /// Gives up a place that was kept.
    pub fn release(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// Puts a message in the place that was kept for it.
    pub fn push(&mut self, conversation: C, message: T) {
        let lane = match self.order {
            Order::Conversation => Lane::Conversation(conversation),
            Order::Agent => Lane::Agent,
            Order::None => Lane::Free,
        };
        if lane == Lane::Free {
            self.ready.push_back((lane, message));
        } else if let Some(behind) = self.open.get_mut(&lane) {
            behind.push_back(message);
        } else {
            self.open.insert(lane.clone(), VecDeque::new());
            self.ready.push_back((lane, message));
        }
    }

    /// The next message that may be handled. Its lane is shut until [`done`](Self::done) or
    /// [`put_back`](Self::put_back).
    pub fn take(&mut self) -> Option<(Lane<C>, T)> {
        let next = self.ready.pop_front()?;
        self.held = self.held.saturating_sub(1);
        self.in_flight += 1;
        Some(next)
    }

    /// A message that was taken is handled; the next of its lane becomes ready.
    pub fn done(&mut self, lane: Lane<C>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if lane == Lane::Free {
            return;
        }
        match self.open.get_mut(&lane).map(VecDeque::pop_front) {
            Some(Some(next)) => self.ready.push_back((lane, next)),
            Some(None) => {
                self.open.remove(&lane);
            }
            None => {}
        }
    }

    /// A message that was taken was not handled and is to be handled again, before any other of its lane. It
    /// was accepted before, so the bound does not apply.
    pub fn put_back(&mut self, lane: Lane<C>, message: T) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.held = self.held.saturating_add(1);
        self.ready.push_front((lane, message));
    }

    /// Takes out everything that waits, for a mailbox that ends.
    pub fn drain(&mut self) -> Vec<T> {
        let mut out: Vec<T> = Vec::with_capacity(self.waiting());
        for (lane, message) in std::mem::take(&mut self.ready) {
            out.push(message);
            if let Some(behind) = self.open.remove(&lane) {
                out.extend(behind);
            }
        }
        for behind in self.open.values_mut() {
            out.extend(std::mem::take(behind));
        }
        self.held = self.held.saturating_sub(u32::try_from(out.len()).unwrap_or(u32::MAX));
        out
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

    /// Whether [`take`](Self::take) would give one.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn waiting(&self) -> usize {
        self.ready.len() + self.open.values().map(VecDeque::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn filled(order: Order, messages: &[(&'static str, u32)]) -> Mailbox<&'static str, u32> {
        let mut mailbox = Mailbox::new(order, 100);
        for (conversation, message) in messages {
            mailbox.reserve().unwrap();
            mailbox.push(*conversation, *message);
        }
        mailbox
    }

    #[test]
    fn one_of_a_conversation_at_a_time_and_several_conversations_at_once() {
        let mut mailbox = filled(Order::Conversation, &[("a", 1), ("a", 2), ("b", 3)]);
        let (a, first) = mailbox.take().unwrap();
        let (_, other) = mailbox.take().unwrap();
        assert_eq!((first, other), (1, 3));
        assert!(mailbox.take().is_none(), "2 waits for 1");
        mailbox.done(a);
        assert_eq!(mailbox.take().unwrap().1, 2);
    }

    #[test]
    fn orders_are_what_they_say() {
        for (order, at_once) in [(Order::Conversation, 2), (Order::Agent, 1), (Order::None, 3)] {
            let mut mailbox = filled(order, &[("a", 1), ("a", 2), ("b", 3)]);
            let taken = std::iter::from_fn(|| mailbox.take()).count();
            assert_eq!(taken, at_once, "{order:?}");
        }
    }

    #[test]
    fn the_bound_counts_what_waits_and_what_is_reserved() {
        let mut mailbox = Mailbox::new(Order::None, 2);
        mailbox.reserve().unwrap();
        mailbox.push("a", 1);
        mailbox.reserve().unwrap();
        assert_eq!(mailbox.reserve(), Err(Full { depth: 2 }));
        mailbox.release();
        assert_eq!(mailbox.reserve(), Ok(()));
        assert_eq!(mailbox.reserve(), Err(Full { depth: 2 }));
        mailbox.take().unwrap();
        assert_eq!(mailbox.reserve(), Ok(()), "what is in flight does not wait");
    }

    #[test]
    fn what_is_put_back_comes_first_again() {
        let mut mailbox = filled(Order::Conversation, &[("a", 1), ("a", 2)]);
        let (lane, message) = mailbox.take().unwrap();
        mailbox.put_back(lane, message);
        let (lane, message) = mailbox.take().unwrap();
        assert_eq!(message, 1);
        mailbox.done(lane);
        assert_eq!(mailbox.take().unwrap().1, 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Take,
        Done(usize),
        PutBack(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u8..5).prop_map(Step::Push),
            3 => Just(Step::Take),
            2 => (0usize..8).prop_map(Step::Done),
            1 => (0usize..8).prop_map(Step::PutBack),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_nothing_is_doubled_and_order_holds(steps in steps(), depth in 1u32..20) {
            let mut mailbox = Mailbox::new(Order::Conversation, depth);
            let (mut next, mut accepted, mut handled) = (0u32, 0usize, 0usize);
            let mut flight: Vec<(Lane<u8>, (u8, u32))> = Vec::new();
            let mut last: BTreeMap<u8, u32> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Push(conversation) => {
                        if mailbox.reserve().is_ok() {
                            next += 1;
                            accepted += 1;
                            mailbox.push(conversation, (conversation, next));
                        }
                    }
                    Step::Take => {
                        if let Some((lane, message)) = mailbox.take() {
                            prop_assert!(flight.iter().all(|(other, _)| *other != lane), "two at once");
                            prop_assert!(last.get(&message.0).is_none_or(|l| *l < message.1), "out of order");
                            flight.push((lane, message));
                        }
                    }
                    Step::Done(at) if !flight.is_empty() => {
                        let (lane, message) = flight.swap_remove(at % flight.len());
                        last.insert(message.0, message.1);
                        handled += 1;
                        mailbox.done(lane);
                    }
                    Step::PutBack(at) if !flight.is_empty() => {
                        let (lane, message) = flight.swap_remove(at % flight.len());
                        mailbox.put_back(lane, message);
                    }
                    Step::Done(_) | Step::PutBack(_) => {}
                }
                prop_assert_eq!(accepted, handled + flight.len() + mailbox.waiting());
                prop_assert_eq!(mailbox.depth() as usize, mailbox.waiting());
                prop_assert_eq!(mailbox.in_flight() as usize, flight.len());
            }
            prop_assert_eq!(mailbox.drain().len() + handled + flight.len(), accepted);
        }
    }
}
