//! The wait before a failed message is tried again.

use std::time::Duration;

use serde::Serialize;

/// An exponential backoff with an upper bound and jitter (SPEC §7).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Backoff {
    /// The wait after the first failure.
    #[serde(with = "crate::units::serde_duration")]
    pub first: Duration,
    /// The factor by which each further failure multiplies the wait.
    pub factor: f64,
    /// The upper bound of a wait, jitter included.
    #[serde(with = "crate::units::serde_duration")]
    pub max: Duration,
    /// The largest change by chance, up or down, as a part of the wait: 0.2 is a fifth.
    pub jitter: f64,
}

impl Backoff {
    /// Returns the wait after `failures` failures, the last one included; 0 counts as 1. Never longer than `max`.
    ///
    /// `chance` is from 0 to 1 and evenly distributed, so that messages which failed together are not retried together.
    pub fn delay(&self, failures: u32, chance: f64) -> Duration {
        // In floating point: a high power of the factor exceeds every integer, and saturates here instead.
        let first = self.first.as_secs_f64();
        let grown = first * self.factor.powf(f64::from(failures.saturating_sub(1)));
        let wait = grown.min(self.max.as_secs_f64());
        let moved = wait * (1.0 - self.jitter + 2.0 * self.jitter * chance.clamp(0.0, 1.0));
        // The conversion fails only for a value beyond every duration, so the bound is the answer.
        Duration::try_from_secs_f64(moved).unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: Backoff =
        Backoff { first: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(300), jitter: 0.2 };

    #[test]
    fn waits_double_up_to_the_longest() {
        let steady = Backoff { jitter: 0.0, ..DEFAULT };
        for (failures, seconds) in [(0, 1), (1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (11, 300), (u32::MAX, 300)] {
            assert_eq!(steady.delay(failures, 0.7), Duration::from_secs(seconds), "{failures}");
        }
    }

    #[test]
    fn chance_moves_a_wait_by_a_fifth() {
        for (failures, chance, millis) in
            [(1, 0.0, 800), (1, 0.5, 1_000), (1, 1.0, 1_200), (2, 0.25, 1_800), (20, 0.0, 240_000), (20, 1.0, 300_000)]
        {
            let wait = DEFAULT.delay(failures, chance);
            let off = wait.abs_diff(Duration::from_millis(millis));
            assert!(off < Duration::from_micros(1), "{failures} {chance}: {wait:?}");
        }
    }

    /// A backoff that the configuration accepts.
    fn any_backoff() -> impl Strategy<Value = Backoff> {
        (100..=300_000_u64, 100..=300_000_u64, 1.1..=5.0, 0.0..=1.0).prop_map(|(one, other, factor, jitter)| Backoff {
            first: Duration::from_millis(one.min(other)),
            factor,
            max: Duration::from_millis(one.max(other)),
            jitter,
        })
    }

    proptest! {
        #[test]
        fn without_chance_waits_only_grow(backoff in any_backoff(), failures: u32, more: u32, chance in 0.0..=1.0) {
            let steady = Backoff { jitter: 0.0, ..backoff };
            let later = failures.saturating_add(more);
            prop_assert!(steady.delay(failures, chance) <= steady.delay(later, chance));
        }

        #[test]
        fn a_wait_is_within_its_bounds(backoff in any_backoff(), failures: u32, few in 0..12_u32, chance in 0.0..=1.0) {
            let least = backoff.first.mul_f64(1.0 - backoff.jitter).saturating_sub(Duration::from_nanos(1));
            for failures in [failures, few] {
                let wait = backoff.delay(failures, chance);
                prop_assert!(least <= wait && wait <= backoff.max, "{wait:?}");
            }
        }

        #[test]
        fn no_input_panics(first: u64, max: u64, factor: f64, jitter: f64, failures: u32, chance: f64) {
            for (first, max) in [(first, max), (0, u64::MAX), (u64::MAX, u64::MAX)] {
                let [first, max] = [first, max].map(|seconds| Duration::new(seconds, 999_999_999));
                let backoff = Backoff { first, factor, max, jitter };
                prop_assert!(backoff.delay(failures, chance) <= max);
            }
        }
    }
}
