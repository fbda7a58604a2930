//! Shapes of dead letters.

use serde::{Deserialize, Serialize};

/// A message that was given up, without what it says and what went wrong each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Dead)]
pub(crate) struct DeadLetterStatus {
    /// Names the dead letter, for `redeliver` and `drop`.
    pub(crate) number: u64,
    /// The message's id.
    pub(crate) id: String,
    /// The agent that should have handled it.
    pub(crate) agent: String,
    /// The sender.
    pub(crate) sender: String,
    /// The communicative act.
    pub(crate) performative: String,
    /// The conversation.
    pub(crate) conversation: String,
    /// The time at which it was sent, in milliseconds since 1970.
    pub(crate) sent_at: u64,
    /// The time at which it was given up, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The reason as a stable code.
    pub(crate) reason: String,
    /// The reason for a person.
    pub(crate) error: String,
    /// The number of attempts.
    pub(crate) tried: u64,
    /// The failure of the last attempt as a stable code such as `trap`; none when it was never tried.
    pub(crate) code: Option<String>,
    /// The revision that tried last, such as `triage@7`; none when it was never tried.
    pub(crate) revision: Option<String>,
    /// The media type of its content.
    pub(crate) content_type: String,
    /// Bytes of its content.
    pub(crate) bytes: u64,
}

/// A failed attempt to handle a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Attempt)]
pub(crate) struct AttemptStatus {
    /// Counts the attempts, from 1.
    pub(crate) number: u32,
    /// The start of the attempt, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The revision that ran, such as `triage@7`.
    pub(crate) revision: String,
    /// The stable code of the failure, such as `trap`.
    pub(crate) code: String,
    /// The failure for a person, with the backtrace of a trap.
    pub(crate) error: String,
    /// The duration by the clock, in microseconds.
    pub(crate) took_us: u64,
    /// The time on a core, in microseconds.
    pub(crate) cpu_us: u64,
}

/// A call over HTTP in the journal of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = RecordedCall)]
pub(crate) struct RecordedCallStatus {
    /// The method, and scheme, host and port.
    pub(crate) call: String,
    /// The time at which it began, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The status of the response, or a text that says that none is recorded.
    pub(crate) outcome: String,
}

/// The count of the dead letters of one agent and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = DeadCount)]
pub(crate) struct DeadLetterCount {
    /// The agent.
    pub(crate) agent: String,
    /// The reason as a stable code.
    pub(crate) reason: String,
    /// The number of dead letters.
    pub(crate) count: u64,
    /// Bytes of their contents.
    pub(crate) bytes: u64,
    /// The time at which the oldest was given up, in milliseconds since 1970.
    pub(crate) oldest: u64,
}
