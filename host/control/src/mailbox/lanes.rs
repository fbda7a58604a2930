//! The open lanes of a mailbox, and the messages that queue behind each.

use std::collections::hash_map::Entry;
use std::hash::Hash;

use ahash::AHashMap;

use super::arena::{ListArena, ListEnds, NodeIndex};
use super::message::{Lane, Waiting};

/// The open lanes: one message of each is ready, in flight or deferred.
///
/// A mailbox may have one for each conversation and looks one up with each message, so an entry is kept as small as
/// possible.
#[derive(Debug)]
pub(super) struct Lanes<C, T> {
    // Faster than the standard hash, and keyed at random too: callers choose the names of conversations.
    conversations: AHashMap<C, Behind>,
    agent: Option<Behind>,
    waiting: ListArena<T>,
}

/// The chain of messages queued in an open lane; `None` if there are none.
type Behind = Option<ListEnds>;

impl<C, T> Default for Lanes<C, T> {
    fn default() -> Self {
        Self { conversations: AHashMap::new(), agent: None, waiting: ListArena::default() }
    }
}

impl<C: Clone + Eq + Hash, T> Lanes<C, T> {
    /// Queues a message if its lane is open; otherwise opens the lane and returns the message.
    pub(super) fn enter(&mut self, lane: &Lane<C>, message: Waiting<T>) -> Option<Waiting<T>> {
        let behind = match lane {
            // Never open: no message waits for one without an order.
            Lane::Free => return Some(message),
            Lane::Agent => match &mut self.agent {
                Some(behind) => behind,
                closed @ None => {
                    *closed = Some(None);
                    return Some(message);
                }
            },
            // One lookup for both cases, as the map may be as large as the number of conversations.
            Lane::Conversation(name) => match self.conversations.entry(name.clone()) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(closed) => {
                    closed.insert(None);
                    return Some(message);
                }
            },
        };
        self.waiting.push(behind, message);
        None
    }

    /// Removes the next message of a lane and returns it with the place of the one after it. Closes a lane that has
    /// none.
    pub(super) fn advance(&mut self, lane: &Lane<C>) -> Option<(Waiting<T>, Option<NodeIndex>)> {
        match lane {
            Lane::Free => None,
            Lane::Agent => {
                let behind = self.agent.as_mut()?;
                let next = self.waiting.pop(behind);
                let after = behind.map(|ends| ends.first);
                if next.is_none() {
                    self.agent = None;
                }
                Some((next?, after))
            }
            Lane::Conversation(name) => {
                let Entry::Occupied(mut open) = self.conversations.entry(name.clone()) else { return None };
                let next = self.waiting.pop(open.get_mut());
                let after = open.get().map(|ends| ends.first);
                if next.is_none() {
                    // An idle conversation must leave the map, which would grow without bound otherwise.
                    open.remove();
                }
                Some((next?, after))
            }
        }
    }

    /// Prefetches the message at a place that [`advance`](Self::advance) returned.
    pub(super) fn prefetch(&self, index: NodeIndex) {
        self.waiting.prefetch(index);
    }

    /// Prefetches what [`enter`](Self::enter) will write for a conversation.
    pub(super) fn prefetch_end(&self, conversation: &C) {
        if let Some(Some(ends)) = self.conversations.get(conversation) {
            self.waiting.prefetch_end(*ends);
        }
    }

    /// Closes a lane and returns the messages that were queued in it.
    pub(super) fn shut(&mut self, lane: &Lane<C>) -> Vec<Waiting<T>> {
        let behind = match lane {
            Lane::Free => None,
            Lane::Agent => self.agent.take(),
            Lane::Conversation(name) => self.conversations.remove(name),
        };
        self.waiting.clear(&mut behind.flatten())
    }

    /// Removes and returns all queued messages, each lane in its order; the lanes stay open.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting<T>> {
        // Taken apart, so that the lists are borrowed beside the arena.
        let Self { conversations, agent, waiting } = self;
        conversations.values_mut().chain(agent).flat_map(|behind| waiting.clear(behind))
    }

    /// Moves the queued messages for which `is_over` holds to `over`.
    pub(super) fn expire(&mut self, over: &mut Vec<T>, is_over: &mut impl FnMut(&T) -> bool) {
        for behind in self.conversations.values_mut().chain(&mut self.agent) {
            self.waiting.expire(behind, over, is_over);
        }
    }

    /// Returns all queued messages, in no order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter()
    }

    /// Returns the number of queued messages.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns, for the next message of each lane, the time since which it waits.
    pub(super) fn first(&self) -> impl Iterator<Item = u64> {
        let behind = self.conversations.values().chain(&self.agent);
        behind.filter_map(|behind| self.waiting.of(*behind).next()).map(|(since, _)| since)
    }

    /// Returns `true` if a conversation's lane is open.
    pub(super) fn is_open(&self, conversation: &C) -> bool {
        self.conversations.contains_key(conversation)
    }

    /// Returns `true` if messages of a conversation are queued behind the one that holds its lane.
    pub(super) fn has_behind(&self, conversation: &C) -> bool {
        matches!(self.conversations.get(conversation), Some(Some(_)))
    }

    /// Returns `true` if no lane is open.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.conversations.is_empty() && self.agent.is_none()
    }
}
