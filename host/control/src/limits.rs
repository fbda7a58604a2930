//! The limits of an agent's resources.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The table `limits`: the resources of the agent (SPEC §5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The sum of linear memories and tables of one instance, in bytes.
    pub memory_bytes: u64,
    /// The time on a core for one message.
    #[serde(with = "crate::units::serde_duration")]
    pub cpu: Duration,
    /// The instructions for one message, counted exactly; `None` leaves the limit to `cpu`.
    pub fuel: Option<u64>,
    /// The wall-clock time for one message, waits included.
    #[serde(with = "crate::units::serde_duration")]
    pub time: Duration,
    /// The content of one message, in and out, in bytes.
    pub message_bytes: u64,
    /// The messages sent while handling one message.
    pub sends: u32,
    /// The writes to state while handling one message.
    pub writes: u32,
    /// The contents sent and values written while handling one message, in bytes.
    pub effects_bytes: u64,
    /// The whole state of the agent, keys and values, in bytes.
    pub state_bytes: u64,
    /// The pending timers and delayed messages of the agent.
    pub timers: u32,
    /// The length of the chain of messages that caused one.
    pub hops: u32,
    /// The lines per second in the agent's log; further ones are counted and dropped.
    pub log_lines: u32,
}
