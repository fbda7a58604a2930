//! A conversation that is in the database alone, as memory has it.

/// The place of a conversation that is in the database alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evicted {
    /// The row.
    pub(super) row: u64,
    /// The time of its latest message.
    pub(super) last: u64,
    /// The number of messages.
    pub(super) messages: u64,
    /// Set if it is as the host left it that ran before.
    pub(super) is_older: bool,
}
