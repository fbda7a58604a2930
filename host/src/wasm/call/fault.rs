//! Faults from errors of wasmtime.

use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap};

use crate::bounds;
use crate::memory_budget::MemoryShortage;
use crate::message::{Diagnostics, ExceededBound, Fault};
use crate::wasm::call::backtrace::backtrace;
use crate::wasm::call::symbols::Symbols;

/// The error that the epoch callback raises in a guest.
#[derive(Debug, thiserror::Error)]
#[error("the budget of time on a core is used up")]
pub(in crate::wasm) struct CpuExhausted;

/// The error that ends a run which would depend on a reserved key.
#[derive(Debug, thiserror::Error)]
#[error("another handler has the key `{0}` reserved")]
pub(in crate::wasm) struct Reserved(pub(in crate::wasm) String);

/// Converts an error of wasmtime, given the limits of the call. `stderr` are the guest's last lines on stderr.
pub(in crate::wasm) fn of_error(error: &wasmtime::Error, bounds: Bounds, symbols: &Symbols, stderr: String) -> Fault {
    let Bounds { cpu, fuel, refused } = bounds;
    // Made for all of them: a loop that exceeds its limits is found by its backtrace.
    let diagnostics = Diagnostics::new(backtrace(error, symbols), stderr, refused);
    if error.is::<MemoryShortage>() {
        return Fault::HostMemory;
    }
    if error.is::<PoolConcurrencyLimitError>() {
        // Only where tasks of guests keep stacks: there is a permit for all else.
        return Fault::Overloaded;
    }
    if error.is::<CpuExhausted>() {
        return Fault::Cpu { limit: cpu, diagnostics };
    }
    if let Some(Reserved(key)) = error.downcast_ref() {
        // Not the guest's fault: the run is repeated, and the breaker does not count it.
        return Fault::Reserved(key.clone());
    }
    if let Some(exceeded) = exceeded(error) {
        return Fault::Exceeded { exceeded, diagnostics };
    }
    let message = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return Fault::Fuel { limit: fuel.unwrap_or_default(), diagnostics },
        // wasmtime adds context around a trap, which the backtrace repeats.
        Some(trap) => trap.to_string(),
        // An error of a host function, such as an invalid handle, is the guest's doing too, and may quote it.
        None => error.root_cause().to_string(),
    };
    Fault::Trap { message: bounds::cut(message, bounds::REASON), diagnostics }
}

/// The error of a request for more random bytes than a guest may have at once.
#[derive(Debug, thiserror::Error)]
#[error("a guest may ask for {0} random bytes at once")]
pub(in crate::wasm) struct TooManyRandomBytes(pub(in crate::wasm) u64);

/// The texts of wasmtime for a store without room for a handle, and for a call that copies too much. It has no types for
/// them that are public; a test provokes both.
const HANDLES: &str = "store handle limit exceeded";
const COPIES: &str = "fuel allocated for hostcalls has been exhausted";

/// Returns the bound of the host that an error of a call is about.
fn exceeded(error: &wasmtime::Error) -> Option<ExceededBound> {
    if let Some(TooManyRandomBytes(most)) = error.downcast_ref() {
        return Some(ExceededBound::Random(*most));
    }
    if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
        return Some(ExceededBound::Handles);
    }
    let root = error.root_cause().to_string();
    if root.contains(HANDLES) {
        Some(ExceededBound::Handles)
    } else if root.contains(COPIES) {
        Some(ExceededBound::Copies)
    } else {
        None
    }
}

/// The limits of a call.
#[derive(Debug, Clone, Copy)]
pub(in crate::wasm) struct Bounds {
    /// CPU time.
    pub(in crate::wasm) cpu: Duration,
    /// Units of fuel.
    pub(in crate::wasm) fuel: Option<u64>,
    /// The memory limit in bytes, if the guest was refused memory beyond it.
    pub(in crate::wasm) refused: Option<u64>,
}
