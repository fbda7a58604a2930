//! Messages to other agents, and timers.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::bindings::caxton::agent::messaging;
use crate::message::TIMER;
use crate::messaging::whole_millis;
use crate::reply::millis;
use crate::{Delivery, Draft, Failure, JSON, Message, Performative, Priority, RequestError, SendError, TEXT};

/// ```no_run
/// use caxton_sdk::prelude::*;
/// use std::time::Duration;
///
/// # fn handle(message: Message) -> Handled {
/// // An effect: sent when this handler commits.
/// Draft::to("ledger").text("one more").send()?;
/// // A call: sent at once, and waits for the answer.
/// let answer = Draft::to("cap:weather").json(&["Oslo", "Rome"])?.request(Duration::from_secs(2))?;
/// # Ok(None) }
/// ```
impl Draft {
    /// Creates an `inform` without content to an agent by name, or to `cap:NAME` for any running agent that declares
    /// the capability. It belongs to the conversation of the message being handled.
    ///
    /// An `inform` asks for nothing. A message that needs an answer is sent with another [act](Self::performative),
    /// such as [`Performative::Request`]: if it finally fails, or its conversation ends without an answer, the host
    /// sends a `failure` to this agent.
    pub fn to(receiver: impl Into<String>) -> Self {
        Self {
            receiver: receiver.into(),
            // An `inform` opens no question, so a draft without another act leaves none unanswered.
            performative: Performative::Inform,
            content: Vec::new(),
            // The type that promises nothing, until content is set.
            content_type: String::from("application/octet-stream"),
            ontology: None,
            protocol: None,
            conversation_id: None,
            reply_with: None,
            in_reply_to: None,
            reply_by: None,
            priority: Priority::Normal,
            delivery: Delivery::Now,
            headers: Vec::new(),
        }
    }

    /// Creates a timer: a message to this agent itself that arrives after a delay. Replaces the agent's pending timer
    /// of the same name. Needs no grant.
    ///
    /// ```no_run
    /// use caxton_sdk::prelude::*;
    /// use std::time::Duration;
    ///
    /// # fn handle(message: Message) -> Handled {
    /// if message.timer() == Some("remind") {
    ///     log::info!("half an hour is over");
    /// } else {
    ///     Draft::timer("remind", Duration::from_secs(1_800)).send()?;
    /// }
    /// # Ok(None) }
    /// ```
    pub fn timer(name: impl Into<String>, after: Duration) -> Self {
        // The empty receiver is the agent itself: a component does not know its own name.
        Self::to("").after(after).named(name)
    }

    /// Creates an `inform` to the sender of a message, as an answer to it. To answer the message being handled, return
    /// a [`Reply`](crate::Reply) instead; this is for a later or a second answer.
    pub fn answer_to(message: &Message) -> Self {
        let mut draft = Self::to(&message.sender);
        draft.conversation_id = Some(message.conversation_id.clone());
        // Without the protocol the host would not check the act against it.
        draft.protocol.clone_from(&message.protocol);
        draft.in_reply_to = Some(message.reference().to_owned());
        draft
    }

    /// Sets the performative, the communicative act of the message.
    #[must_use]
    pub fn performative(mut self, performative: Performative) -> Self {
        self.performative = performative;
        self
    }

    /// Sets the content and its media type.
    #[must_use]
    pub fn bytes(mut self, content: impl Into<Vec<u8>>, content_type: impl Into<String>) -> Self {
        self.content = content.into();
        self.content_type = content_type.into();
        self
    }

    /// Sets the content to a text.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.bytes(text.into(), TEXT)
    }

    /// Sets the content to a value as JSON.
    ///
    /// # Errors
    /// A failure with the cause `fault`, when the value has no form in JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, Failure> {
        Ok(self.bytes(serde_json::to_vec(value)?, JSON))
    }

    /// Sets the name of the vocabulary that the content uses.
    #[must_use]
    pub fn ontology(mut self, ontology: impl Into<String>) -> Self {
        self.ontology = Some(ontology.into());
        self
    }

    /// Sets the interaction protocol that the message is part of.
    #[must_use]
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocol = Some(protocol.into());
        self
    }

    /// Sets the conversation, in place of that of the message being handled.
    #[must_use]
    pub fn conversation(mut self, id: impl Into<String>) -> Self {
        self.conversation_id = Some(id.into());
        self
    }

    /// Begins a new conversation with this message; another one for each time that the draft is sent.
    ///
    /// All messages to `cap:NAME` within one conversation go to the same agent. To spread work over all agents with the
    /// capability, send it in conversations of its own.
    ///
    /// ```no_run
    /// use caxton_sdk::prelude::*;
    ///
    /// # fn handle(message: Message) -> Handled {
    /// for page in 0..100 {
    ///     Draft::to("cap:scan").json(&page)?.new_conversation().send()?;
    /// }
    /// # Ok(None) }
    /// ```
    #[must_use]
    pub fn new_conversation(mut self) -> Self {
        self.conversation_id = Some(String::new());
        self
    }

    /// Sets the reference that an answer has to carry in its `in-reply-to`.
    #[must_use]
    pub fn reply_with(mut self, reference: impl Into<String>) -> Self {
        self.reply_with = Some(reference.into());
        self
    }

    /// Marks the message as an answer to `message`.
    #[must_use]
    pub fn in_reply_to(mut self, message: &Message) -> Self {
        self.in_reply_to = Some(message.reference().to_owned());
        self
    }

    /// Sets the time after which an answer is of no use.
    #[must_use]
    pub fn reply_by(mut self, time: SystemTime) -> Self {
        self.reply_by = Some(millis(time));
        self
    }

    /// Sets the urgency with which the message is served.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Delays the message: it is handled no earlier than `delay` after it is sent. Survives a restart of the host.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delivery = Delivery::AfterMs(whole_millis(delay));
        self
    }

    /// Delays the message: it is handled no earlier than `time`. Survives a restart of the host.
    #[must_use]
    pub fn at(mut self, time: SystemTime) -> Self {
        self.delivery = Delivery::AtMs(millis(time));
        self
    }

    /// Names a delayed message ([`after`](Self::after), [`at`](Self::at)): it replaces this agent's pending timer of
    /// the same name, and can be cancelled by that name ([`messaging::cancel`](crate::messaging::cancel)).
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        // A timer has one name, so the last call counts.
        self.headers.retain(|(header, _)| header != TIMER);
        self.header(TIMER, name)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends the message when the handler commits, and returns its id.
    ///
    /// # Errors
    /// The reason why the host does not accept it; nothing is sent then.
    pub fn send(&self) -> Result<String, SendError> {
        messaging::send(self)
    }

    /// Sends the message to each running agent that declares a capability, except the sender itself, when the handler
    /// commits. The receiver has to be `cap:NAME`. Returns the ids of the messages, in order of the agents' names.
    ///
    /// ```no_run
    /// use caxton_sdk::prelude::*;
    ///
    /// # fn handle(message: Message) -> Handled {
    /// Draft::to("cap:cache").text("prices have changed").broadcast()?;
    /// # Ok(None) }
    /// ```
    ///
    /// # Errors
    /// The reason why the host does not accept one of the messages; none is sent then.
    pub fn broadcast(&self) -> Result<Vec<String>, SendError> {
        messaging::broadcast(self)
    }

    /// Sends the message at once and waits for the answer, at most for `timeout` and at most until the deadline of the
    /// message being handled. A failed handler does not undo it. A draft that is still an `inform` is sent as a
    /// `request`, since an `inform` asks for nothing. If the handler runs again after a conflict, the same request is
    /// not sent again but gets its former answer.
    ///
    /// # Errors
    /// The reason why there is no answer. The receiver may have handled the message all the same.
    pub fn request(&self, timeout: Duration) -> Result<Message, RequestError> {
        messaging::request(&self.as_question(), whole_millis(timeout))
    }

    /// Returns the draft as sent by [`request`](Self::request).
    pub(crate) fn as_question(&self) -> Cow<'_, Self> {
        match self.performative {
            // Copied only if it changes: a content may be as large as `limits.message`.
            Performative::Inform => Cow::Owned(self.clone().performative(Performative::Request)),
            _ => Cow::Borrowed(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_goes_to_the_agent_itself_with_its_last_name() {
        let timer = Draft::timer("first", Duration::from_secs(1)).named("second");
        assert_eq!((timer.receiver.as_str(), timer.headers.len()), ("", 1));
        assert_eq!(timer.headers[0], (TIMER.to_owned(), "second".to_owned()));
        assert!(matches!(timer.delivery, Delivery::AfterMs(1_000)));
    }

    #[test]
    fn send_informs_and_request_requests() {
        let draft = Draft::to("ledger");
        assert_eq!(draft.performative, Performative::Inform);
        assert_eq!(draft.as_question().performative, Performative::Request);
        let asked = Draft::to("ledger").performative(Performative::QueryIf);
        assert_eq!(asked.as_question().performative, Performative::QueryIf);
    }
}
