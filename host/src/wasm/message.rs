//! A message on its way between agents, and what becomes of it.

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
use crate::trace::Trace;

/// A message on its way, with what travels beside it.
#[derive(Debug)]
pub(crate) struct Envelope {
    /// What the receiver sees.
    pub(crate) message: wit::Message,
    /// How many messages caused one another before this one.
    pub(crate) hops: u32,
    /// After this nobody waits for an answer any more.
    pub(crate) deadline: Option<Instant>,
    /// Who hears of the answer; none means that a reply goes to the sender's mailbox.
    pub(crate) waiter: Option<Waiter>,
    /// The trace that it belongs to.
    pub(crate) trace: Option<Trace>,
    /// Since when it waits in its mailbox; none until it does.
    pub(crate) accepted: Option<Instant>,
    /// Where the store keeps it; none for a call, and before it is committed.
    pub(crate) seq: Option<u64>,
    /// The time at which it was sent, by the [steady clock](clock::steady_ms).
    pub(crate) since: u64,
    /// Not to be handled before, by the steady clock.
    pub(crate) due: Option<u64>,
    /// Not to be handled before, by the wall clock: it is due when that shows so, whatever it is set to meanwhile.
    pub(crate) due_at: Option<u64>,
    /// Set if an agent sent it for later, so that the store keeps it apart from the mailbox until it is due.
    pub(crate) waits: bool,
    /// The name under which its sender sent it for later.
    pub(crate) timer: Option<String>,
    /// The attempts that failed, the first first.
    pub(crate) failed: Vec<Attempt>,
    /// Set if an operator let it be handled again after it was given up: its sender was told of that.
    pub(crate) revived: bool,
    /// The record of the runs of its handler that ended in a conflict, until one does not.
    pub(crate) again: Option<Box<Again>>,
    /// The tickets of those that wait for its answer and have keys reserved.
    pub(crate) within: Vec<u64>,
}

impl Envelope {
    /// A message that nobody waits for, caused by none.
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

    /// Says in the message which attempt at it is next.
    pub(crate) fn number_attempt(&mut self) {
        let attempt = u32::try_from(self.failed.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.message.attempt = self.message.attempt.max(attempt);
    }

    /// Returns true if the store takes part in sending it also where messages are not kept: it is kept until it is due, or
    /// takes the place of one that is.
    pub(crate) fn is_timer(&self) -> bool {
        self.waits || self.timer.is_some()
    }

    /// Whether somebody waits for the answer, so that it is neither kept nor tried again.
    pub(crate) fn is_call(&self) -> bool {
        matches!(self.waiter, Some(Waiter::Call(_)))
    }

    /// Whether it is a call for whose answer nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        let Some(Waiter::Call(answer)) = &self.waiter else { return false };
        answer.is_closed() || self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Attempt {
    /// Which attempt it was, beginning with 1.
    pub(crate) number: u32,
    /// When it began, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The revision that tried, such as `triage@7`.
    pub(crate) revision: String,
    /// The stable code of what went wrong, such as `trap`.
    pub(crate) code: String,
    /// What went wrong, for a person, with the backtrace of a trap.
    pub(crate) error: String,
    /// How long it took by the clock, in microseconds.
    pub(crate) took_us: u64,
    /// Its time on a core, in microseconds.
    pub(crate) cpu_us: u64,
}

/// Who hears what became of a message.
pub(crate) enum Waiter {
    /// Somebody who waits.
    Call(oneshot::Sender<Answer>),
    /// Somebody who looks later.
    Note(Box<dyn FnOnce(Answer) + Send + Sync>),
}

impl Waiter {
    /// Tells the answer. Gives it back if whoever waited has left.
    pub(crate) fn tell(self, answer: Answer) -> Option<Answer> {
        match self {
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

/// What became of a message that somebody waits for.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The revision that handled it; none when it came to none.
    pub(crate) revision: Option<Arc<RevisionId>>,
    /// The answer itself.
    pub(crate) outcome: Outcome,
}

/// The outcome of a handled message.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The handler replied, and its effects are committed.
    Reply(Box<wit::Message>),
    /// The handler was content and said nothing; its effects are committed.
    Done,
    /// The handler gave up.
    Gave(wit::Failure),
    /// The call brought no result.
    Fault(Fault),
    /// The reply is not one that can be sent.
    BadReply(String),
    /// The effects are more than the agent may have.
    Refused(String),
    /// A conflict in each of its runs: others changed this key, which it had read.
    Conflict(String),
    /// The effects could not be committed.
    NotCommitted(String),
    /// The agent was removed, or the host stops.
    Gone(&'static str),
}

/// Where a message can be put after a place was kept for it.
pub(crate) trait Inbox: Any + Send + Sync {
    /// Puts the message in the place that was kept. True when somebody has to work for it now, who is counted
    /// already: [`work`](Self::work) does.
    fn put(&self, envelope: Box<Envelope>) -> bool;
    /// Starts whoever handles what was put.
    fn work(self: Arc<Self>);
    /// Keeps a place for a message that its receiver has to hear.
    fn reserve_beyond(&self);
    /// Gives up the place.
    fn release(&self);
    /// Where an agent of this name gets messages, if there is one that takes any.
    fn other(&self, agent: &str) -> Option<Arc<dyn Inbox>>;
}

/// A new id: in order of time, unique everywhere (RFC 9562, version 7).
pub(crate) fn new_id() -> String {
    thread_local! {
        // The one that all threads share has a lock.
        static CONTEXT: ContextV7 = const { ContextV7::new() };
    }
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    let now = Duration::from_millis(clock::now_ms());
    let id = |context: &ContextV7| Uuid::new_v7(Timestamp::from_unix(context, now.as_secs(), now.subsec_nanos()));
    CONTEXT.with(id).hyphenated().encode_lower(&mut buffer).to_owned()
}

/// A message that was admitted, with the place that is kept for it. Dropping it gives the place up.
pub(crate) struct Sent {
    inner: Option<(Arc<dyn Inbox>, Box<Envelope>)>,
    /// Whether the host says it in an agent's place.
    hosts: bool,
    /// The bound of causes that it is beyond: it is kept as a dead letter, and goes to nobody.
    ends: Option<u32>,
    /// The rule for the answer if it is refused; set where another than that of the message itself holds.
    refusal: Option<Box<Refusal>>,
}

/// The rule for the `not-understood` that a message brings back which is refused.
pub(crate) struct Refusal {
    /// Its causes.
    pub(crate) hops: u32,
    /// The bound of causes.
    pub(crate) limit: u32,
    /// Where it goes if it is beyond the bound.
    pub(crate) end: Arc<dyn Inbox>,
}

impl Sent {
    /// A message for whose delivery a place was kept in `inbox`.
    pub(crate) fn new(inbox: Arc<dyn Inbox>, envelope: Box<Envelope>) -> Self {
        Self { inner: Some((inbox, envelope)), hosts: false, ends: None, refusal: None }
    }

    /// A message with more causes than `limit`, the end of its chain. `end` hears of it when the dead letter is safe.
    pub(crate) fn ending(end: Arc<dyn Inbox>, envelope: Box<Envelope>, limit: u32) -> Self {
        let mut sent = Self::new(end, envelope);
        sent.ends = Some(limit);
        sent
    }

    /// The same with another rule for the answer, if the message is refused.
    pub(crate) fn refused_as(mut self, refusal: Refusal) -> Self {
        self.refusal = Some(Box::new(refusal));
        self
    }

    /// The bound of causes that it is beyond, if it is.
    pub(crate) fn ends(&self) -> Option<u32> {
        self.ends
    }

    /// The same of the host, in an agent's place.
    pub(crate) fn of_host(mut self) -> Self {
        self.hosts = true;
        self
    }

    /// Whether the host says it in an agent's place.
    pub(crate) fn is_hosts(&self) -> bool {
        self.hosts
    }

    /// Puts an answer to its sender in its place: it was not understood, for this reason. False, and nothing is
    /// changed, if the sender has no mailbox.
    pub(crate) fn refuse(&mut self, why: &str) -> bool {
        let Some(origin) = self.inner.as_ref().and_then(|(inbox, sent)| inbox.other(&sent.message.sender)) else {
            return false;
        };
        let Some((inbox, refused)) = self.inner.take() else { return false };
        inbox.release();
        let wit::Message { sender, receiver, protocol, conversation_id, id, reply_with, .. } = refused.message;
        let message = wit::Message {
            id: new_id(),
            performative: wit::Performative::NotUnderstood,
            sender: receiver,
            receiver: sender,
            content: why.as_bytes().to_vec(),
            content_type: "text/plain; charset=utf-8".to_owned(),
            ontology: None,
            protocol,
            conversation_id,
            reply_with: None,
            in_reply_to: Some(reply_with.unwrap_or(id)),
            reply_by: None,
            priority: wit::Priority::Normal,
            sent_at: refused.message.sent_at,
            attempt: 1,
            headers: Vec::new(),
        };
        let mut envelope = Envelope { hops: refused.hops, trace: refused.trace, ..Envelope::new(message) };
        if let Some(refusal) = self.refusal.take() {
            let Refusal { hops, limit, end } = *refusal;
            envelope.hops = hops;
            if hops > limit {
                (self.ends, self.inner) = (Some(limit), Some((end, Box::new(envelope))));
                return true;
            }
        }
        // Whoever sent it has to hear it.
        origin.reserve_beyond();
        self.inner = Some((origin, Box::new(envelope)));
        true
    }

    /// Delivers the message.
    pub(crate) fn deliver(self) {
        if let Some(inbox) = self.put(Instant::now()) {
            inbox.work();
        }
    }

    /// Puts the message into its mailbox, where it waits since `now`. Gives the mailbox back when somebody has to work
    /// for it now.
    pub(crate) fn put(mut self, now: Instant) -> Option<Arc<dyn Inbox>> {
        let (inbox, mut envelope) = self.inner.take()?;
        envelope.accepted = Some(now);
        inbox.put(envelope).then_some(inbox)
    }

    /// The message.
    pub(crate) fn envelope(&self) -> &Envelope {
        &self.inner.as_ref().expect("it holds its message until it is delivered").1
    }

    /// The same, to be changed.
    pub(crate) fn envelope_mut(&mut self) -> &mut Envelope {
        &mut self.inner.as_mut().expect("it holds its message until it is delivered").1
    }

    /// The message's id.
    pub(crate) fn id(&self) -> &str {
        &self.envelope().message.id
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some((inbox, _)) = self.inner.take() {
            inbox.release();
        }
    }
}
