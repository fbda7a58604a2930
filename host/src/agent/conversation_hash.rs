//! The hash by which mailboxes, splits of traffic and deadlocks know a conversation.

use std::sync::LazyLock;

use ahash::RandomState;

/// The hasher of conversations' names. Two that share a hash are handled in one order, which costs time and nothing
/// else.
pub(super) static CONVERSATIONS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Returns the hash of a conversation's name.
pub(crate) fn conversation_hash(name: &str) -> u64 {
    CONVERSATIONS.hash_one(name)
}
