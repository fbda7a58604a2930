//! The codes and texts of outcomes, and the blame for them.

use crate::message::{Cause, Outcome};

/// Runs of a handler for one attempt at a message, at most. The second has all keys of the first to itself and mostly
/// is the last; the third is for one that touched others.
pub(super) const MAX_RUNS: u32 = 3;
/// Returns the reason for which a message was not handled, for a person.
pub(crate) fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reply(_) | Outcome::Done => "it was handled".to_owned(),
        Outcome::Failed(failure) => {
            let cause = match failure.cause {
                Cause::Rejected => "rejected",
                Cause::Unavailable => "unavailable",
                Cause::Fault => "fault",
            };
            format!("{cause}: {}", failure.reason)
        }
        Outcome::Fault(fault) => fault.to_string(),
        Outcome::BadReply(why) => format!("its reply was refused: {why}"),
        Outcome::Refused(why) => format!("its effects were refused: {why}"),
        Outcome::Conflict(key) => format!("conflict: {}", describe_conflict(key)),
        Outcome::NotCommitted(why) => format!("its effects were not committed: {why}"),
        Outcome::Cancelled(why) => (*why).to_owned(),
    }
}

/// Describes to a caller that an agent's handlers are in conflict again and again.
pub(super) fn describe_conflict(key: &str) -> String {
    format!(
        "in each of {MAX_RUNS} runs others wrote the key `{key}` between its read and its commit; with `mailbox.order = \
         \"agent\"` the agent's messages are handled one after the other"
    )
}

/// Returns the stable code of that reason; `None` if the message was handled.
pub(crate) fn code(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Reply(_) | Outcome::Done => None,
        Outcome::Failed(failure) => Some(match failure.cause {
            Cause::Rejected => "rejected",
            Cause::Unavailable => "agent-unavailable",
            Cause::Fault => "agent-fault",
        }),
        Outcome::Fault(fault) => Some(fault.code()),
        Outcome::BadReply(_) => Some("bad-reply"),
        Outcome::Refused(_) => Some("effects-refused"),
        Outcome::Conflict(_) => Some("conflict"),
        Outcome::NotCommitted(_) => Some("not-committed"),
        Outcome::Cancelled(_) => Some("gone"),
    }
}

/// Returns `true` if a failure is the agent's own fault, which its breaker counts.
pub(super) fn is_fault(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(failure) => failure.cause == Cause::Fault,
        Outcome::Fault(fault) => fault.is_guests(),
        Outcome::BadReply(_) | Outcome::Refused(_) => true,
        Outcome::Conflict(_) | Outcome::NotCommitted(_) | Outcome::Cancelled(_) | Outcome::Reply(_) | Outcome::Done => {
            false
        }
    }
}
