//! Why a call of a guest brought no result.

use std::time::Duration;

use wasmtime::Trap;

/// Why a call of a guest brought no result. After any of these the instance is dropped.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Fault {
    /// The guest stopped itself, or did what WebAssembly forbids.
    #[error("trapped: {message}")]
    Trap {
        /// What happened.
        message: String,
        /// Where in the guest, innermost first; empty when unknown.
        backtrace: String,
    },
    /// More time on a core than `limits.cpu`.
    #[error("cpu-exceeded: used more than {} ms on a core", limit.as_millis())]
    Cpu {
        /// The bound.
        limit: Duration,
    },
    /// More instructions than `limits.fuel`.
    #[error("fuel-exceeded: used more than {limit} units of fuel")]
    Fuel {
        /// The bound.
        limit: u64,
    },
    /// More time by the clock than `limits.time`.
    #[error("deadline-exceeded: took longer than {} ms", limit.as_millis())]
    Time {
        /// The bound.
        limit: Duration,
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
    /// The guest ended well and left no usable response: only in calls over HTTP.
    #[error("no response: {0}")]
    NoResponse(String),
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
            Self::NoResponse(_) => "no-response",
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
            | Self::NoResponse(_) => true,
            Self::Patience { .. } | Self::Interrupted | Self::Abandoned | Self::Overloaded | Self::Host(_) => false,
        }
    }

    /// What an error of wasmtime means, given the bounds that were in force.
    pub(super) fn of(error: &wasmtime::Error, cpu: Duration, fuel: Option<u64>) -> Self {
        if error.is::<CpuExhausted>() {
            return Self::Cpu { limit: cpu };
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Self::Fuel { limit: fuel.unwrap_or_default() },
            // The message of a trap is its own; the context above it is where it happened.
            Some(trap) => Self::Trap { message: trap.to_string(), backtrace: backtrace(error) },
            None => Self::Trap { message: error.root_cause().to_string(), backtrace: backtrace(error) },
        }
    }
}

/// The guest's frames, one a line, innermost first.
fn backtrace(error: &wasmtime::Error) -> String {
    use std::fmt::Write;

    let Some(trace) = error.downcast_ref::<wasmtime::WasmBacktrace>() else { return String::new() };
    let mut text = String::new();
    for (index, frame) in trace.frames().iter().enumerate() {
        let module = frame.module().name().unwrap_or("?");
        let function = frame.func_name().unwrap_or("?");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{index}: {module}!{function}");
    }
    text
}
