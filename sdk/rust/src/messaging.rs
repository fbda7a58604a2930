//! The search for agents by capability, several requests at once, and the cancelling of timers. A single message is
//! written with [`Draft`].

use std::time::Duration;

use crate::bindings::caxton::agent::messaging;
use crate::{Draft, Message, RequestError, SendError};

/// Sends several messages at once and waits until each has its answer or its error, for example for a call for
/// proposals. Returns the results in the order of the drafts. A failed handler does not undo it. A draft that is still
/// an `inform` is sent as a `request`.
pub fn request_all(drafts: &[Draft], timeout: Duration) -> Vec<Result<Message, RequestError>> {
    // Copied, since the contract takes one list of owned drafts.
    let drafts: Vec<Draft> = drafts.iter().map(|draft| draft.as_question().into_owned()).collect();
    messaging::request_all(&drafts, whole_millis(timeout))
}

/// Cancels a timer of this agent when the handler commits, by the id that [`Draft::send`] returned or by its
/// [name](Draft::named). Returns `true` if a timer is pending and will not arrive; it may have been set by the same
/// handler.
///
/// # Errors
/// The reason why it cannot be cancelled now.
pub fn cancel(timer: &str) -> Result<bool, SendError> {
    messaging::cancel(timer)
}

/// Returns the names of the running agents that declare a capability, sorted.
pub fn find(capability: &str) -> Vec<String> {
    messaging::find(capability)
}

/// Converts to milliseconds, rounded up: a short timeout must not become none.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    // Saturates: `Duration::MAX` means for ever, which the deadline bounds.
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::whole_millis;
    use std::time::Duration;

    #[test]
    fn durations_are_rounded_up() {
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
