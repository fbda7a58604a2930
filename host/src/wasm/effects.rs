//! What one call of a guest collects, to be committed or dropped by whoever made the call.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::Sent;

/// A write that was collected: a new value, or none to remove the key.
pub(crate) type Write = Option<Bytes>;

/// What one call collects.
#[derive(Default)]
pub(crate) struct Effects {
    /// Messages to be sent, in order.
    pub(crate) sends: Vec<Sent>,
    /// Keys to be written.
    pub(crate) writes: BTreeMap<String, Write>,
    /// Keys that were read from the store, with the version seen; 0 where there was none.
    pub(crate) reads: BTreeMap<String, u64>,
    /// Whether something was seen that is not safe yet.
    pub(crate) ahead: bool,
    /// How many writes were made, repeated ones included.
    pub(super) write_count: u32,
    /// Whether the effects were taken already, so that no more can be added.
    pub(super) closed: bool,
}

impl Effects {
    /// Makes ready for another call.
    pub(super) fn reset(&mut self) {
        self.sends.clear();
        self.writes.clear();
        self.reads.clear();
        self.ahead = false;
        self.write_count = 0;
        self.closed = false;
    }
}
