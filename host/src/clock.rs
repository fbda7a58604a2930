//! The clocks of the host.
//!
//! | clock | is for |
//! |---|---|
//! | [`now_ms`] | what is shown or stored, and calendar times: follows the wall clock, also when it is set |
//! | [`steady_ms`] | waits within one run: backoff, `after-ms`, timeouts. Equal to the wall clock when the host starts, then only forward |
//! | `Instant` | waits that are not stored |
//!
//! A wait is stored as a time of the wall clock ([`to_wall`]), so that it goes on after a restart, and loaded as a time
//! of the steady clock ([`from_wall`]). Both are the same number as long as the wall clock is not set.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The lead of the wall clock over the steady one in milliseconds, as of the last [`take_jump`].
static AHEAD: AtomicI64 = AtomicI64::new(0);
/// The milliseconds by which a test has set the wall clock ahead; 0 in every other program.
static SET_AHEAD: AtomicI64 = AtomicI64::new(0);
/// Differences up to this many milliseconds are ignored: they come from reading two clocks one after the other.
const TOLERANCE: u64 = 100;

/// Returns milliseconds since 1970-01-01T00:00:00Z. Exact to the tick of the kernel (mostly 1 to 4 ms) and never ahead,
/// which makes it cheap enough for several calls for each message. 0 if the clock is set before 1970.
pub(crate) fn now_ms() -> u64 {
    let wall = nanoseconds(clock_gettime(ClockId::RealtimeCoarse)) / 1_000_000;
    u64::try_from(wall.saturating_add(SET_AHEAD.load(Ordering::Relaxed))).unwrap_or(0)
}

/// Returns milliseconds since 1970 by a clock that cannot be set: it equals the wall clock at its first call and then
/// advances steadily. As exact and as cheap as [`now_ms`].
pub(crate) fn steady_ms() -> u64 {
    let passed = nanoseconds(clock_gettime(ClockId::MonotonicCoarse));
    u64::try_from(passed.saturating_add(origin()) / 1_000_000).unwrap_or(0)
}

/// Returns the difference between the wall clock and the monotonic clock at the first call, in nanoseconds.
fn origin() -> i64 {
    static ORIGIN: OnceLock<i64> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        loop {
            let before = nanoseconds(clock_gettime(ClockId::MonotonicCoarse));
            let wall = nanoseconds(clock_gettime(ClockId::RealtimeCoarse));
            // Both must be of the same tick: otherwise the clocks would differ by one for ever.
            if nanoseconds(clock_gettime(ClockId::MonotonicCoarse)) == before {
                return wall - before;
            }
        }
    })
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// Returns the lead of the wall clock over the steady one in milliseconds: the sum of all its changes since the start.
pub(crate) fn ahead() -> i64 {
    let seen = now_ms().cast_signed() - steady_ms().cast_signed();
    let known = AHEAD.load(Ordering::Relaxed);
    // Two reads are never quite simultaneous. Keeping the known lead makes conversions back and forth exact.
    if seen.abs_diff(known) <= TOLERANCE { known } else { seen }
}

/// Returns `true` while the wall clock differs from the steady one.
pub(crate) fn is_set() -> bool {
    ahead() != 0
}

/// Converts a time of the steady clock to one of the wall clock.
pub(crate) fn to_wall(steady: u64) -> u64 {
    steady.saturating_add_signed(ahead())
}

/// Converts a time of the wall clock to one of the steady clock.
pub(crate) fn from_wall(wall: u64) -> u64 {
    wall.saturating_add_signed(-ahead())
}

/// Converts an instant in the past or the future to a time of the steady clock.
pub(crate) fn steady_at(instant: Instant) -> u64 {
    let (steady, now) = (steady_ms(), Instant::now());
    // One of the two is zero.
    let (past, left) = (now.saturating_duration_since(instant), instant.saturating_duration_since(now));
    steady.saturating_add(millis(left)).saturating_sub(millis(past))
}

/// Returns the whole milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Compares the clocks. Returns the milliseconds by which the wall clock was set ahead since the last call, negative if
/// it was set back; `None` if it was not set. A machine that slept appears to have been set ahead.
pub(crate) fn take_jump() -> Option<i64> {
    let (now, before) = (ahead(), AHEAD.load(Ordering::Relaxed));
    if now == before {
        return None;
    }
    // Relaxed: the value publishes no other memory.
    AHEAD.store(now, Ordering::Relaxed);
    Some(now - before)
}

/// Sets the wall clock of this process this many seconds ahead of the system's, for tests.
pub(crate) fn set_ahead(seconds: i64) {
    SET_AHEAD.store(seconds.saturating_mul(1_000), Ordering::Relaxed);
}

/// Returns the CPU time of this thread. A system call, so dearer than the other clocks.
pub(crate) fn core_time() -> Duration {
    // CPU clocks are not in the vDSO, so this enters the kernel.
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_agree_until_one_is_set() {
        for _ in 0..10_000 {
            let (before, wall, after) = (steady_ms(), now_ms(), steady_ms());
            assert!(before <= after, "it goes forward");
            assert!(before <= wall && wall <= after, "{before} {wall} {after}");
            assert_eq!((to_wall(wall), from_wall(wall)), (wall, wall));
        }
        assert_eq!(take_jump(), None);
        for seconds in [0, 1, 3_600] {
            let (now, away) = (Instant::now(), Duration::from_secs(seconds));
            let before = steady_ms();
            let (past, coming) = (now.checked_sub(away).map(steady_at), steady_at(now + away));
            let after = steady_ms() + 10;
            // The machine may have booted less than an hour ago.
            assert!(past.is_none_or(|past| (before - 10..=after).contains(&(past + 1_000 * seconds))), "{seconds}");
            assert!((before - 10..=after).contains(&(coming - 1_000 * seconds)), "{seconds}");
        }
    }
}
