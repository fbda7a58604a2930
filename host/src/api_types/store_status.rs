//! The size of the store and of its parts.

use serde::{Deserialize, Serialize};

use super::Quantiles;

/// The store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StoreStatus {
    /// The path of the database.
    pub(crate) path: String,
    /// The version of its tables.
    pub(crate) format: i64,
    /// The size of the database in bytes.
    pub(crate) bytes: u64,
    /// The size of its write-ahead log in bytes, which is copied into the database from time to time.
    pub(crate) log_bytes: u64,
    /// The free bytes within the database: reused, or returned to the system by `caxton store compact`.
    pub(crate) free_bytes: u64,
    /// Messages that wait or are being handled.
    pub(crate) queued: u64,
    /// The number of handled messages that are kept.
    pub(crate) handled: u64,
    /// The bytes of their contents, within `store.history-max`.
    #[serde(default)]
    pub(crate) handled_bytes: u64,
    /// The number of dead letters that are kept.
    pub(crate) dead: u64,
    /// The bytes of their contents, within `store.dead-letters-max`.
    #[serde(default)]
    pub(crate) dead_bytes: u64,
    /// Records of each agent, including those that are not declared any more.
    pub(crate) agents: Vec<AgentRecords>,
    /// Durations of commits since the host started; null if no host runs.
    pub(crate) commits: Option<Quantiles>,
}

/// The records of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AgentKept)]
pub(crate) struct AgentRecords {
    /// The agent's name.
    pub(crate) agent: String,
    /// Messages that wait or are being handled.
    pub(crate) queued: u64,
    /// The number of handled messages.
    pub(crate) handled: u64,
    /// The number of dead letters.
    pub(crate) dead: u64,
    /// The size of its state in bytes.
    pub(crate) state_bytes: u64,
    /// The size of its latest snapshot in bytes.
    pub(crate) snapshot_bytes: u64,
    /// Bytes of the copies of its state that rollouts keep, together.
    #[serde(default)]
    pub(crate) state_copy_bytes: u64,
}
