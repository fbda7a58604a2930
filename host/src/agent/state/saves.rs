//! The outcome of an agent's last saves, by which the next are delayed and reported.

use std::time::{Duration, Instant};

/// The wait after a save that failed before an idle instance is saved again, and the longest such wait.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// A save above this part of its bound is warned of, in percent.
const NEAR: u64 = 80;

/// The outcome of an agent's last saves.
#[derive(Debug, Default)]
pub(in crate::agent) struct Saves {
    /// Saves that failed since one that did not.
    failed: u32,
    /// The time before which no idle instance is saved.
    rests_until: Option<Instant>,
    /// Set if the last one was near its bound, which was reported.
    near: bool,
}

impl Saves {
    /// Returns `true` if no idle instance is saved `now`, since a save failed not long ago.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// Records a save that succeeded.
    pub(super) fn succeed(&mut self) {
        (self.failed, self.rests_until) = (0, None);
    }

    /// Records a save that failed, and delays the next of an idle instance.
    pub(super) fn fail(&mut self, now: Instant) {
        // The shift is bounded, or it would overflow after 32 failures.
        let pause = PAUSE.0.saturating_mul(1 << self.failed.min(16)).min(PAUSE.1);
        self.failed = self.failed.saturating_add(1);
        self.rests_until = Some(now + pause);
    }

    /// Lets the next idle instance be saved at once.
    pub(super) fn end_rest(&mut self) {
        self.rests_until = None;
    }

    /// Records the size of a save. Returns `true` if it is near its bound and the one before was not.
    pub(super) fn comes_near(&mut self, bytes: u64, max: u64) -> bool {
        let near = bytes > max / 100 * NEAR;
        // Replaced also when it falls, so that the next rise is reported again.
        let before = std::mem::replace(&mut self.near, near);
        near && !before
    }
}
