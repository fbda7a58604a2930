//! Why a call of a guest brought no result.

use std::time::Duration;

use wasmtime::Trap;

use super::backtrace::backtrace;
use super::symbols::Symbols;
use super::trail::Trail;

/// Why a call of a guest brought no result. After any of these the instance is dropped.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    /// The guest stopped itself, or did what WebAssembly forbids.
    #[error("trapped: {message}{trail}")]
    Trap {
        /// What happened.
        message: String,
        /// What else is known.
        trail: Trail,
    },
    /// More time on a core than `limits.cpu`.
    #[error("cpu-exceeded: used more than {} ms on a core{trail}", limit.as_millis())]
    Cpu {
        /// The bound.
        limit: Duration,
        /// What else is known.
        trail: Trail,
    },
    /// More instructions than `limits.fuel`.
    #[error("fuel-exceeded: used more than {limit} units of fuel{trail}")]
    Fuel {
        /// The bound.
        limit: u64,
        /// What else is known.
        trail: Trail,
    },
    /// More time by the clock than `limits.time`.
    #[error("deadline-exceeded: took longer than {} ms{trail}", limit.as_millis())]
    Time {
        /// The bound.
        limit: Duration,
        /// What else is known.
        trail: Trail,
    },
    /// More time by the clock than the caller waits, which is less than `limits.time`.
    #[error("deadline-exceeded: its caller waited no longer than {} ms", limit.as_millis())]
    Patience {
        /// How long the caller waits.
        limit: Duration,
    },
    /// No instance could be started.
    #[error("no instance could be started: {0}")]
    Start(String),
    /// The saved state was refused.
    #[error("the saved state was refused: {0}")]
    Restore(String),
    /// The call was broken off because its revision stops.
    #[error("interrupted: its revision stops")]
    Interrupted,
    /// The call was broken off before something followed from this key, which another handler has reserved.
    #[error("conflict: another handler has the key `{0}` reserved")]
    Reserved(String),
    /// The guest ended well and left no usable response: only in calls over HTTP.
    #[error("no response: {why}{trail}")]
    NoResponse {
        /// What it did instead.
        why: String,
        /// What else is known.
        trail: Trail,
    },
    /// Whoever called left before there was an answer: only in calls over HTTP.
    #[error("abandoned: the caller left")]
    Abandoned,
    /// No instance became free in time.
    #[error("overloaded: no instance became free in time")]
    Overloaded,
    /// The host could not do its part.
    #[error("host error: {0}")]
    Host(String),
}

/// Carried by a trap that the epoch callback raises.
#[derive(Debug, thiserror::Error)]
#[error("the budget of time on a core is used up")]
pub(super) struct CpuExhausted;

/// Carried by a trap that ends a run which would depend on a reserved key.
#[derive(Debug, thiserror::Error)]
#[error("another handler has the key `{0}` reserved")]
pub(super) struct Reserved(pub(super) String);

impl Fault {
    /// The stable code of this kind of fault (SPEC §5).
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

    /// Whether it is the guest's own doing, and not the host's or the caller's.
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

    /// What an error of wasmtime means, given the bounds that were in force. `words` are the guest's last, and `refused`
    /// is a bound of memory that it met before.
    pub(super) fn of(error: &wasmtime::Error, bounds: Bounds, symbols: &Symbols, words: String) -> Self {
        let Bounds { cpu, fuel, refused } = bounds;
        let trail = Trail::new(backtrace(error, symbols), words, refused);
        if error.is::<CpuExhausted>() {
            return Self::Cpu { limit: cpu, trail };
        }
        if let Some(Reserved(key)) = error.downcast_ref() {
            return Self::Reserved(key.clone());
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Self::Fuel { limit: fuel.unwrap_or_default(), trail },
            // The message of a trap is its own; the context above it is where it happened.
            Some(trap) => Self::Trap { message: trap.to_string(), trail },
            None => Self::Trap { message: error.root_cause().to_string(), trail },
        }
    }

    /// What is known beside its kind; none of faults that are not of a guest at work.
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

/// The bounds that were in force in a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Time on a core.
    pub(super) cpu: Duration,
    /// Instructions.
    pub(super) fuel: Option<u64>,
    /// Bytes of memory, if the guest was refused more.
    pub(super) refused: Option<u64>,
}
