//! The shape of a stateful agent's memory.

use serde::{Deserialize, Serialize};

/// The saving of a stateful agent's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Memory)]
pub(crate) struct MemoryStatus {
    /// The setting `snapshot.save`.
    pub(crate) save: String,
    /// The setting in force: another one while the memory is not part of commits, although it is declared so.
    pub(crate) in_force: String,
    /// The reason for another one; null if there is none.
    pub(crate) deferred: Option<String>,
    /// The size in bytes of what its instance saved last; 0 before.
    pub(crate) saved_bytes: u64,
    /// The messages that the instance has handled and that are in no saved memory: what a crash would cost.
    pub(crate) unsaved_messages: u64,
    /// The time since the first of them, in milliseconds; null if there are none.
    pub(crate) unsaved_ms: Option<u64>,
}
