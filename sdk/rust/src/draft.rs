//! Writing a message to another agent.

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
/// // An effect: sent when this handling commits.
/// Draft::to("ledger").text("one more").send()?;
/// // A call: sent at once, and its answer waited for.
/// let answer = Draft::to("cap:weather").json(&["Oslo", "Rome"])?.request(Duration::from_secs(2))?;
/// # Ok(None) }
/// ```
impl Draft {
    /// An `inform` without content to an agent by its name, or to `cap:NAME` for any running agent that
    /// declares the capability. It goes on with the conversation of the message being handled.
    ///
    /// An `inform` asks for nothing. A message that is owed an answer is sent with another
    /// [act](Self::performative), such as [`Performative::Request`]: if it is given up, or its conversation ends
    /// without an answer, the sender is told so by a `failure`.
    pub fn to(receiver: impl Into<String>) -> Self {
        Self {
            receiver: receiver.into(),
            performative: Performative::Inform,
            content: Vec::new(),
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

    /// A message to this agent itself that comes after a delay: a timer. When the agent has set one of this name that waits
    /// still, the new one takes its place. Needs no grant.
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
        Self::to("").after(after).named(name)
    }

    /// An `inform` to the sender of a message, as an answer to it. For an answer to the message being handled
    /// return a [`Reply`](crate::Reply) instead; this is for a later or a second one.
    pub fn answer_to(message: &Message) -> Self {
        let mut draft = Self::to(&message.sender);
        draft.conversation_id = Some(message.conversation_id.clone());
        draft.protocol.clone_from(&message.protocol);
        draft.in_reply_to = Some(message.reference().to_owned());
        draft
    }

    /// Says what the message means to do.
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

    /// Names the vocabulary that the content uses.
    #[must_use]
    pub fn ontology(mut self, ontology: impl Into<String>) -> Self {
        self.ontology = Some(ontology.into());
        self
    }

    /// Names the interaction protocol that the message is part of.
    #[must_use]
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocol = Some(protocol.into());
        self
    }

    /// Takes up this conversation instead of that of the message being handled.
    #[must_use]
    pub fn conversation(mut self, id: impl Into<String>) -> Self {
        self.conversation_id = Some(id.into());
        self
    }

    /// Begins a conversation with this message, one of its own for each time that the draft is sent.
    ///
    /// All messages to `cap:NAME` within one conversation go to the same agent. Work that is to be spread over all
    /// agents with the capability is sent in conversations of its own.
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

    /// Says what an answer is to carry in its `in-reply-to`.
    #[must_use]
    pub fn reply_with(mut self, reference: impl Into<String>) -> Self {
        self.reply_with = Some(reference.into());
        self
    }

    /// Says which message this one answers.
    #[must_use]
    pub fn in_reply_to(mut self, message: &Message) -> Self {
        self.in_reply_to = Some(message.reference().to_owned());
        self
    }

    /// Says when an answer is of no use any more.
    #[must_use]
    pub fn reply_by(mut self, time: SystemTime) -> Self {
        self.reply_by = Some(millis(time));
        self
    }

    /// Says how urgently the message is to be served.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Lets the message be handled no sooner than so long after it is sent. A restart of the host changes nothing.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delivery = Delivery::AfterMs(whole_millis(delay));
        self
    }

    /// Lets the message be handled not before this time. A restart of the host changes nothing.
    #[must_use]
    pub fn at(mut self, time: SystemTime) -> Self {
        self.delivery = Delivery::AtMs(millis(time));
        self
    }

    /// Names a message that is sent for later ([`after`](Self::after), [`at`](Self::at)): it takes the place of this
    /// agent's timer of the same name that waits still, and can be cancelled by it
    /// ([`messaging::cancel`](crate::messaging::cancel)).
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.headers.retain(|(header, _)| header != TIMER);
        self.header(TIMER, name)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sends the message when the message being handled commits, and returns the id that it has then.
    ///
    /// # Errors
    /// The reason why the host does not accept it; nothing will be sent.
    pub fn send(&self) -> Result<String, SendError> {
        messaging::send(self)
    }

    /// Sends the message to each running agent that declares a capability, but not to the sender itself, when the
    /// message being handled commits. The receiver has to be `cap:NAME`. Returns the ids that the messages have
    /// then, in order of the agents' names.
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
    /// The reason why the host does not accept one of the messages; none of them will be sent.
    pub fn broadcast(&self) -> Result<Vec<String>, SendError> {
        messaging::broadcast(self)
    }

    /// Sends the message at once and waits for its answer, but no longer than `timeout` and no later than the
    /// time of the message being handled. This is not undone when handling fails. Who waits asks for something, so
    /// that a draft which is still an `inform` goes out as a `request`. If the handler runs again after a conflict, the
    /// same question is not asked again but has the answer that it had before.
    ///
    /// # Errors
    /// The reason why there is no answer. The receiver may have handled the message all the same.
    pub fn request(&self, timeout: Duration) -> Result<Message, RequestError> {
        messaging::request(&self.as_question(), whole_millis(timeout))
    }

    /// The draft as it is sent by one who waits for the answer.
    pub(crate) fn as_question(&self) -> Cow<'_, Self> {
        match self.performative {
            Performative::Inform => Cow::Owned(self.clone().performative(Performative::Request)),
            _ => Cow::Borrowed(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_goes_to_the_agent_itself_under_its_last_name() {
        let timer = Draft::timer("first", Duration::from_secs(1)).named("second");
        assert_eq!((timer.receiver.as_str(), timer.headers.len()), ("", 1));
        assert_eq!(timer.headers[0], (TIMER.to_owned(), "second".to_owned()));
        assert!(matches!(timer.delivery, Delivery::AfterMs(1_000)));
    }

    #[test]
    fn what_is_sent_informs_and_what_is_waited_for_requests() {
        let draft = Draft::to("ledger");
        assert_eq!(draft.performative, Performative::Inform);
        assert_eq!(draft.as_question().performative, Performative::Request);
        let asked = Draft::to("ledger").performative(Performative::QueryIf);
        assert_eq!(asked.as_question().performative, Performative::QueryIf);
    }
}
