//! Linked lists of messages in one allocation.

use std::num::NonZeroU32;

use prefetch_index::prefetch_index;

use super::{Rank, Waiting};

/// The position of a message; one more than its index, so that an `Option` of it takes no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(NonZeroU32);

impl Place {
    fn of(index: usize) -> Self {
        let next = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(next.expect("a mailbox holds fewer than 2^32 messages"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The first and the last message of a chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// The message that leaves next.
    pub(super) first: Place,
    last: Place,
}

/// Messages queued in chains.
///
/// The caller that holds a place can [prefetch](Self::prefetch) it long before it is read: with many chains of many
/// messages, neither end of a chain is in a cache when its turn comes.
#[derive(Debug)]
pub(super) struct Chains<T> {
    nodes: Vec<Node<T>>,
    /// The free list: places without a message, the last freed one first.
    free: Option<Place>,
    used: usize,
}

/// A [`Waiting`] with its link in a chain, laid out to take no more than half a cache line.
#[derive(Debug)]
struct Node<T> {
    message: Option<T>,
    since: u64,
    /// The next message of the chain; for a free place, the next free one.
    next: Option<Place>,
    rank: Rank,
}

impl<T> Node<T> {
    /// Takes the message out and leaves the link.
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
    /// The most places that stay allocated without a message; a larger allocation, left over from a burst, is freed.
    const KEPT: usize = 1_024;

    /// Appends a message to a chain.
    pub(super) fn push(&mut self, chain: &mut Option<Ends>, waiting: Waiting<T>) {
        let Waiting { rank, since, message } = waiting;
        let node = Node { message: Some(message), since, next: None, rank };
        let place = match self.free {
            Some(place) => {
                let free = &mut self.nodes[place.index()];
                self.free = free.next;
                *free = node;
                // The next push will write there.
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

    /// Removes and returns the first message of a chain.
    pub(super) fn pop(&mut self, chain: &mut Option<Ends>) -> Option<Waiting<T>> {
        let ends = chain.as_mut()?;
        let place = ends.first;
        let node = &mut self.nodes[place.index()];
        let waiting = node.take();
        // The freed place is reused first, while it is still in the cache.
        let next = std::mem::replace(&mut node.next, self.free);
        self.free = Some(place);
        self.used -= 1;
        match next {
            Some(next) => ends.first = next,
            None => *chain = None,
        }
        // Places are indexes into the vector, so it can shrink only when it is empty.
        if self.used == 0 && self.nodes.len() > Self::KEPT {
            *self = Self::default();
        }
        waiting
    }

    /// Removes and returns all messages of a chain, in order.
    pub(super) fn clear(&mut self, chain: &mut Option<Ends>) -> Vec<Waiting<T>> {
        std::iter::from_fn(|| self.pop(chain)).collect()
    }

    /// Moves the messages of a chain for which `is_over` holds to `over`; the rest keeps its order.
    pub(super) fn expire(&mut self, chain: &mut Option<Ends>, over: &mut Vec<T>, is_over: &mut impl FnMut(&T) -> bool) {
        // Relinking moves every message of the chain, so a chain without an expired one is left alone.
        if !self.of(*chain).any(|(_, message)| is_over(message)) {
            return;
        }
        for waiting in self.clear(chain) {
            if is_over(&waiting.message) { over.push(waiting.message) } else { self.push(chain, waiting) }
        }
    }

    /// Returns the messages of a chain in order, each with the time since which it waits.
    pub(super) fn of(&self, chain: Option<Ends>) -> impl Iterator<Item = (u64, &T)> {
        let mut next = chain.map(|ends| ends.first);
        std::iter::from_fn(move || {
            let node = &self.nodes[next?.index()];
            next = node.next;
            Some((node.since, node.message.as_ref()?))
        })
    }

    /// Returns the messages of all chains, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().filter_map(|node| node.message.as_ref())
    }

    /// Returns the number of messages in all chains.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Prefetches a message that leaves soon. The place may be free or reused by now: then the prefetch is only wasted.
    pub(super) fn prefetch(&self, place: Place) {
        prefetch_index(&self.nodes, place.index());
    }

    /// Prefetches the end of a chain, where a message is added soon.
    pub(super) fn prefetch_end(&self, chain: Ends) {
        self.prefetch(chain.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_messages_fit_in_a_cache_line() {
        assert_eq!(size_of::<Node<Box<[u8]>>>(), 32);
    }

    #[test]
    fn memory_of_a_burst_is_freed() {
        let (mut chains, mut one, mut other) = (Chains::default(), None, None);
        for message in 0..2 * Chains::<Box<usize>>::KEPT {
            let waiting = Waiting { rank: Rank::Normal, since: 0, message: Box::new(message) };
            chains.push(if message % 3 == 0 { &mut one } else { &mut other }, waiting);
        }
        assert_eq!(chains.clear(&mut other).len() + chains.clear(&mut one).len(), 2 * Chains::<Box<usize>>::KEPT);
        assert_eq!((chains.len(), chains.nodes.capacity()), (0, 0));
    }
}
