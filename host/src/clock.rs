//! Reading the clocks, in one place.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970-01-01T00:00:00Z, exact to the tick of the system's clock (mostly 1 to 4 ms) and never
/// ahead of it: what is asked several times for every message is to cost little. 0 for a clock that is set before.
pub(crate) fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000)
}

/// What this thread ever had of a core. Asks the system, which costs more than the other clocks.
pub(crate) fn core_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
