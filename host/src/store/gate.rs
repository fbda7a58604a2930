//! The judge of what commits say in conversations.

use super::commit::ClosedQuestion;
use super::commit_request::CommitRequest;
use super::record::Record;

/// Takes commits into their conversations, in commit order, and may refuse them. The writer asks it and knows nothing
/// of conversations itself: a trait, because the judge is above the store, whose types it takes and gives.
pub(crate) trait CommitGate: Send + Sync {
    /// Takes in a commit: what it sends, the question that it closes, the revision that its conversation is bound to.
    /// A message that is not legal becomes the answer to its sender, `not-understood`.
    ///
    /// # Errors
    /// A message is not legal, and its sender has no mailbox: nothing of the commit is taken in.
    fn check(&self, request: &mut CommitRequest) -> Result<(), String>;

    /// Takes back what a commit said that is not kept. The last commit of a transaction comes first.
    fn undo(&self, request: &mut CommitRequest);

    /// Closes a question that will get no answer, if it is open.
    fn close_question(&self, closed: &ClosedQuestion);

    /// Adds the rows of what has changed since the last call.
    fn push_changed(&self, record: &mut Record<'_>);

    /// Notes that a transaction is written, and all messages up to this sequence number with it.
    fn written(&self, seq: u64);

    /// Notes that a transaction is not written, so that the next one writes its changes again.
    fn not_written(&self);

    /// Returns the sequence number before which an open conversation has no message; 0 if that is not known.
    fn first_seq(&self, conversation: &str) -> u64;
}
