//! The journals of calls over HTTP as the store has them.

use std::sync::Arc;

use caxton_control::journal::{CallKey, CallOutcome};
use futures::future::BoxFuture;

/// A call as the store has it, without the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredCall {
    /// The identity.
    pub(crate) key: CallKey,
    /// The outcome.
    pub(crate) outcome: CallOutcome,
    /// The method, and scheme, host and port.
    pub(crate) line: String,
    /// The time at which it began, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The bytes of the stored response.
    pub(crate) bytes: u64,
}

/// The rows of journals. A trait, because the store is built on messages and not the reverse.
pub(crate) trait JournalRows: Send + Sync {
    /// Notes that a call begins; returns when that is durable.
    fn begin(self: Arc<Self>, place: JournalPlace, call: StoredCall) -> BoxFuture<'static, Result<(), String>>;
    /// Notes the outcome of a call, with the encoded response; returns when that is durable.
    fn end(
        self: Arc<Self>,
        place: JournalPlace,
        key: CallKey,
        outcome: CallOutcome,
        response: Vec<u8>,
    ) -> BoxFuture<'static, Result<(), String>>;
    /// Forgets a call of which no byte left the host; returns when readers find it gone.
    fn forget(self: Arc<Self>, place: JournalPlace, key: CallKey) -> BoxFuture<'static, ()>;
    /// Returns the calls of a message.
    fn calls(&self, seq: u64) -> Result<Box<[StoredCall]>, String>;
    /// Returns the encoded response of a call.
    fn response(&self, seq: u64, key: CallKey) -> Result<Option<Vec<u8>>, String>;
}

/// The place of a journal in the store.
#[derive(Debug, Clone)]
pub(crate) struct JournalPlace {
    /// The agent, among whose commits its rows are written.
    pub(crate) agent: Arc<str>,
    /// The sequence number of the message.
    pub(crate) seq: u64,
}
