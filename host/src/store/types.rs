//! The plain types that are kept beside messages and state.

use std::sync::Arc;

use bytes::Bytes;

/// The memory of a stateful agent, in bytes of its own choosing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The number of the revision that saved it.
    pub(crate) revision: u64,
    /// The time, in milliseconds since 1970.
    pub(crate) saved_at: u64,
    /// The bytes that it saved.
    pub(crate) data: Bytes,
}

/// An event, for people and programs to follow.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Event {
    /// Counts the events of a store; 0 until it is kept.
    pub(crate) id: i64,
    /// The time, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The agent; `None` for the host itself.
    pub(crate) agent: Option<String>,
    /// The kind, such as `revision.state`.
    pub(crate) kind: String,
    /// The rest.
    pub(crate) data: serde_json::Value,
}

/// A revision, as kept.
#[derive(Debug, Clone)]
pub(crate) struct RevisionRecord {
    /// The agent.
    pub(crate) agent: Arc<str>,
    /// The number.
    pub(crate) number: u64,
    /// The digest of its bytes.
    pub(crate) digest: String,
    /// The settings, as JSON.
    pub(crate) settings: String,
    /// The time at which it was made, in milliseconds since 1970.
    pub(crate) created_at: u64,
}
