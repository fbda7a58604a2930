//! How the tasks of a host are.

use serde::{Deserialize, Serialize};

/// A task or thread of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct TaskStatus {
    /// Its name, such as `reconciler`.
    pub(crate) name: String,
    /// `runs`, `stands still` or `ended`.
    pub(crate) state: String,
    /// How often it died and was made again.
    pub(crate) restarts: u64,
    /// Why it died last; null if it never did.
    pub(crate) reason: Option<String>,
}
