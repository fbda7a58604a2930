//! Rows of the journals of calls over HTTP.

/// The calls over HTTP of messages that wait or are given up. A call is named by its message, the hash of its request and
/// its number among those of that hash.
#[derive(Debug, PartialEq)]
pub(crate) enum JournalRow<'a> {
    /// Adds a call that begins, in place of one that began before.
    Begun { seq: u64, hash: [u8; 32], nth: u32, line: &'a str, at: u64 },
    /// Sets the outcome of a call: a status, or 0 for a response that was too large.
    Ended { seq: u64, hash: [u8; 32], nth: u32, outcome: u16, response: &'a [u8] },
    /// Removes a call of which no byte left the host.
    CallRemoved { seq: u64, hash: [u8; 32], nth: u32 },
    /// Removes the calls of a message that is handled.
    Removed { seq: u64 },
    /// Moves the calls of a dead letter to the message that it becomes.
    Moved { from: u64, to: u64 },
}
