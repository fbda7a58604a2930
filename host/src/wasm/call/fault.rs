//! Faults from errors of wasmtime.

use std::time::Duration;

use wasmtime::Trap;

use crate::message::{Diagnostics, Fault};
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
    if error.is::<CpuExhausted>() {
        return Fault::Cpu { limit: cpu, diagnostics };
    }
    if let Some(Reserved(key)) = error.downcast_ref() {
        // Not the guest's fault: the run is repeated, and the breaker does not count it.
        return Fault::Reserved(key.clone());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Fault::Fuel { limit: fuel.unwrap_or_default(), diagnostics },
        // wasmtime adds context around a trap, which the backtrace repeats.
        Some(trap) => Fault::Trap { message: trap.to_string(), diagnostics },
        // An error of a host function, such as an invalid handle, is the guest's doing too.
        None => Fault::Trap { message: error.root_cause().to_string(), diagnostics },
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
