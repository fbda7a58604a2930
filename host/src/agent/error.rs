//! The reasons for which a message is refused.

use std::time::Duration;

use crate::message::SendError;

/// The reason for which a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdmitError {
    /// An unknown name, or a capability that no running agent has.
    #[error("no running agent is `{0}`")]
    UnknownReceiver(String),
    /// The sender's grants do not name the receiver.
    #[error("`{sender}` may not send to `{receiver}`: `agents.{sender}.allow.send` does not name it")]
    NotAllowed {
        /// The agent that wanted to send.
        sender: String,
        receiver: String,
    },
    /// The content is too large, for the sender or for the receiver.
    #[error("the message is larger than {limit} bytes (limits.message)")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The mailbox is full.
    #[error("the mailbox holds {limit} messages, as many as it may (mailbox.depth)")]
    Full {
        /// The bound.
        limit: u32,
    },
    /// A receiver with as many timers as may wait (`limits.timers`).
    #[error("{bound} messages wait for `{agent}` until a time to come, as many as may (limits.timers)")]
    TooManyTimers {
        /// The receiver.
        agent: String,
        /// The bound.
        bound: u32,
    },
    /// The chain of messages is too long.
    #[error("the message has more than {limit} hops (limits.hops)")]
    TooManyHops {
        /// The bound.
        limit: u32,
    },
    /// A limit of the budget of its tree would be passed; the text names it.
    #[error("{0}")]
    OverBudget(String),
    /// A part of the message is not as it has to be.
    #[error("{0}")]
    Invalid(String),
    /// The receiver takes nothing at the moment.
    #[error("the agent takes no messages: {0}")]
    Unavailable(&'static str),
    /// The receiver failed again and again, and is left alone for a while.
    #[error("the agent failed again and again; it is left alone for another {} s (breaker)", after.as_secs())]
    BreakerOpen {
        /// The time until the next trial.
        after: Duration,
    },
    /// The store failed.
    #[error("the message was not accepted: {0}")]
    NotKept(String),
    /// The idempotency key belongs to another message.
    #[error("the idempotency key was used for another request within the last 24 hours")]
    KeyReused,
    /// The message is not legal in its protocol.
    #[error("{0}")]
    NotUnderstood(String),
}

impl AdmitError {
    /// Returns the stable code of the error.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::UnknownReceiver(_) => "unknown-receiver",
            Self::NotAllowed { .. } => "not-allowed",
            Self::TooLarge { .. } => "too-large",
            Self::Full { .. } => "mailbox-full",
            Self::TooManyHops { .. } => "too-many-hops",
            Self::OverBudget(_) => "budget-exceeded",
            Self::Invalid(_) => "invalid",
            // Only agents set timers, and are told why in words.
            Self::Unavailable(_) | Self::TooManyTimers { .. } => "unavailable",
            Self::BreakerOpen { .. } => "breaker-open",
            Self::NotKept(_) => "not-kept",
            Self::KeyReused => "key-reused",
            Self::NotUnderstood(_) => "not-understood",
        }
    }
}

impl From<AdmitError> for SendError {
    fn from(error: AdmitError) -> Self {
        match error {
            AdmitError::UnknownReceiver(name) => Self::UnknownReceiver(name),
            AdmitError::NotAllowed { receiver, .. } => Self::NotAllowed(receiver),
            AdmitError::TooLarge { limit } => Self::TooLarge(limit),
            AdmitError::Full { limit } => Self::MailboxFull(u64::from(limit)),
            AdmitError::TooManyHops { limit } => Self::TooManyHops(limit),
            AdmitError::Invalid(what) => Self::Invalid(what),
            AdmitError::Unavailable(why) => Self::Unavailable(why.to_owned()),
            // The contract has no case of its own for it; the text begins with the code.
            AdmitError::OverBudget(why) => Self::Unavailable(why),
            AdmitError::TooManyTimers { .. } | AdmitError::BreakerOpen { .. } | AdmitError::NotKept(_) => {
                Self::Unavailable(error.to_string())
            }
            AdmitError::NotUnderstood(why) => Self::Invalid(why),
            // Only clients have such keys.
            AdmitError::KeyReused => Self::Invalid(error.to_string()),
        }
    }
}
