//! Failures of a handler, by cause: the cause decides what the host does next.

use std::fmt::Display;
use std::time::Duration;

use crate::messaging::whole_millis;
use crate::{Cause, Failure, RequestError, SendError, StateError};

impl Failure {
    /// Creates a failure caused by the message: it can never be handled as it is, and no further attempt is made.
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self::new(Cause::Rejected, reason)
    }

    /// Creates a failure caused by something outside that is missing at the moment. Another attempt may succeed.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::new(Cause::Unavailable, reason)
    }

    /// Creates a failure caused by this agent. Another attempt is made, and the failure counts against this revision.
    pub fn fault(reason: impl Into<String>) -> Self {
        Self::new(Cause::Fault, reason)
    }

    /// Sets the least time before another attempt.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after_ms = Some(whole_millis(delay));
        self
    }

    fn new(cause: Cause, reason: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), retry_after_ms: None }
    }
}

/// A wrong draft is a fault of the agent; a receiver that cannot take the message is `unavailable`.
impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        let reason = describe_send_error(&error);
        match error {
            // These pass by themselves: a mailbox drains, an agent starts or is declared.
            SendError::MailboxFull(_) | SendError::Unavailable(_) | SendError::UnknownReceiver(_) => {
                Self::unavailable(reason)
            }
            // These stay until the agent or its declaration changes. Every variant is named, so that a
            // new one of the contract is decided here.
            SendError::NotAllowed(_)
            | SendError::TooLarge(_)
            | SendError::TooManySends(_)
            | SendError::TooManyHops(_)
            | SendError::Invalid(_)
            | SendError::Unsupported(_) => Self::fault(reason),
        }
    }
}

/// A request that was not accepted fails as a send does; one without an answer is `unavailable`.
impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::NotSent(error) => error.into(),
            RequestError::TimedOut => Self::unavailable("the time for an answer ran out"),
            RequestError::Failed(reason) => Self::unavailable(format!("the receiver failed: {reason}")),
            // Both would happen again at each attempt, so they count against the revision.
            RequestError::NoReply => Self::fault("the receiver gave no answer"),
            RequestError::Deadlock(agents) => Self::fault(format!("agents wait for each other: {}", agents.join(", "))),
        }
    }
}

/// Maps state that cannot be reached to `unavailable`, and everything else to a fault of the agent.
impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Unavailable(reason) => Self::unavailable(format!("state cannot be reached: {reason}")),
            StateError::Quota(limit) => {
                Self::fault(format!("state may hold {limit} bytes (limits.state) and would hold more"))
            }
            StateError::InvalidKey(limit) => {
                Self::fault(format!("a key of state is empty or longer than {limit} bytes"))
            }
            StateError::TooLarge(limit) => Self::fault(format!(
                "a value of state is larger than {limit} bytes, or all that this handling sends and writes (limits.effects)"
            )),
            StateError::TooManyWrites(limit) => {
                Self::fault(format!("more than {limit} writes in one handling (limits.writes)"))
            }
            StateError::NotANumber => Self::fault("a value of state is not a number, or the sum is out of range"),
        }
    }
}

/// A value that cannot be written as JSON, or read back, is a fault of the agent. For the content of a message use
/// [`Message::json`](crate::Message::json), which rejects the message.
impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        // The agent chose the type, so another attempt fails in the same way.
        Self::fault(error.to_string())
    }
}

impl From<Box<dyn std::error::Error>> for Failure {
    fn from(error: Box<dyn std::error::Error>) -> Self {
        Self::fault(error.to_string())
    }
}

fn describe_send_error(error: &SendError) -> String {
    match error {
        SendError::UnknownReceiver(receiver) => format!("no agent that runs is {receiver}"),
        SendError::NotAllowed(receiver) => {
            format!("this agent may not send to {receiver} (allow.send does not name it)")
        }
        SendError::TooLarge(limit) => format!(
            "the message is larger than {limit} bytes (limits.message), or all that this handling sends and writes \
             (limits.effects)"
        ),
        SendError::MailboxFull(limit) => {
            format!("the receiver's mailbox holds {limit} messages and takes no more (mailbox.depth)")
        }
        SendError::TooManySends(limit) => format!("more than {limit} messages sent in one handling (limits.sends)"),
        SendError::TooManyHops(limit) => {
            format!("the message would have more than {limit} hops (limits.hops)")
        }
        SendError::Invalid(part) => format!("the draft is not as it has to be: {part}"),
        SendError::Unsupported(what) => format!("this host cannot do it: {what}"),
        SendError::Unavailable(reason) => format!("the receiver takes no messages at the moment: {reason}"),
    }
}

/// Converts any error into a [`Failure`] with a chosen cause.
///
/// ```
/// use caxton_sdk::prelude::*;
///
/// fn double(text: &str) -> Result<i64, Failure> {
///     let number: i64 = text.parse().or_reject()?;
///     number.checked_mul(2).ok_or_else(|| Failure::rejected("too large"))
/// }
/// assert_eq!(double("21"), Ok(42));
/// assert_eq!(double("x").unwrap_err().cause, caxton_sdk::Cause::Rejected);
/// ```
pub trait OrFail<T> {
    /// Converts an error into a failure caused by the message.
    ///
    /// # Errors
    /// The error, as a failure with the cause `rejected`.
    fn or_reject(self) -> Result<T, Failure>;

    /// Converts an error into a failure caused by something outside that is missing at the moment.
    ///
    /// # Errors
    /// The error, as a failure with the cause `unavailable`.
    fn or_unavailable(self) -> Result<T, Failure>;

    /// Converts an error into a failure caused by this agent.
    ///
    /// # Errors
    /// The error, as a failure with the cause `fault`.
    fn or_fault(self) -> Result<T, Failure>;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_reject(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::rejected(error.to_string()))
    }

    fn or_unavailable(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::unavailable(error.to_string()))
    }

    fn or_fault(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::fault(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Cause, Failure, RequestError, SendError, StateError};

    /// A wrong cause costs either useless attempts or a message that could have been handled.
    #[test]
    fn errors_of_the_host_get_the_right_cause() {
        let rows: [(Failure, Cause); 9] = [
            (SendError::MailboxFull(9).into(), Cause::Unavailable),
            (SendError::UnknownReceiver("x".into()).into(), Cause::Unavailable),
            (SendError::NotAllowed("x".into()).into(), Cause::Fault),
            (SendError::TooManyHops(9).into(), Cause::Fault),
            (RequestError::TimedOut.into(), Cause::Unavailable),
            (RequestError::NotSent(SendError::Unavailable("x".into())).into(), Cause::Unavailable),
            (RequestError::Deadlock(vec!["a".into(), "b".into()]).into(), Cause::Fault),
            (StateError::Unavailable("x".into()).into(), Cause::Unavailable),
            (StateError::NotANumber.into(), Cause::Fault),
        ];
        for (failure, cause) in rows {
            assert_eq!(failure.cause, cause, "{}", failure.reason);
            assert!(!failure.reason.is_empty());
        }
    }

    #[test]
    fn the_error_of_a_limit_names_its_key() {
        let rows: [(Failure, &str); 6] = [
            (SendError::TooLarge(9).into(), "limits.message"),
            (SendError::MailboxFull(9).into(), "mailbox.depth"),
            (SendError::TooManySends(9).into(), "limits.sends"),
            (SendError::TooManyHops(9).into(), "limits.hops"),
            (StateError::Quota(9).into(), "limits.state"),
            (StateError::TooManyWrites(9).into(), "limits.writes"),
        ];
        for (failure, key) in rows {
            assert!(failure.reason.contains(key), "{}", failure.reason);
        }
    }
}
