//! The record of a conversation, as the store keeps it.

use std::collections::VecDeque;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::participants::Participants;
use crate::protocol::ProtocolRun;

/// The most unanswered messages that a conversation remembers, so that the record stays small. With more open questions
/// the sender of the oldest gets no `failure` when the conversation expires.
pub const MAX_UNANSWERED: usize = 64;

/// The record of a conversation, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// The conversation's id.
    pub name: String,
    /// The sender of the first message.
    pub initiator: CompactString,
    /// The senders and receivers so far. Names of senders outside the host contain a `:`.
    pub participants: Participants,
    /// The protocol that a message named last, checked or not.
    pub protocol: Option<String>,
    /// The runs of checked protocols. An agent that is asked something may ask others in the same conversation, so one
    /// run can be nested in another.
    pub runs: Vec<ProtocolRun>,
    /// The time of the first message, in milliseconds since 1970.
    pub first: u64,
    /// The latest time of any message, in milliseconds since 1970.
    pub last: u64,
    /// The number of messages so far.
    pub messages: u64,
    /// Messages without an answer, oldest first; at most [`MAX_UNANSWERED`].
    pub unanswered: VecDeque<Unanswered>,
    /// The revisions to which the conversation is bound, one for each agent that is not free to change.
    #[serde(rename = "stays", default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<RevisionBinding>,
}

/// A message that waits for its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// The `in-reply-to` of the answer: the message's `reply-with`, or else its id.
    pub key: String,
    /// The sender, who gets a `failure` when the conversation expires.
    pub from: String,
    /// The receiver.
    pub to: String,
    /// Set for a call from outside, whose caller waits no longer than the host runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_call: bool,
    /// Set if the receiver handled the message without an answer, so that no `failure` is due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// The binding of a conversation to a revision of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionBinding {
    /// The agent.
    pub agent: CompactString,
    /// The revision's number.
    pub revision: u64,
    /// Messages sent to the agent up to this time belong to the revision, in milliseconds since 1970; later ones belong
    /// to it while an answer is owed.
    pub until: u64,
    /// Set once the conversation was free: a later question belongs to the revision that handles it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_over: bool,
}

impl Conversation {
    /// Creates a conversation without messages; `initiator` sends the first.
    pub fn new(name: &str, initiator: &str, at: u64) -> Self {
        Self {
            name: name.to_owned(),
            initiator: CompactString::new(initiator),
            participants: Participants::default(),
            protocol: None,
            runs: Vec::new(),
            first: at,
            last: at,
            messages: 0,
            unanswered: VecDeque::new(),
            bindings: Vec::new(),
        }
    }

    /// Closes a question that its receiver handled without an answer: no `failure` is due when the conversation ends. A
    /// late answer still settles it. Returns `false` if it was not open.
    pub fn close(&mut self, key: &str, from: &str, to: &str) -> bool {
        // By all three: agents choose the keys, so two of them may choose the same one.
        let own = |left: &&mut Unanswered| left.key == key && left.from == from && left.to == to && !left.closed;
        self.unanswered.iter_mut().find(own).is_some_and(|left| {
            left.closed = true;
            true
        })
    }

    /// Drops unanswered calls and ends their parts of protocols, after a restart of the host: their callers are gone. A
    /// caller that asks again begins anew.
    pub fn drop_calls(&mut self) {
        // Both parts keep their order, oldest first.
        let (lost, left) = std::mem::take(&mut self.unanswered).into_iter().partition(|left| left.is_call);
        self.unanswered = left;
        let lost: VecDeque<Unanswered> = lost;
        for Unanswered { from, to, .. } in &lost {
            self.runs.iter_mut().for_each(|run| run.give_up(to, from));
        }
    }

    /// Returns the time at which the conversation expires if no message follows, in milliseconds since 1970.
    pub fn expires_at(&self, timeout_ms: u64) -> u64 {
        // Saturating: a clock far in the future means never, and not at once.
        self.last.saturating_add(timeout_ms)
    }

    /// Ends the conversation. Returns the questions whose senders get a `failure` (SPEC §7), oldest first.
    pub fn expire(self) -> Vec<Unanswered> {
        self.unanswered.into_iter().filter(|left| !left.closed).collect()
    }
}
