//! Timers: messages that a guest sends with a delay, and may cancel by id or name.

use uuid::Uuid;

use super::guest::Ctx;
use super::{Envelope, wit};

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

/// Returns `true` for a text in the form of a message id.
pub(crate) fn is_id(text: &str) -> bool {
    Uuid::try_parse(text).is_ok()
}

/// Refuses a timer name on a broadcast: a name belongs to one message.
pub(super) fn check_unnamed(draft: &wit::Draft) -> Result<(), wit::SendError> {
    let is_timer = !matches!(draft.delivery, wit::Delivery::Now);
    if is_timer && draft.headers.iter().any(|(name, _)| name == "timer") {
        let why = "`headers`: a broadcast cannot have a timer name, because a name belongs to one message";
        return Err(wit::SendError::Invalid(why.to_owned()));
    }
    Ok(())
}

/// A timer that a handler cancels.
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    /// The timer to cancel.
    pub(crate) timer: TimerName,
    /// The id of the timer that the handler was told of; `None` if it was told that there is none.
    pub(crate) found: Option<String>,
    /// Set if the handler got an answer from the store. A different answer at commit is a conflict.
    pub(crate) told: bool,
}

impl Ctx {
    /// Collects the cancellation of a timer of this agent. Returns `true` if there is one, sent by this call or before.
    pub(super) fn cancel_timer(&self, timer: TimerName) -> Result<bool, wit::SendError> {
        self.may_send(1)?;
        // A timer of this call is not in the store yet.
        if self.effects.lock().cancel_own(&timer) {
            return Ok(true);
        }
        let found = self.outside().timer(self.who.name(), &timer).map_err(wit::SendError::Unavailable)?;
        let mut effects = self.effects.lock();
        let is_gone = |cancel: &Cancel| cancel.timer == timer || (found.is_some() && cancel.found == found);
        if effects.cancels.iter().any(is_gone) {
            return Ok(false);
        }
        let is_there = found.is_some();
        effects.cancels.push(Cancel { timer, found, told: true });
        Ok(is_there)
    }
}
