//! Messages that are not due yet.

use std::cmp::Ordering;
use std::hash::Hash;

use super::{Mailbox, Rank, Taken};

/// A message that is not due yet.
#[derive(Debug)]
pub(super) struct Later<C, T> {
    pub(super) due: u64,
    pub(super) count: u64,
    pub(super) what: What<C, T>,
}

#[derive(Debug)]
pub(super) enum What<C, T> {
    /// It comes to its conversation when it is due.
    Arrives(C, Rank, T),
    /// It was tried already, and its lane is shut for it.
    Again(Taken<C, T>),
}

impl<C, T> PartialEq for Later<C, T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<C, T> Eq for Later<C, T> {}

impl<C, T> PartialOrd for Later<C, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<C, T> Ord for Later<C, T> {
    /// The heap gives the greatest first, and that is what is due first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.count).cmp(&(self.due, self.count))
    }
}

impl<C: Clone + Eq + Hash, T> Mailbox<C, T> {
    /// Gives messages that are not due yet another time, where `due` has one for them. Takes time in proportion to all that
    /// is not due.
    pub fn reschedule(&mut self, mut due: impl FnMut(&mut T) -> Option<u64>) {
        let mut later = std::mem::take(&mut self.later).into_vec();
        for waits in &mut later {
            if let What::Arrives(_, _, message) = &mut waits.what
                && let Some(due) = due(message)
            {
                waits.due = due;
            }
        }
        self.later = later.into();
    }
}
