//! The messages of a handler on their way to mailboxes, and replies that find none.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use crate::agent::{AdmitError, Agent};
use crate::message::{Deliver, Fault, Outcome, Outgoing};

/// Delivers messages. Of the agents that need a worker, the last one is returned, and served by the caller: a chain of
/// messages stays in one task.
pub(super) fn deliver(sends: Vec<Outgoing>, now: Instant) -> Option<Arc<Agent>> {
    let mut left: Option<Arc<dyn Deliver>> = None;
    for sent in sends {
        if let Some(inbox) = sent.put(now)
            && let Some(earlier) = left.replace(inbox)
        {
            earlier.work();
        }
    }
    let left: Arc<dyn Any + Send + Sync> = left?;
    Some(left.downcast().expect("agents are the only inboxes of a host"))
}

/// Returns the outcome of a message whose reply does not reach its sender.
pub(super) fn not_routed(error: &AdmitError, sender: &str) -> Outcome {
    match error {
        // The asker's state, not the agent's doing.
        AdmitError::Full { .. } | AdmitError::Unavailable(_) => {
            Outcome::NotCommitted(format!("its reply cannot go to `{sender}` now: {error}"))
        }
        AdmitError::OverBudget(why) => Outcome::Fault(Fault::OverBudget(why.clone())),
        AdmitError::UnknownReceiver(_)
        | AdmitError::NotAllowed { .. }
        | AdmitError::TooLarge { .. }
        | AdmitError::TooManyTimers { .. }
        | AdmitError::TooManyHops { .. }
        | AdmitError::Invalid(_)
        | AdmitError::BreakerOpen { .. }
        | AdmitError::NotKept(_)
        | AdmitError::KeyReused
        | AdmitError::NotUnderstood(_) => Outcome::BadReply(error.to_string()),
    }
}
