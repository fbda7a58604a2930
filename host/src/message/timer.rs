//! Timers: messages with a delivery to come, which their sender may cancel by id or name.

use super::envelope::Envelope;
use super::id::is_id;

/// The id or the name of a timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimerName {
    /// The id of the message.
    Id(String),
    /// The name that the sender gave it.
    Name(String),
}

impl TimerName {
    /// Parses an id or a name. A name never has the form of an id.
    pub(crate) fn of(text: String) -> Self {
        if is_id(&text) { Self::Id(text) } else { Self::Name(text) }
    }

    /// Returns `true` if it refers to this message.
    pub(crate) fn names(&self, envelope: &Envelope) -> bool {
        match self {
            Self::Id(id) => envelope.waits && *id == envelope.message.id,
            Self::Name(name) => envelope.timer.as_ref() == Some(name),
        }
    }

    /// Returns the id or the name.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::Name(text) => text,
        }
    }
}

/// A timer that a handler cancels.
#[derive(Debug, Clone)]
pub(crate) struct TimerCancel {
    /// The timer to cancel.
    pub(crate) timer: TimerName,
    /// The id of the timer that the handler was told of; `None` if it was told that there is none.
    pub(crate) found: Option<String>,
    /// Set if the handler got an answer from the store. A different answer at commit is a conflict.
    pub(crate) was_reported: bool,
}
