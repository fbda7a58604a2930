//! Messages deferred for another attempt.

use std::cmp::Ordering;

use super::message::TakenMessage;

/// A message that was tried already and is to be tried again at `due`. Its lane is blocked until then.
#[derive(Debug)]
pub(super) struct Deferred<C, T> {
    pub(super) due: u64,
    pub(super) count: u64,
    pub(super) item: TakenMessage<C, T>,
}

impl<C, T> PartialEq for Deferred<C, T> {
    fn eq(&self, other: &Self) -> bool {
        // By the key of the order, as the heap requires; messages need not be comparable.
        self.cmp(other) == Ordering::Equal
    }
}

impl<C, T> Eq for Deferred<C, T> {}

impl<C, T> PartialOrd for Deferred<C, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<C, T> Ord for Deferred<C, T> {
    /// Orders in reverse: the heap returns the greatest entry first, and that has to be the one that is due first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.count).cmp(&(self.due, self.count))
    }
}
