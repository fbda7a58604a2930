//! A table of stable codes for the outcomes of messages and calls, with their HTTP status.

/// A code with its meaning to a client.
#[derive(Debug)]
pub(crate) struct Meaning {
    /// A stable name, for programs.
    pub(crate) code: &'static str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// Set if the same request may succeed soon.
    pub(crate) is_retryable: bool,
    /// The text for a person, where nothing more exact is known.
    pub(crate) text: &'static str,
}

/// A row of a table of codes.
pub(crate) const fn meaning(code: &'static str, status: u16, is_retryable: bool, text: &'static str) -> Meaning {
    Meaning { code, status, is_retryable, text }
}

/// The codes of [`AdmitError::code`](super::AdmitError::code), [`code`](super::code()) and
/// [`Fault::code`](crate::message::Fault::code).
pub(crate) const MEANINGS: &[Meaning] = &[
    // The message is not as it has to be.
    meaning("invalid", 400, false, "a part of the message is not as it has to be"),
    meaning("not-allowed", 403, false, "the sender may not send to this agent"),
    meaning("unknown-receiver", 404, false, "no running agent has this name"),
    meaning("too-large", 413, false, "the body is larger than it may be"),
    meaning("rejected", 422, false, "the agent rejected the message"),
    // The agent failed.
    meaning("agent-fault", 500, false, "the agent found itself in error"),
    meaning("trap", 500, false, "the agent stopped itself in the middle of its work"),
    meaning("cpu-exceeded", 500, false, "the agent used more time on a core than it may"),
    meaning("fuel-exceeded", 500, false, "the agent used more instructions than it may"),
    meaning("handles-exceeded", 500, false, "the agent held more resources of the host than it may"),
    meaning("random-exceeded", 500, false, "the agent asked for more random bytes at once than it may"),
    meaning("copies-exceeded", 500, false, "the agent passed more to the host in one call than its memory holds"),
    meaning("start-failed", 500, false, "the agent could not be started"),
    meaning("restore-failed", 500, false, "the agent refused the state that it had saved"),
    meaning("bad-reply", 500, false, "the agent gave a reply that cannot be sent"),
    meaning("no-response", 500, false, "the agent ended without a response"),
    meaning("deadline-exceeded", 504, false, "the agent did not answer in time"),
    // The host cannot, or not now.
    meaning("host-error", 500, false, "the host could not do its part"),
    meaning("unsupported", 501, false, "the host cannot do this"),
    meaning("too-many-hops", 508, false, "the message has too many hops: messages that caused one another"),
    meaning("mailbox-full", 503, true, "as many messages wait for the agent as may"),
    meaning("unavailable", 503, true, "the agent takes no messages at the moment"),
    meaning("agent-unavailable", 503, true, "the agent misses something that it needs"),
    meaning("overloaded", 503, true, "no instance of the agent became free in time"),
    meaning(
        "restarting",
        503,
        true,
        "the agent's instances failed to start, and the next one is started after a pause",
    ),
    meaning("budget-exceeded", 429, false, "the budget of the request has nothing left"),
    meaning("host-memory", 503, true, "the host has no memory left for it at the moment"),
    meaning("interrupted", 503, true, "the agent was stopped in the middle of its work"),
    meaning("attempts-exhausted", 500, false, "every attempt of the agent at the message failed"),
    meaning("unknown-outcome", 500, false, "a call of the agent may have been carried out or not, and is not repeated"),
    meaning("expired", 503, false, "the message waited longer than it may"),
    meaning("agent-removed", 503, false, "the agent was removed before it came to the message"),
    meaning("effects-refused", 500, false, "what the agent did is more than it may do, so it counts as not done"),
    meaning("breaker-open", 503, true, "the agent failed again and again and is left alone for a while"),
    meaning("not-kept", 503, true, "the message could not be made to last, so it was not accepted"),
    meaning("key-reused", 422, false, "the idempotency key belongs to another request"),
    meaning("not-understood", 422, false, "the message is not legal at this place of its conversation"),
    meaning("not-committed", 503, true, "what the agent did could not be made to last, so it counts as not done"),
    meaning("conflict", 503, true, "others wrote what the agent had read, again and again, so it counts as not done"),
    meaning("gone", 503, true, "the agent ended before it came to the message"),
    meaning("abandoned", 503, true, "the caller left"),
];
