//! The state of the tasks of a host.

use serde::{Deserialize, Serialize};

/// A task or thread of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct TaskStatus {
    /// The name, such as `reconciler`.
    pub(crate) name: String,
    /// `runs`, `stands still` or `ended`.
    pub(crate) state: String,
    /// The number of restarts after a death.
    pub(crate) restarts: u64,
    /// The reason of its last death; null if it never died.
    pub(crate) reason: Option<String>,
}
