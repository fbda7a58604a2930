//! The linked lists of messages in one allocation.

use std::num::NonZeroU32;

use prefetch_index::prefetch_index;

use super::message::{Priority, Waiting};

/// The position of a message; one more than its index, so that an `Option` of it takes no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeIndex(NonZeroU32);

impl NodeIndex {
    fn of(index: usize) -> Self {
        // One more than the index, since zero is the niche of the `Option`.
        let next = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Self(next.expect("a mailbox holds fewer than 2^32 messages"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The first and the last message of a list.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListEnds {
    /// The message that leaves next.
    pub(super) first: NodeIndex,
    last: NodeIndex,
}

/// Messages queued in lists.
///
/// The caller that holds a place can [prefetch](Self::prefetch) it long before it is read: with many lists of many
/// messages, neither end of a list is in a cache when its turn comes.
#[derive(Debug)]
pub(super) struct ListArena<T> {
    nodes: Vec<ArenaNode<T>>,
    /// The free list: places without a message, the last freed one first.
    free: Option<NodeIndex>,
    used: usize,
}

/// A [`Waiting`] with its link in a list, laid out to take no more than half a cache line.
#[derive(Debug)]
struct ArenaNode<T> {
    message: Option<T>,
    since: u64,
    /// The next message of the list; for a free place, the next free one.
    next: Option<NodeIndex>,
    rank: Priority,
}

impl<T> ArenaNode<T> {
    /// Takes the message out and leaves the link.
    fn take(&mut self) -> Option<Waiting<T>> {
        Some(Waiting { rank: self.rank, since: self.since, message: self.message.take()? })
    }
}

impl<T> Default for ListArena<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: None, used: 0 }
    }
}

impl<T> ListArena<T> {
    /// The most places that stay allocated without a message; a larger allocation, left over from a burst, is freed.
    // About 32 KiB of nodes: too little to matter beside an instance, and enough for the usual bursts.
    const KEPT: usize = 1_024;

    /// Appends a message to a list.
    pub(super) fn push(&mut self, list: &mut Option<ListEnds>, waiting: Waiting<T>) {
        let Waiting { rank, since, message } = waiting;
        let node = ArenaNode { message: Some(message), since, next: None, rank };
        let index = match self.free {
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
                NodeIndex::of(self.nodes.len() - 1)
            }
        };
        self.used += 1;
        let first = match list {
            Some(ends) => {
                self.nodes[ends.last.index()].next = Some(index);
                ends.first
            }
            None => index,
        };
        *list = Some(ListEnds { first, last: index });
    }

    /// Removes and returns the first message of a list.
    pub(super) fn pop(&mut self, list: &mut Option<ListEnds>) -> Option<Waiting<T>> {
        let ends = list.as_mut()?;
        let index = ends.first;
        let node = &mut self.nodes[index.index()];
        let waiting = node.take();
        // The freed place is reused first, while it is still in the cache.
        let next = std::mem::replace(&mut node.next, self.free);
        self.free = Some(index);
        self.used -= 1;
        match next {
            Some(next) => ends.first = next,
            None => *list = None,
        }
        // Places are indexes into the vector, so it can shrink only when it is empty.
        if self.used == 0 && self.nodes.len() > Self::KEPT {
            *self = Self::default();
        }
        waiting
    }

    /// Removes and returns all messages of a list, in order.
    pub(super) fn clear(&mut self, list: &mut Option<ListEnds>) -> Vec<Waiting<T>> {
        // One by one, so that each node joins the free list.
        std::iter::from_fn(|| self.pop(list)).collect()
    }

    /// Moves the messages of a list for which `is_over` holds to `over`; the rest keeps its order.
    pub(super) fn expire(
        &mut self,
        list: &mut Option<ListEnds>,
        over: &mut Vec<T>,
        is_over: &mut impl FnMut(&T) -> bool,
    ) {
        // Relinking moves every message of the list, so a list without an expired one is left alone.
        if !self.of(*list).any(|(_, message)| is_over(message)) {
            return;
        }
        for waiting in self.clear(list) {
            if is_over(&waiting.message) { over.push(waiting.message) } else { self.push(list, waiting) }
        }
    }

    /// Returns the messages of a list in order, each with the time since which it waits.
    pub(super) fn of(&self, list: Option<ListEnds>) -> impl Iterator<Item = (u64, &T)> {
        let mut next = list.map(|ends| ends.first);
        std::iter::from_fn(move || {
            let node = &self.nodes[next?.index()];
            next = node.next;
            Some((node.since, node.message.as_ref()?))
        })
    }

    /// Returns the messages of all lists, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        // In the order of memory, without a link to follow.
        self.nodes.iter().filter_map(|node| node.message.as_ref())
    }

    /// Returns the number of messages in all lists.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Prefetches a message that leaves soon. The place may be free or reused by now: then the prefetch is only wasted.
    pub(super) fn prefetch(&self, index: NodeIndex) {
        prefetch_index(&self.nodes, index.index());
    }

    /// Prefetches the end of a list, where a message is added soon.
    pub(super) fn prefetch_end(&self, list: ListEnds) {
        self.prefetch(list.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_messages_fit_in_a_cache_line() {
        assert_eq!(size_of::<ArenaNode<Box<[u8]>>>(), 32);
    }

    #[test]
    fn memory_of_a_burst_is_freed() {
        let (mut lists, mut one, mut other) = (ListArena::default(), None, None);
        for message in 0..2 * ListArena::<Box<usize>>::KEPT {
            let waiting = Waiting { rank: Priority::Normal, since: 0, message: Box::new(message) };
            lists.push(if message % 3 == 0 { &mut one } else { &mut other }, waiting);
        }
        assert_eq!(lists.clear(&mut other).len() + lists.clear(&mut one).len(), 2 * ListArena::<Box<usize>>::KEPT);
        assert_eq!((lists.len(), lists.nodes.capacity()), (0, 0));
    }
}
