//! The answer of a revision to a message: its reply and its effects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The result of handling a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The fields of the reply beside the content, such as the performative, by name.
    pub head: BTreeMap<String, String>,
    /// The reply, if there is one, or the reason of a failure.
    pub reply: Result<Option<Content>, String>,
    /// The effects, in order; none of them was committed.
    pub effects: Vec<Effect>,
}

/// The content of a message or a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The media type.
    pub content_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// An effect of a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A write to state.
    Set {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// A deletion from state.
    Delete {
        /// The key.
        key: String,
    },
    /// A time to live for a written key.
    Expire {
        /// The key.
        key: String,
        /// The time to live, in milliseconds.
        for_ms: u64,
    },
    /// An increment in state.
    Increment {
        /// The key.
        key: String,
        /// The increment.
        by: i64,
    },
    /// A sent message.
    Send {
        /// The receiver.
        receiver: String,
        /// The performative.
        performative: String,
        /// The content.
        content: Content,
        /// The delay, in milliseconds.
        after_ms: Option<u64>,
    },
    /// A cancelled timer.
    Cancel {
        /// The timer's id or name.
        timer: String,
    },
    /// A request that waited for its answer.
    Request {
        /// The receiver.
        receiver: String,
        /// The performative.
        performative: String,
        /// The content.
        content: Content,
    },
    /// A call over HTTP.
    Call {
        /// The method, and the URL without its query.
        line: String,
        /// Set if the call was not made, because it is one of a copy.
        refused: bool,
    },
}

/// A difference between two answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerDifference {
    /// The path in the answer.
    pub path: String,
    /// The value of stable, for people to read; `None` if it has none there.
    pub stable: Option<String>,
    /// The value of the candidate, likewise.
    pub candidate: Option<String>,
}
