//! Envelopes: messages with their delivery records.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::conflict::ConflictHistory;
use super::contract::Message;
use super::journal::CallJournal;
use super::journal_rows::StoredCall;
use super::outcome::Waiter;
use crate::budgets::{Tree, TreeLink};
use crate::clock;
use crate::memory_budget::Reservation;
use crate::telemetry::trace::Trace;

/// A message with its delivery record.
#[derive(Debug)]
pub(crate) struct Envelope {
    /// The message as the receiver gets it.
    pub(crate) message: Message,
    /// The length of the chain of messages that caused this one.
    pub(crate) hops: u32,
    /// The time after which the caller no longer waits for an answer.
    pub(crate) deadline: Option<Instant>,
    /// The receiver of the outcome. `None` means that a reply goes to the sender's mailbox.
    pub(crate) waiter: Option<Waiter>,
    /// The trace of the request or message that caused it.
    pub(crate) trace: Option<Trace>,
    /// The tree that it is part of, if that has a budget.
    pub(crate) tree: Option<TreeLink>,
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
    pub(crate) conflicts: Option<Box<ConflictHistory>>,
    /// The calls over HTTP that the store has of it, until it is handled next.
    pub(crate) recorded: Box<[StoredCall]>,
    /// The journal of its calls over HTTP, once it was handled by an agent that has one.
    pub(crate) calls: Option<Arc<CallJournal>>,
    /// The tickets of the handlers that wait for its answer and have keys reserved.
    pub(crate) caller_tickets: Vec<u64>,
    /// The memory of a content that came from outside, until the message is handled.
    pub(crate) held: Option<Reservation>,
}

impl Envelope {
    /// Creates an envelope without a waiter or a cause.
    pub(crate) fn new(message: Message) -> Self {
        // By the steady clock, so that its age does not change when the wall clock is set.
        let since = clock::from_wall(message.sent_at);
        Self {
            message,
            hops: 0,
            deadline: None,
            waiter: None,
            trace: None,
            tree: None,
            accepted: None,
            seq: None,
            since,
            due: None,
            due_at: None,
            waits: false,
            timer: None,
            failed: Vec::new(),
            revived: false,
            conflicts: None,
            recorded: Box::default(),
            calls: None,
            caller_tickets: Vec::new(),
            held: None,
        }
    }

    /// Returns its tree if that is in memory, as it is for every message in hand.
    pub(crate) fn tree(&self) -> Option<&Tree> {
        self.tree.as_ref().and_then(TreeLink::live)
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
