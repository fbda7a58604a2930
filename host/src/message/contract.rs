//! The records of the contract in `wit/` as plain types. Acts and priorities are those of `caxton_control`.

use caxton_control::Performative;
use caxton_control::mailbox::Priority;

/// A message as its receiver gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) performative: Performative,
    pub(crate) sender: String,
    pub(crate) receiver: String,
    pub(crate) content: Vec<u8>,
    /// The media type of the content.
    pub(crate) content_type: String,
    /// The vocabulary of the content.
    pub(crate) ontology: Option<String>,
    /// The interaction protocol that the message is part of.
    pub(crate) protocol: Option<String>,
    pub(crate) conversation_id: String,
    /// The `in_reply_to` of its answer; `None` stands for the id.
    pub(crate) reply_with: Option<String>,
    /// The `reply_with` or the id of the message that it answers.
    pub(crate) in_reply_to: Option<String>,
    /// The time after which an answer is of no use, in milliseconds since 1970.
    pub(crate) reply_by: Option<u64>,
    pub(crate) priority: Priority,
    /// The time of its acceptance, in milliseconds since 1970.
    pub(crate) sent_at: u64,
    /// The number of the current attempt, from 1. Runs after a conflict are one attempt.
    pub(crate) attempt: u32,
    /// The further pairs of name and value. Names are lower case and may repeat.
    pub(crate) headers: Vec<(String, String)>,
}

/// The earliest time of a message's handling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The message is deliverable at once.
    Now,
    /// The message is deliverable this many milliseconds after it is sent.
    AfterMs(u64),
    /// The message is deliverable at this time, in milliseconds since 1970.
    AtMs(u64),
}

/// A message to be sent, to which the host adds the id, the sender and the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Draft {
    /// The name of an agent, `cap:NAME` for a capability, or empty for the sender itself.
    pub(crate) receiver: String,
    pub(crate) performative: Performative,
    pub(crate) content: Vec<u8>,
    pub(crate) content_type: String,
    pub(crate) ontology: Option<String>,
    pub(crate) protocol: Option<String>,
    /// The conversation; `None` stands for that of the message being handled, an empty text for a new one.
    pub(crate) conversation_id: Option<String>,
    pub(crate) reply_with: Option<String>,
    pub(crate) in_reply_to: Option<String>,
    pub(crate) reply_by: Option<u64>,
    pub(crate) priority: Priority,
    pub(crate) delivery: Delivery,
    /// The further pairs of name and value. `timer` names a message with a delivery to come.
    pub(crate) headers: Vec<(String, String)>,
}

/// The answer of a handler, to which the host adds the address and the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) performative: Performative,
    pub(crate) content: Vec<u8>,
    pub(crate) content_type: String,
    pub(crate) ontology: Option<String>,
    pub(crate) reply_with: Option<String>,
    pub(crate) reply_by: Option<u64>,
    pub(crate) headers: Vec<(String, String)>,
}

/// The party that a failure is attributed to, which decides about further attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The message can never be handled: no further attempt is made.
    Rejected,
    /// A resource outside of the agent is missing: a further attempt may succeed.
    Unavailable,
    /// The agent is in error: a further attempt is made, and the failure counts against its revision.
    Fault,
}

/// The failure that a handler or a migration returned. Its effects are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// The reason for a person.
    pub(crate) reason: String,
    /// The least time until another attempt in milliseconds; `None` leaves it to the host.
    pub(crate) retry_after_ms: Option<u64>,
}

/// The reason why a draft was not accepted. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The name belongs to no agent, or the capability to none that runs.
    UnknownReceiver(String),
    /// `allow.send` of the sender does not name this receiver.
    NotAllowed(String),
    /// The message exceeds `limits.message`, in bytes.
    TooLarge(u64),
    /// The mailbox of the receiver holds `mailbox.depth` messages.
    MailboxFull(u64),
    /// The call has sent `limits.sends` messages.
    TooManySends(u32),
    /// The chain of messages that caused the message has the length `limits.hops`.
    TooManyHops(u32),
    /// A part of the draft is invalid; the text names the part.
    Invalid(String),
    /// The host cannot do what the draft asks for.
    Unsupported(String),
    /// The receiver accepts no messages at the moment.
    Unavailable(String),
}

/// The reason why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestError {
    /// The request was not accepted.
    NotSent(SendError),
    /// The time ran out. The receiver may have handled it all the same.
    TimedOut,
    /// The receiver failed.
    Failed(String),
    /// The receiver handled it without a reply.
    NoReply,
    /// The agents that would wait for each other, in this order.
    Deadlock(Vec<String>),
}
