//! Outcomes of messages, and their receivers.

use std::sync::Arc;

use caxton_control::RevisionId;
use tokio::sync::oneshot;

use super::contract::{Failure, Message};
use super::fault::Fault;

/// The receiver of the outcome of a message.
pub(crate) enum Waiter {
    /// A caller that waits. It may have left.
    Call(oneshot::Sender<Answer>),
    /// A function that records the outcome, such as for a receipt.
    Note(Box<dyn FnOnce(Answer) + Send + Sync>),
}

impl Waiter {
    /// Passes the answer on. Returns it if the caller has left.
    pub(crate) fn resolve(self, answer: Answer) -> Option<Answer> {
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
    Reply(Box<Message>),
    /// The handler succeeded without a reply, and its effects are committed.
    Done,
    /// The handler returned a failure.
    Failed(Failure),
    /// The call of the guest failed.
    Fault(Fault),
    /// The reply cannot be sent.
    BadReply(String),
    /// The effects exceed what the agent is allowed.
    Refused(String),
    /// The handler ran into a conflict each time: other handlers changed this key, which it had read.
    Conflict(String),
    /// The effects could not be committed.
    NotCommitted(String),
    /// The agent was removed, or the host stops.
    Cancelled(&'static str),
}
