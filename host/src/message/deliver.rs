//! Mailboxes as the senders of messages see them.

use std::any::Any;
use std::sync::Arc;

use super::envelope::Envelope;

/// A mailbox that reserves a place for a message before it is delivered.
///
/// A trait, because messages carry their mailbox with them through the code that runs guests and through the store,
/// which do not know agents.
pub(crate) trait Deliver: Any + Send + Sync {
    /// Puts a message into its reserved place. Returns `true` if a worker has to be started for it, which is counted
    /// already: the caller calls [`work`](Self::work).
    fn put(&self, envelope: Box<Envelope>) -> bool;
    /// Starts the worker for messages that were put.
    fn work(self: Arc<Self>);
    /// Reserves a place beyond the mailbox's bound, for a message that must not be refused.
    fn reserve_beyond(&self);
    /// Releases a reserved place.
    fn release(&self);
    /// Returns the mailbox of the agent of this name, if it has one that accepts messages.
    fn other(&self, agent: &str) -> Option<Arc<dyn Deliver>>;
}
