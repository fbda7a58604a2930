//! Faults: the reasons why a call of a guest has no result.

use std::time::Duration;

use super::diagnostics::Diagnostics;

/// The reason why a call of a guest has no result. The instance is dropped after any of these.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    /// The guest trapped.
    #[error("trapped: {message}{diagnostics}")]
    Trap {
        /// The trap's message.
        message: String,
        /// The details for the author of the guest.
        diagnostics: Diagnostics,
    },
    /// The guest exceeded a bound of the host that no setting changes.
    #[error("{}: {exceeded}{diagnostics}", exceeded.code())]
    Exceeded {
        /// The bound.
        exceeded: ExceededBound,
        /// The details for the author of the guest.
        diagnostics: Diagnostics,
    },
    /// The guest exceeded `limits.cpu`.
    #[error("cpu-exceeded: used more than {} ms on a core{diagnostics}", limit.as_millis())]
    Cpu {
        /// The bound.
        limit: Duration,
        /// The details for the author of the guest.
        diagnostics: Diagnostics,
    },
    /// The guest exceeded `limits.fuel`.
    #[error("fuel-exceeded: used more than {limit} units of fuel{diagnostics}")]
    Fuel {
        /// The bound.
        limit: u64,
        /// The details for the author of the guest.
        diagnostics: Diagnostics,
    },
    /// The call exceeded `limits.time`.
    #[error("deadline-exceeded: took longer than {} ms{diagnostics}", limit.as_millis())]
    Time {
        /// The bound.
        limit: Duration,
        /// The details for the author of the guest.
        diagnostics: Diagnostics,
    },
    /// The call exceeded the caller's own deadline, which is shorter than `limits.time`.
    #[error("deadline-exceeded: its caller waited no longer than {} ms", limit.as_millis())]
    CallerTimeout {
        /// The caller's deadline.
        limit: Duration,
    },
    /// The pool could start no instance.
    #[error("no instance could be started: {0}")]
    Start(String),
    /// The guest refused its snapshot.
    #[error("the saved state was refused: {0}")]
    Restore(String),
    /// The call was broken off because its revision stops.
    #[error("interrupted: its revision stops")]
    Interrupted,
    /// The run was broken off before it depended on this key, which another handler has reserved.
    #[error("conflict: another handler has the key `{0}` reserved")]
    Reserved(String),
    /// The guest returned without a usable response. Occurs in HTTP calls only.
    #[error("no response: {why}{diagnostics}")]
    NoResponse {
        /// The reason.
        why: String,
        /// The details for the author of the guest.
        diagnostics: Diagnostics,
    },
    /// The caller left before the response was complete. Occurs in HTTP calls only.
    #[error("abandoned: the caller left")]
    Abandoned,
    /// The time ran out before an instance became free.
    #[error("overloaded: no instance became free in time")]
    Overloaded,
    /// The instances failed to start, and the next one is not started before the caller's time is over.
    #[error("restarting: its instances failed to start, and the next one is started in {} ms", after.as_millis())]
    Restarting {
        /// The time until the start.
        after: Duration,
    },
    /// The host had no memory left for the start or the growth of an instance.
    #[error("host-memory: the host had no memory left for it within half of its time (host.memory)")]
    HostMemory,
    /// A call over HTTP may have been carried out or not, and must not be made again.
    #[error("unknown-outcome: {0}")]
    UnknownOutcome(String),
    /// The budget of the message's tree has nothing left; the text names the limit.
    #[error("{0}")]
    OverBudget(String),
    /// The host failed.
    #[error("host error: {0}")]
    Host(String),
}

/// A bound of the host on a guest, exceeded in one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExceededBound {
    /// The guest held as many handles of resources as it may.
    #[error("it held as many resources of the host, such as pollables and bodies, as it may")]
    Handles,
    /// The guest asked for more random bytes at once than it may.
    #[error("it asked for more random bytes at once than it may, which is {0}")]
    Random(u64),
    /// The lists and texts of one call to or from the host were larger than the guest's memory.
    #[error("the lists and texts that it passed to the host in one call are larger than its memory")]
    Copies,
}

impl ExceededBound {
    /// Returns the stable code of the bound.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Handles => "handles-exceeded",
            Self::Random(_) => "random-exceeded",
            Self::Copies => "copies-exceeded",
        }
    }
}

impl Fault {
    /// Returns the stable code of the fault (SPEC §5).
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Trap { .. } => "trap",
            Self::Exceeded { exceeded, .. } => exceeded.code(),
            Self::Cpu { .. } => "cpu-exceeded",
            Self::Fuel { .. } => "fuel-exceeded",
            Self::Time { .. } | Self::CallerTimeout { .. } => "deadline-exceeded",
            Self::Start(_) => "start-failed",
            Self::Restore(_) => "restore-failed",
            Self::Interrupted => "interrupted",
            Self::Reserved(_) => "conflict",
            Self::NoResponse { .. } => "no-response",
            Self::Abandoned => "abandoned",
            Self::Overloaded => "overloaded",
            Self::Restarting { .. } => "restarting",
            Self::HostMemory => "host-memory",
            Self::UnknownOutcome(_) => "unknown-outcome",
            Self::OverBudget(_) => "budget-exceeded",
            Self::Host(_) => "host-error",
        }
    }

    /// Returns `true` if the guest caused it, and neither the host nor the caller.
    pub(crate) fn is_guests(&self) -> bool {
        match self {
            Self::Trap { .. }
            | Self::Exceeded { .. }
            | Self::Cpu { .. }
            | Self::Fuel { .. }
            | Self::Time { .. }
            | Self::Start(_)
            | Self::Restore(_)
            | Self::NoResponse { .. } => true,
            Self::CallerTimeout { .. }
            | Self::Interrupted
            | Self::Reserved(_)
            | Self::Abandoned
            | Self::Overloaded
            | Self::Restarting { .. }
            | Self::HostMemory
            | Self::UnknownOutcome(_)
            | Self::OverBudget(_)
            | Self::Host(_) => false,
        }
    }

    /// Returns the details; `None` for faults that do not come from a running guest.
    pub(crate) fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Self::Trap { diagnostics, .. }
            | Self::Exceeded { diagnostics, .. }
            | Self::Cpu { diagnostics, .. }
            | Self::Fuel { diagnostics, .. }
            | Self::Time { diagnostics, .. }
            | Self::NoResponse { diagnostics, .. } => Some(diagnostics),
            Self::Start(_)
            | Self::Restore(_)
            | Self::CallerTimeout { .. }
            | Self::Interrupted
            | Self::Reserved(_)
            | Self::Abandoned
            | Self::Overloaded
            | Self::Restarting { .. }
            | Self::HostMemory
            | Self::UnknownOutcome(_)
            | Self::OverBudget(_)
            | Self::Host(_) => None,
        }
    }
}
