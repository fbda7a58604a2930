//! Envelopes of messages between agents, and the outcomes of their handling.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::RevisionId;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use uuid::{ContextV7, Timestamp, Uuid};

use super::again::Again;
use super::{Fault, wit};
use crate::clock;
use crate::telemetry::trace::Trace;

/// A message with its delivery record.
#[derive(Debug)]
pub(crate) struct Envelope {
    /// The message as the receiver gets it.
    pub(crate) message: wit::Message,
    /// The length of the chain of messages that caused this one.
    pub(crate) hops: u32,
    /// The time after which the caller no longer waits for an answer.
    pub(crate) deadline: Option<Instant>,
    /// The receiver of the outcome. `None` means that a reply goes to the sender's mailbox.
    pub(crate) waiter: Option<Waiter>,
    /// The trace of the request or message that caused it.
    pub(crate) trace: Option<Trace>,
    /// The time since when it waits in its mailbox; `None` until it does.
    pub(crate) accepted: Option<Instant>,
    /// The sequence number in the store; `None` for a call, and before the commit.
    pub(crate) seq: Option<u64>,
    /// The time at which it was sent, by the [steady clock](clock::steady_ms).
    pub(crate) since: u64,
    /// The earliest time of its handling, by the steady clock.
    pub(crate) due: Option<u64>,
    /// The earliest time of its handling by the wall clock, also if that is set meanwhile.
    pub(crate) due_at: Option<u64>,
    /// Set if an agent sent it with a delay, so that the store keeps it apart from the mailbox until it is due.
    pub(crate) waits: bool,
    /// The name that its sender gave to the timer.
    pub(crate) timer: Option<String>,
    /// The failed attempts, in order.
    pub(crate) failed: Vec<Attempt>,
    /// Set if an operator redelivered it after it was a dead letter. Its sender was told then, and is not told again.
    pub(crate) revived: bool,
    /// The record of runs that ended in a conflict, until one does not.
    pub(crate) again: Option<Box<Again>>,
    /// The tickets of the handlers that wait for its answer and have keys reserved.
    pub(crate) within: Vec<u64>,
}

impl Envelope {
    /// Creates an envelope without a waiter or a cause.
    pub(crate) fn new(message: wit::Message) -> Self {
        let since = clock::from_wall(message.sent_at);
        Self {
            message,
            hops: 0,
            deadline: None,
            waiter: None,
            trace: None,
            accepted: None,
            seq: None,
            since,
            due: None,
            due_at: None,
            waits: false,
            timer: None,
            failed: Vec::new(),
            revived: false,
            again: None,
            within: Vec::new(),
        }
    }

    /// Sets the number of the next attempt in the message.
    pub(crate) fn number_attempt(&mut self) {
        let attempt = u32::try_from(self.failed.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.message.attempt = self.message.attempt.max(attempt);
    }

    /// Returns `true` if it has to pass through the store even where messages are not kept: it is kept until it is due,
    /// or replaces a timer.
    pub(crate) fn is_timer(&self) -> bool {
        self.waits || self.timer.is_some()
    }

    /// Returns `true` if a caller waits for the answer. A call is neither kept nor retried.
    pub(crate) fn is_call(&self) -> bool {
        matches!(self.waiter, Some(Waiter::Call(_)))
    }

    /// Returns `true` if it is a call whose caller no longer waits.
    pub(crate) fn is_abandoned(&self) -> bool {
        let Some(Waiter::Call(answer)) = &self.waiter else { return false };
        answer.is_closed() || self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// A failed attempt to handle a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Attempt {
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

/// The receiver of the outcome of a message.
pub(crate) enum Waiter {
    /// A caller that waits. It may have left.
    Call(oneshot::Sender<Answer>),
    /// A function that records the outcome, such as for a receipt.
    Note(Box<dyn FnOnce(Answer) + Send + Sync>),
}

impl Waiter {
    /// Passes the answer on. Returns it if the caller has left.
    pub(crate) fn tell(self, answer: Answer) -> Option<Answer> {
        match self {
            // The caller may have left at its deadline.
            Self::Call(waiter) => waiter.send(answer).err(),
            Self::Note(note) => {
                note(answer);
                None
            }
        }
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Call(_) => "Call",
            Self::Note(_) => "Note",
        })
    }
}

/// The outcome of a message with the revision that handled it.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The revision that handled it; `None` if none did.
    pub(crate) revision: Option<Arc<RevisionId>>,
    pub(crate) outcome: Outcome,
}

/// The outcome of a handled message.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The handler replied, and its effects are committed.
    Reply(Box<wit::Message>),
    /// The handler succeeded without a reply, and its effects are committed.
    Done,
    /// The handler returned a failure.
    Gave(wit::Failure),
    /// The call of the guest failed.
    Fault(Fault),
    /// The reply cannot be sent.
    BadReply(String),
    /// The effects exceed what the agent is allowed.
    Refused(String),
    /// Each run ended in a conflict: other handlers changed this key, which it had read.
    Conflict(String),
    /// The effects could not be committed.
    NotCommitted(String),
    /// The agent was removed, or the host stops.
    Gone(&'static str),
}

/// A mailbox that reserves a place for a message before it is delivered.
pub(crate) trait Inbox: Any + Send + Sync {
    /// Puts a message into its reserved place. Returns `true` if a worker has to be started for it, which is counted
    /// already: the caller calls [`work`](Self::work).
    fn put(&self, envelope: Box<Envelope>) -> bool;
    /// Starts the worker for messages that were put.
    fn work(self: Arc<Self>);
    /// Reserves a place beyond the mailbox's bound, for a message that must not be refused.
    fn reserve_beyond(&self);
    /// Releases a reserved place.
    fn release(&self);
    /// Returns the mailbox of the agent of this name, if it has one that accepts messages.
    fn other(&self, agent: &str) -> Option<Arc<dyn Inbox>>;
}

/// Returns a new id: ordered by time and globally unique (RFC 9562, version 7).
pub(crate) fn new_id() -> String {
    thread_local! {
        // The context of the `uuid` crate is shared by all threads behind a lock.
        static CONTEXT: ContextV7 = const { ContextV7::new() };
    }
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    let now = Duration::from_millis(clock::now_ms());
    let id = |context: &ContextV7| Uuid::new_v7(Timestamp::from_unix(context, now.as_secs(), now.subsec_nanos()));
    CONTEXT.with(id).hyphenated().encode_lower(&mut buffer).to_owned()
}

/// A message that is to be sent, without anything live: what a commit asks the store to keep.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// The message.
    pub(crate) envelope: Box<Envelope>,
    /// Set if the host sends it in place of an agent.
    pub(crate) from_host: bool,
    /// The bound of causes if the message exceeds it: then it is stored as a dead letter and not delivered.
    pub(crate) ends: Option<u32>,
    /// The sequence number that the store gave it.
    pub(crate) seq: Option<u64>,
}

/// A place in a mailbox that is reserved for one message. Dropping it releases the place.
pub(crate) struct ReservedPlace {
    /// `None` once the message was put there.
    inbox: Option<Arc<dyn Inbox>>,
    /// The causes of the answer if the message is refused, where they differ from those of the message.
    refusal: Option<Box<Refusal>>,
}

impl ReservedPlace {
    /// Replaces the message by a `not-understood` to its sender with this reason. Returns `false` and changes nothing
    /// if the sender has no mailbox.
    pub(crate) fn refuse(&mut self, dispatch: &mut Dispatch, why: &str) -> bool {
        let sender = &dispatch.envelope.message.sender;
        let Some(origin) = self.inbox.as_ref().and_then(|inbox| inbox.other(sender)) else { return false };
        if let Some(inbox) = self.inbox.take() {
            inbox.release();
        }
        dispatch.envelope = Box::new(not_understood(&dispatch.envelope, why));
        if let Some(refusal) = self.refusal.take() {
            let Refusal { hops, limit, end } = *refusal;
            dispatch.envelope.hops = hops;
            if hops > limit {
                (dispatch.ends, self.inbox) = (Some(limit), Some(end));
                return true;
            }
        }
        // The sender has to get it even if its mailbox is full, or it would wait for an answer for ever.
        origin.reserve_beyond();
        self.inbox = Some(origin);
        true
    }
}

/// Returns the answer to a message that is not legal in its conversation.
fn not_understood(refused: &Envelope, why: &str) -> Envelope {
    let question = &refused.message;
    let message = wit::Message {
        id: new_id(),
        performative: wit::Performative::NotUnderstood,
        sender: question.receiver.clone(),
        receiver: question.sender.clone(),
        content: why.as_bytes().to_vec(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        ontology: None,
        protocol: question.protocol.clone(),
        conversation_id: question.conversation_id.clone(),
        reply_with: None,
        in_reply_to: Some(question.reply_with.as_ref().unwrap_or(&question.id).clone()),
        reply_by: None,
        priority: wit::Priority::Normal,
        sent_at: question.sent_at,
        attempt: 1,
        headers: Vec::new(),
    };
    Envelope { hops: refused.hops, trace: refused.trace.clone(), ..Envelope::new(message) }
}

impl Drop for ReservedPlace {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.release();
        }
    }
}

/// An admitted message with its reserved place. Dropping it releases the place.
pub(crate) struct Sent {
    dispatch: Dispatch,
    place: ReservedPlace,
}

/// The causes of the `not-understood` that answers a refused message.
pub(crate) struct Refusal {
    /// The length of the chain of causes.
    pub(crate) hops: u32,
    /// The bound of that length.
    pub(crate) limit: u32,
    /// The mailbox that records the message if it exceeds the bound.
    pub(crate) end: Arc<dyn Inbox>,
}

impl Sent {
    /// Wraps a message for which `inbox` has reserved a place.
    pub(crate) fn new(inbox: Arc<dyn Inbox>, envelope: Box<Envelope>) -> Self {
        let dispatch = Dispatch { envelope, from_host: false, ends: None, seq: None };
        Self { dispatch, place: ReservedPlace { inbox: Some(inbox), refusal: None } }
    }

    /// Wraps a message that exceeds the bound of causes. `end` is called when its dead letter is durable.
    pub(crate) fn ending(end: Arc<dyn Inbox>, envelope: Box<Envelope>, limit: u32) -> Self {
        let mut sent = Self::new(end, envelope);
        sent.dispatch.ends = Some(limit);
        sent
    }

    /// Separates the message from its place, for the time in which the store has it.
    pub(crate) fn split(self) -> (Dispatch, ReservedPlace) {
        (self.dispatch, self.place)
    }

    /// Puts a message together with its place again.
    pub(crate) fn join(dispatch: Dispatch, place: ReservedPlace) -> Self {
        Self { dispatch, place }
    }

    /// Returns both parts, for a message that may be refused.
    pub(crate) fn parts_mut(&mut self) -> (&mut Dispatch, &mut ReservedPlace) {
        (&mut self.dispatch, &mut self.place)
    }

    /// Sets the causes of the answer to a refusal.
    pub(crate) fn refused_as(mut self, refusal: Refusal) -> Self {
        self.place.refusal = Some(Box::new(refusal));
        self
    }

    /// Returns the bound of causes that the message exceeds, if it does.
    pub(crate) fn ends(&self) -> Option<u32> {
        self.dispatch.ends
    }

    /// Marks the message as sent by the host in place of an agent.
    pub(crate) fn of_host(mut self) -> Self {
        self.dispatch.from_host = true;
        self
    }

    /// Delivers the message.
    pub(crate) fn deliver(self) {
        if let Some(inbox) = self.put(Instant::now()) {
            inbox.work();
        }
    }

    /// Puts the message into its mailbox, where it waits from `now` on. Returns the mailbox if a worker has to be
    /// started for it.
    pub(crate) fn put(mut self, now: Instant) -> Option<Arc<dyn Inbox>> {
        let inbox = self.place.inbox.take()?;
        let mut envelope = self.dispatch.envelope;
        // The wait of a message starts when it becomes deliverable, not when it was admitted.
        envelope.accepted = Some(now);
        inbox.put(envelope).then_some(inbox)
    }

    /// Returns the envelope.
    pub(crate) fn envelope(&self) -> &Envelope {
        &self.dispatch.envelope
    }

    /// Returns the message id.
    pub(crate) fn id(&self) -> &str {
        &self.envelope().message.id
    }
}
