//! Faults: the reasons why a call of a guest has no result.

use std::time::Duration;

use wasmtime::Trap;

use super::backtrace::backtrace;
use super::symbols::Symbols;
use super::trail::Trail;

/// The reason why a call of a guest has no result. The instance is dropped after any of these.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    /// The guest trapped.
    #[error("trapped: {message}{trail}")]
    Trap {
        /// The trap's message.
        message: String,
        /// Further details.
        trail: Trail,
    },
    /// The guest exceeded `limits.cpu`.
    #[error("cpu-exceeded: used more than {} ms on a core{trail}", limit.as_millis())]
    Cpu {
        /// The bound.
        limit: Duration,
        /// Further details.
        trail: Trail,
    },
    /// The guest exceeded `limits.fuel`.
    #[error("fuel-exceeded: used more than {limit} units of fuel{trail}")]
    Fuel {
        /// The bound.
        limit: u64,
        /// Further details.
        trail: Trail,
    },
    /// The call exceeded `limits.time`.
    #[error("deadline-exceeded: took longer than {} ms{trail}", limit.as_millis())]
    Time {
        /// The bound.
        limit: Duration,
        /// Further details.
        trail: Trail,
    },
    /// The call exceeded the caller's own deadline, which is shorter than `limits.time`.
    #[error("deadline-exceeded: its caller waited no longer than {} ms", limit.as_millis())]
    Patience {
        /// The caller's deadline.
        limit: Duration,
    },
    /// No instance could be started.
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
    #[error("no response: {why}{trail}")]
    NoResponse {
        /// The reason.
        why: String,
        /// Further details.
        trail: Trail,
    },
    /// The caller left before the response was complete. Occurs in HTTP calls only.
    #[error("abandoned: the caller left")]
    Abandoned,
    /// No instance became free in time.
    #[error("overloaded: no instance became free in time")]
    Overloaded,
    /// The host failed.
    #[error("host error: {0}")]
    Host(String),
}

/// The error that the epoch callback raises in a guest.
#[derive(Debug, thiserror::Error)]
#[error("the budget of time on a core is used up")]
pub(super) struct CpuExhausted;

/// The error that ends a run which would depend on a reserved key.
#[derive(Debug, thiserror::Error)]
#[error("another handler has the key `{0}` reserved")]
pub(super) struct Reserved(pub(super) String);

impl Fault {
    /// Returns the stable code of the fault (SPEC §5).
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Trap { .. } => "trap",
            Self::Cpu { .. } => "cpu-exceeded",
            Self::Fuel { .. } => "fuel-exceeded",
            Self::Time { .. } | Self::Patience { .. } => "deadline-exceeded",
            Self::Start(_) => "start-failed",
            Self::Restore(_) => "restore-failed",
            Self::Interrupted => "interrupted",
            Self::Reserved(_) => "conflict",
            Self::NoResponse { .. } => "no-response",
            Self::Abandoned => "abandoned",
            Self::Overloaded => "overloaded",
            Self::Host(_) => "host-error",
        }
    }

    /// Returns `true` if the guest caused it, and neither the host nor the caller.
    pub(crate) fn is_guests(&self) -> bool {
        match self {
            Self::Trap { .. }
            | Self::Cpu { .. }
            | Self::Fuel { .. }
            | Self::Time { .. }
            | Self::Start(_)
            | Self::Restore(_)
            | Self::NoResponse { .. } => true,
            Self::Patience { .. }
            | Self::Interrupted
            | Self::Reserved(_)
            | Self::Abandoned
            | Self::Overloaded
            | Self::Host(_) => false,
        }
    }

    /// Converts an error of wasmtime, given the limits of the call. `words` are the guest's last lines on stderr.
    pub(super) fn of(error: &wasmtime::Error, bounds: Bounds, symbols: &Symbols, words: String) -> Self {
        let Bounds { cpu, fuel, refused } = bounds;
        // Made for all of them: a loop that exceeds its limits is found by its backtrace.
        let trail = Trail::new(backtrace(error, symbols), words, refused);
        if error.is::<CpuExhausted>() {
            return Self::Cpu { limit: cpu, trail };
        }
        if let Some(Reserved(key)) = error.downcast_ref() {
            return Self::Reserved(key.clone());
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Self::Fuel { limit: fuel.unwrap_or_default(), trail },
            // wasmtime adds context around a trap, which the backtrace repeats.
            Some(trap) => Self::Trap { message: trap.to_string(), trail },
            // An error of a host function, such as an invalid handle, is the guest's doing too.
            None => Self::Trap { message: error.root_cause().to_string(), trail },
        }
    }

    /// Returns the details; `None` for faults that do not come from a running guest.
    pub(crate) fn trail(&self) -> Option<&Trail> {
        match self {
            Self::Trap { trail, .. }
            | Self::Cpu { trail, .. }
            | Self::Fuel { trail, .. }
            | Self::Time { trail, .. }
            | Self::NoResponse { trail, .. } => Some(trail),
            Self::Start(_)
            | Self::Restore(_)
            | Self::Patience { .. }
            | Self::Interrupted
            | Self::Reserved(_)
            | Self::Abandoned
            | Self::Overloaded
            | Self::Host(_) => None,
        }
    }
}

/// The limits of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// CPU time.
    pub(super) cpu: Duration,
    /// Units of fuel.
    pub(super) fuel: Option<u64>,
    /// The memory limit in bytes, if the guest was refused memory beyond it.
    pub(super) refused: Option<u64>,
}
