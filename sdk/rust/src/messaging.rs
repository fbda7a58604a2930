//! Other agents: who they are, and asking several at once. One message at a time is written with
//! [`Draft`].

use std::time::Duration;

use crate::bindings::caxton::agent::messaging;
use crate::{Draft, Message, RequestError, SendError};

/// Sends several messages at once and waits until each has its answer or its error: a call for proposals, for
/// example. The results stand in the order of the drafts. This is not undone when handling fails. A draft that is
/// still an `inform` goes out as a `request`.
pub fn request_all(drafts: &[Draft], timeout: Duration) -> Vec<Result<Message, RequestError>> {
    let drafts: Vec<Draft> = drafts.iter().map(|draft| draft.as_question().into_owned()).collect();
    messaging::request_all(&drafts, whole_millis(timeout))
}

/// Cancels a timer when the message being handled commits: a message of this agent that waits for its time, by the id that
/// [`Draft::send`] gave or by its [name](Draft::named). True means that there is one and that it will not come; it may
/// have been sent while handling this message.
///
/// # Errors
/// The reason why it cannot be cancelled now.
pub fn cancel(timer: &str) -> Result<bool, SendError> {
    messaging::cancel(timer)
}

/// The names of the running agents that declare a capability, in order of name.
pub fn find(capability: &str) -> Vec<String> {
    messaging::find(capability)
}

/// A duration as the contract counts it, a part of a millisecond taken for a whole one.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::whole_millis;
    use std::time::Duration;

    #[test]
    fn no_duration_becomes_shorter_or_nothing() {
        let rows = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_micros(1_001), 2),
            (Duration::from_millis(7), 7),
            (Duration::MAX, u64::MAX),
        ];
        for (duration, millis) in rows {
            assert_eq!(whole_millis(duration), millis, "{duration:?}");
        }
    }
}
