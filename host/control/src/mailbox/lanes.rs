//! What is under way, and what waits behind it.

use std::collections::hash_map::Entry;
use std::hash::Hash;

use ahash::AHashMap;

use super::chains::{Chains, Ends, Place};
use super::{Lane, Mailbox, Waiting};

/// Lanes that are open: one of their messages is ready, in flight or to be handled again.
///
/// A mailbox may have as many as there are conversations, and looks at one of them with each message. So an entry is as
/// small as can be.
#[derive(Debug)]
pub(super) struct Lanes<C, T> {
    conversations: AHashMap<C, Behind>,
    agent: Option<Behind>,
    waiting: Chains<T>,
}

/// Messages that wait behind another, if any do.
type Behind = Option<Ends>;

impl<C, T> Default for Lanes<C, T> {
    fn default() -> Self {
        Self { conversations: AHashMap::new(), agent: None, waiting: Chains::default() }
    }
}

impl<C: Clone + Eq + Hash, T> Lanes<C, T> {
    /// A message comes: it waits if its lane is open, and else opens it and is given back.
    pub(super) fn enter(&mut self, lane: &Lane<C>, message: Waiting<T>) -> Option<Waiting<T>> {
        let behind = match lane {
            Lane::Free => return Some(message),
            Lane::Agent => match &mut self.agent {
                Some(behind) => behind,
                closed @ None => {
                    *closed = Some(None);
                    return Some(message);
                }
            },
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

    /// The next of a lane, and where the one after it waits; a lane that has none is shut.
    pub(super) fn advance(&mut self, lane: &Lane<C>) -> Option<(Waiting<T>, Option<Place>)> {
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
                    open.remove();
                }
                Some((next?, after))
            }
        }
    }

    /// Lets the processor fetch what [`advance`](Self::advance) said comes after.
    pub(super) fn prefetch(&self, place: Place) {
        self.waiting.prefetch(place);
    }

    /// The same for what [`enter`](Self::enter) needs.
    pub(super) fn prefetch_end(&self, conversation: &C) {
        if let Some(Some(ends)) = self.conversations.get(conversation) {
            self.waiting.prefetch_end(*ends);
        }
    }

    /// Shuts a lane; gives what waited in it.
    pub(super) fn shut(&mut self, lane: &Lane<C>) -> Vec<Waiting<T>> {
        let behind = match lane {
            Lane::Free => None,
            Lane::Agent => self.agent.take(),
            Lane::Conversation(name) => self.conversations.remove(name),
        };
        self.waiting.clear(&mut behind.flatten())
    }

    /// Takes out all that waits, each lane in its order; the lanes stay open.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting<T>> {
        let Self { conversations, agent, waiting } = self;
        conversations.values_mut().chain(agent).flat_map(|behind| waiting.clear(behind))
    }

    /// Takes out what waits and is over.
    pub(super) fn expire(&mut self, over: &mut Vec<T>, is_over: &mut impl FnMut(&T) -> bool) {
        for behind in self.conversations.values_mut().chain(&mut self.agent) {
            self.waiting.expire(behind, over, is_over);
        }
    }

    /// All that waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Since when what comes next of each lane waits.
    pub(super) fn first(&self) -> impl Iterator<Item = u64> {
        let behind = self.conversations.values().chain(&self.agent);
        behind.filter_map(|behind| self.waiting.of(*behind).next()).map(|(since, _)| since)
    }

    /// Whether none is open.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.conversations.is_empty() && self.agent.is_none()
    }
}

impl<C: Clone + Eq + Hash, T> Mailbox<C, T> {
    /// Whether a message of a conversation is ready, in flight or to be handled again, as far as its messages are handled
    /// one at a time.
    pub fn is_open(&self, conversation: &C) -> bool {
        self.open.conversations.contains_key(conversation)
    }

    /// Whether another message of its conversation waits behind one of this lane.
    pub fn has_behind(&self, lane: &Lane<C>) -> bool {
        match lane {
            Lane::Free | Lane::Agent => false,
            Lane::Conversation(name) => matches!(self.open.conversations.get(name), Some(Some(_))),
        }
    }
}
