//! What is under way, and what waits behind it.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use ahash::AHashMap;

use super::{Lane, Waiting};

/// Lanes that are open: one of their messages is ready, in flight or to be handled again.
///
/// A mailbox may have as many as there are conversations, and looks at one of them with each message. So an entry is as
/// small as can be: most have nothing that waits.
#[derive(Debug)]
pub(super) struct Lanes<C, T> {
    conversations: AHashMap<C, Behind<T>>,
    agent: Option<Behind<T>>,
}

/// Messages that wait behind another, in their order; none for as long as there never was one.
type Behind<T> = Option<Box<VecDeque<Waiting<T>>>>;

impl<C, T> Default for Lanes<C, T> {
    fn default() -> Self {
        Self { conversations: AHashMap::new(), agent: None }
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
        behind.get_or_insert_default().push_back(message);
        None
    }

    /// The next of a lane; a lane that has none is shut.
    pub(super) fn advance(&mut self, lane: &Lane<C>) -> Option<Waiting<T>> {
        match lane {
            Lane::Free => None,
            Lane::Agent => {
                let next = self.agent.as_mut()?.as_mut().and_then(|behind| behind.pop_front());
                if next.is_none() {
                    self.agent = None;
                }
                next
            }
            Lane::Conversation(name) => {
                let Entry::Occupied(mut open) = self.conversations.entry(name.clone()) else { return None };
                let next = open.get_mut().as_mut().and_then(|behind| behind.pop_front());
                if next.is_none() {
                    open.remove();
                }
                next
            }
        }
    }

    /// Shuts a lane; gives what waited in it.
    pub(super) fn shut(&mut self, lane: &Lane<C>) -> impl Iterator<Item = Waiting<T>> + use<C, T> {
        let behind = match lane {
            Lane::Free => None,
            Lane::Agent => self.agent.take(),
            Lane::Conversation(name) => self.conversations.remove(name),
        };
        behind.flatten().into_iter().flat_map(|behind| *behind)
    }

    /// Takes out all that waits; the lanes stay open.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiting<T>> {
        self.queues_mut().flat_map(std::mem::take)
    }

    /// All that waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Waiting<T>> {
        self.queues().flatten()
    }

    /// What comes next of each lane.
    pub(super) fn first(&self) -> impl Iterator<Item = &Waiting<T>> {
        self.queues().filter_map(VecDeque::front)
    }

    fn queues(&self) -> impl Iterator<Item = &VecDeque<Waiting<T>>> {
        self.conversations.values().chain(&self.agent).filter_map(Option::as_deref)
    }

    /// What waits in each lane.
    pub(super) fn queues_mut(&mut self) -> impl Iterator<Item = &mut VecDeque<Waiting<T>>> {
        self.conversations.values_mut().chain(&mut self.agent).filter_map(Option::as_deref_mut)
    }

    /// Whether none is open.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.conversations.is_empty() && self.agent.is_none()
    }
}
