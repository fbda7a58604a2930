//! A commit: changes of which all are kept, or none.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_control::conversation::Conversation;

use super::types::Snapshot;
use crate::message::Dispatch;
use crate::message::{Attempt, Envelope, TimerCancel, Value};

/// Keys that are written; none removes one.
pub(crate) type Writes = BTreeMap<String, Option<Value>>;

/// A set of changes that happen together: mostly the effects of handling one message. It says what is asked for and
/// holds nothing live; a [`CommitRequest`](super::CommitRequest) holds the rest.
#[derive(Debug)]
pub(crate) struct Commit {
    /// The agent that handled the message.
    pub(crate) agent: Arc<str>,
    /// The message that is handled, and not to be delivered any more.
    pub(crate) handled: Option<Handled>,
    /// The message whose journal of calls leaves with this, by its sequence number.
    pub(crate) journal: Option<u64>,
    /// The attempt that failed, if there will be another.
    pub(crate) failed: Option<Failed>,
    /// The message that is given up.
    pub(crate) dead: Option<Box<DeadLetter>>,
    /// The ticket under which its run has keys reserved.
    pub(crate) ticket: Option<u64>,
    /// Set if the run goes on after it: otherwise its keys are free with this.
    pub(crate) is_part: bool,
    /// The tickets whose reserved keys it may write.
    pub(crate) within: Vec<u64>,
    /// The change of the agent's state.
    pub(crate) state: Option<StateChange>,
    /// The messages that are sent, the reply included. They are delivered when the commit is durable.
    pub(crate) sends: Vec<Dispatch>,
    /// Timers of the agent that are cancelled, before what is sent.
    pub(crate) cancels: Vec<TimerCancel>,
    /// The revision that the conversation of the handled message is bound to.
    pub(crate) binding: Option<RevisionBinding>,
    /// The question that the handled message was, if it got no answer.
    pub(crate) closes: Option<Box<ClosedQuestion>>,
    /// The client's own name for the message that is accepted.
    pub(crate) key: Option<IdempotencyKey>,
    /// The schedule that fired.
    pub(crate) fired: Option<Fired>,
    /// The conversation that ends.
    pub(crate) ended: Option<Box<EndedConversation>>,
    /// The memory of the stateful agent after the message, if it has changed. At most `snapshot.commit-max` bytes.
    pub(crate) memory: Option<Box<Snapshot>>,
}

impl Commit {
    /// A commit of nothing yet.
    pub(crate) fn new(agent: Arc<str>) -> Self {
        Self {
            agent,
            handled: None,
            journal: None,
            failed: None,
            dead: None,
            ticket: None,
            is_part: false,
            within: Vec::new(),
            state: None,
            sends: Vec::new(),
            cancels: Vec::new(),
            binding: None,
            closes: None,
            key: None,
            fired: None,
            ended: None,
            memory: None,
        }
    }
}

/// The revision that goes on with what the handling of a message leaves open in its conversation.
#[derive(Debug)]
pub(crate) struct RevisionBinding {
    /// The conversation.
    pub(crate) conversation: String,
    /// The number of the revision.
    pub(crate) revision: u64,
    /// The reference that an answer to the message carries, if it is answered with this.
    pub(crate) answered: Option<String>,
    /// Set if the binding is noted although nothing is open: waiting and later messages go to the revision too.
    pub(crate) anyway: bool,
}

/// A question that was handled and got no answer.
#[derive(Debug)]
pub(crate) struct ClosedQuestion {
    /// The conversation.
    pub(crate) conversation: String,
    /// The agent that asked.
    pub(crate) from: String,
    /// The agent that was asked.
    pub(crate) to: String,
    /// The reference that an answer would have carried.
    pub(crate) key: String,
}

/// A conversation that ended, as it was then.
#[derive(Debug)]
pub(crate) struct EndedConversation {
    /// The row; `None` if it was never written.
    pub(crate) row: Option<u64>,
    /// The record as it was at the end.
    pub(crate) record: Conversation,
    /// The sequence number before which it has no message; 0 if that is not known.
    pub(crate) first_seq: u64,
}

/// A message that is handled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handled {
    /// The sequence number of the message.
    pub(crate) seq: u64,
    /// The number of the revision that handled it.
    pub(crate) revision: u64,
    /// The number of runs of its handler in that attempt: more than one after conflicts.
    pub(crate) runs: u32,
    /// The bytes of its content.
    pub(crate) bytes: u64,
}

/// The change that a handler makes to its agent's state.
#[derive(Debug)]
pub(crate) struct StateChange {
    /// Keys read, with the version seen (0: there was none); all must still be so.
    pub(crate) reads: BTreeMap<String, u64>,
    /// Keys written.
    pub(crate) writes: Writes,
    /// Keys that are removed if their time is over when it is written.
    pub(crate) expired: Vec<String>,
    /// Numbers that are added to.
    pub(crate) adds: BTreeMap<String, Add>,
    /// The version that all keys written have then; of [`next_version`](super::handles::StateTable::next_version).
    pub(crate) version: u64,
    /// The most that the agent's state may have, in bytes.
    pub(crate) quota: u64,
}

impl StateChange {
    /// Returns true if keys are written.
    pub(crate) fn writes_anything(&self) -> bool {
        !(self.writes.is_empty() && self.adds.is_empty())
    }

    /// The keys that are written.
    pub(crate) fn written(&self) -> impl Iterator<Item = &String> {
        self.writes.keys().chain(self.adds.keys())
    }
}

/// An addition to a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Add {
    /// The addend.
    pub(crate) by: i64,
    /// The sum that reads before the commit return.
    pub(crate) sum: i64,
}

/// An attempt that failed and will be followed by another.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The sequence number of the message.
    pub(crate) seq: u64,
    /// The attempt.
    pub(crate) attempt: Attempt,
    /// The time of the next one, by the steady clock.
    pub(crate) again_at: u64,
}

/// The reason of a dead letter that ends a chain of messages (`limits.hops`).
pub(crate) const TOO_MANY_HOPS: &str = "too-many-hops";

/// Says why a message that ends a chain of messages is a dead letter.
pub(crate) fn beyond(limit: u32) -> String {
    format!("the message has more than {limit} hops (limits.hops)")
}

/// A message that is given up.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    /// The message, with the attempts made.
    pub(crate) envelope: Box<Envelope>,
    /// The reason as a stable code (SPEC §7).
    pub(crate) reason: &'static str,
    /// The reason for a person.
    pub(crate) error: String,
    /// The time, in milliseconds since 1970.
    pub(crate) at: u64,
}

/// A client's own name for a message, so that asking twice means one message.
#[derive(Debug)]
pub(crate) struct IdempotencyKey {
    /// The key as the client gave it.
    pub(crate) key: String,
    /// Tells requests with the same key apart.
    pub(crate) fingerprint: Vec<u8>,
    /// The id that the message has if the key is new.
    pub(crate) id: String,
    /// The conversation of that message.
    pub(crate) conversation: String,
    /// The time by the steady clock, in milliseconds since 1970: a clock that is set back does not prolong the key.
    pub(crate) at: u64,
}

/// A schedule that fired: kept with the message, so that it never fires twice.
#[derive(Debug)]
pub(crate) struct Fired {
    /// The schedule of the agent.
    pub(crate) schedule: String,
    /// The time it was for, in milliseconds since 1970.
    pub(crate) at: u64,
}

/// The error of a commit of which nothing is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommitError {
    /// The value that was read of this key has changed meanwhile: the handler runs again.
    #[error("the key `{0}` has changed meanwhile")]
    Conflict(String),
    /// The value of this key cannot be added to.
    #[error("the key `{0}` has no number that this can be added to")]
    NotANumber(String),
    /// The agent's state would be too large.
    #[error("the agent's state would be larger than {0} bytes (limits.state)")]
    Quota(u64),
    /// The idempotency key was used before, for this message.
    #[error("the idempotency key belongs to message {id}")]
    Repeated {
        /// The message's id.
        id: String,
        /// The conversation of the message.
        conversation: String,
    },
    /// The idempotency key was used before, for another message.
    #[error("the idempotency key was used for another request within the last 24 hours")]
    KeyReused,
    /// The message is not legal in its conversation's protocol.
    #[error("{0}")]
    Illegal(String),
    /// A commit before it was refused, on whose memory the handler had built.
    #[error("a message before it was not committed, on whose memory it built")]
    Ahead,
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
}
