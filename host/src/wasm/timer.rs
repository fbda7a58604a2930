//! Timers as a guest speaks of them: by what it names a message of its own that is delivered later, and how it cancels one.

use uuid::Uuid;

use super::guest::Ctx;
use super::{Envelope, wit};

/// By what an agent names a timer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TimerName {
    /// The id of the message.
    Id(String),
    /// The name that it was given.
    Name(String),
}

impl TimerName {
    /// Returns what a text names: a name never has the form of an id.
    pub(crate) fn of(text: String) -> Self {
        if is_id(&text) { Self::Id(text) } else { Self::Name(text) }
    }

    /// Returns true if it names this message.
    pub(crate) fn names(&self, envelope: &Envelope) -> bool {
        match self {
            Self::Id(id) => envelope.waits && *id == envelope.message.id,
            Self::Name(name) => envelope.timer.as_ref() == Some(name),
        }
    }

    /// The text that names it.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::Name(text) => text,
        }
    }
}

/// Returns true for a text that has the form of a message's id.
pub(crate) fn is_id(text: &str) -> bool {
    Uuid::try_parse(text).is_ok()
}

/// Refuses a name for messages that are sent to several: it is of one.
pub(super) fn check_unnamed(draft: &wit::Draft) -> Result<(), wit::SendError> {
    let is_timer = !matches!(draft.delivery, wit::Delivery::Now);
    if is_timer && draft.headers.iter().any(|(name, _)| name == "timer") {
        let why = "`headers`: what is broadcast has no name as a timer, since a name is of one message";
        return Err(wit::SendError::Invalid(why.to_owned()));
    }
    Ok(())
}

/// A timer that a handler cancels.
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    /// Which.
    pub(crate) timer: TimerName,
    /// The id of the timer that the handler was told of; none if it was told that there is none.
    pub(crate) found: Option<String>,
    /// Set if the handler was told what the store has. Another answer at the commit is a conflict then.
    pub(crate) told: bool,
}

impl Ctx {
    /// Collects that a timer of this agent is to go. Says whether there is one, sent by this call or before.
    pub(super) fn cancel_timer(&self, timer: TimerName) -> Result<bool, wit::SendError> {
        self.may_send(1)?;
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
