//! The memory that the host holds for others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The memory that the host holds for others, within its budget (`host.memory`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct HostMemory {
    /// The bound in bytes.
    pub(crate) limit_bytes: u64,
    /// The bytes in use.
    pub(crate) used_bytes: u64,
    /// Set while requests for memory wait or are refused, and for 10 s after.
    pub(crate) is_short: bool,
    /// The bytes in use by kind, such as `instances`, `messages` and `bodies`.
    pub(crate) by_kind: BTreeMap<String, u64>,
    /// The requests for memory that wait.
    pub(crate) waiting: u64,
    /// The requests that were refused since the host started, by what they were for: `copies`, `connections`, `calls`,
    /// `instances` or `work`.
    pub(crate) refused: BTreeMap<String, u64>,
}
