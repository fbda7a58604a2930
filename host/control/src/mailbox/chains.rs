//! Chains of messages in one piece of memory.

use std::num::NonZeroU32;

use prefetch_index::prefetch_index;

use super::{Rank, Waiting};

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(NonZeroU32);

impl Place {
    fn of(index: usize) -> Self {
        let next = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(next.expect("so many messages are in no memory"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The messages of one chain: the first, and the last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// What leaves next.
    pub(super) first: Place,
    last: Place,
}

/// Messages that wait in chains.
///
/// Who knows a place can have it [fetched](Self::prefetch) long before it is read: of many chains with many messages
/// each, neither the first nor the last of one is in any cache when its turn comes.
#[derive(Debug)]
pub(super) struct Chains<T> {
    nodes: Vec<Node<T>>,
    /// Places without a message, the one that got empty last first.
    free: Option<Place>,
    used: usize,
}

/// A [`Waiting`] with its place in a chain; made so that it takes no more room than half of what the processor fetches at
/// once.
#[derive(Debug)]
struct Node<T> {
    message: Option<T>,
    since: u64,
    /// What comes behind it; of a place without a message, the next of those.
    next: Option<Place>,
    rank: Rank,
}

impl<T> Node<T> {
    /// Takes the message.
    fn take(&mut self) -> Option<Waiting<T>> {
        Some(Waiting { rank: self.rank, since: self.since, message: self.message.take()? })
    }
}

impl<T> Default for Chains<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: None, used: 0 }
    }
}

impl<T> Chains<T> {
    /// Places that stay for the next messages when there are none any more.
    const KEPT: usize = 1_024;

    /// Adds a message to the end of a chain.
    pub(super) fn push(&mut self, chain: &mut Option<Ends>, waiting: Waiting<T>) {
        let Waiting { rank, since, message } = waiting;
        let node = Node { message: Some(message), since, next: None, rank };
        let place = match self.free {
            Some(place) => {
                let free = &mut self.nodes[place.index()];
                self.free = free.next;
                *free = node;
                // For the next message.
                if let Some(next) = self.free {
                    self.prefetch(next);
                }
                place
            }
            None => {
                self.nodes.push(node);
                Place::of(self.nodes.len() - 1)
            }
        };
        self.used += 1;
        let first = match chain {
            Some(ends) => {
                self.nodes[ends.last.index()].next = Some(place);
                ends.first
            }
            None => place,
        };
        *chain = Some(Ends { first, last: place });
    }

    /// Takes the first message of a chain.
    pub(super) fn pop(&mut self, chain: &mut Option<Ends>) -> Option<Waiting<T>> {
        let ends = chain.as_mut()?;
        let place = ends.first;
        let node = &mut self.nodes[place.index()];
        let waiting = node.take();
        let next = std::mem::replace(&mut node.next, self.free);
        self.free = Some(place);
        self.used -= 1;
        match next {
            Some(next) => ends.first = next,
            None => *chain = None,
        }
        if self.used == 0 && self.nodes.len() > Self::KEPT {
            *self = Self::default();
        }
        waiting
    }

    /// Takes out all messages of a chain, in their order.
    pub(super) fn clear(&mut self, chain: &mut Option<Ends>) -> Vec<Waiting<T>> {
        std::iter::from_fn(|| self.pop(chain)).collect()
    }

    /// Takes out those messages of a chain that are over.
    pub(super) fn expire(&mut self, chain: &mut Option<Ends>, over: &mut Vec<T>, is_over: &mut impl FnMut(&T) -> bool) {
        if !self.of(*chain).any(|(_, message)| is_over(message)) {
            return;
        }
        for waiting in self.clear(chain) {
            if is_over(&waiting.message) { over.push(waiting.message) } else { self.push(chain, waiting) }
        }
    }

    /// The messages of a chain in their order, and since when each waits.
    pub(super) fn of(&self, chain: Option<Ends>) -> impl Iterator<Item = (u64, &T)> {
        let mut next = chain.map(|ends| ends.first);
        std::iter::from_fn(move || {
            let node = &self.nodes[next?.index()];
            next = node.next;
            Some((node.since, node.message.as_ref()?))
        })
    }

    /// All messages of all chains, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().filter_map(|node| node.message.as_ref())
    }

    /// How many messages there are.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Lets the processor fetch a message that leaves soon. The place may be another's by now, or nobody's.
    pub(super) fn prefetch(&self, place: Place) {
        prefetch_index(&self.nodes, place.index());
    }

    /// Lets the processor fetch the end of a chain, to which something is added soon.
    pub(super) fn prefetch_end(&self, chain: Ends) {
        self.prefetch(chain.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_messages_take_no_more_than_the_processor_fetches_at_once() {
        assert_eq!(size_of::<Node<Box<[u8]>>>(), 32);
    }

    #[test]
    fn what_a_burst_took_is_given_back() {
        let (mut chains, mut one, mut other) = (Chains::default(), None, None);
        for message in 0..2 * Chains::<Box<usize>>::KEPT {
            let waiting = Waiting { rank: Rank::Normal, since: 0, message: Box::new(message) };
            chains.push(if message % 3 == 0 { &mut one } else { &mut other }, waiting);
        }
        assert_eq!(chains.clear(&mut other).len() + chains.clear(&mut one).len(), 2 * Chains::<Box<usize>>::KEPT);
        assert_eq!((chains.len(), chains.nodes.capacity()), (0, 0));
    }
}
