//! When an instance that failed is replaced, and when that is given up (SPEC §7).

use std::collections::VecDeque;

/// The wait before the second replacement in a row, in milliseconds (SPEC §7). Each further one doubles it.
const FIRST_MS: u64 = 100;

/// No wait is longer, in milliseconds (SPEC §7).
const LONGEST_MS: u64 = 30_000;

/// As much of a wait is left to chance, so that agents that failed together do not start together. Like the
/// jitter of attempts in SPEC §7.
const JITTER: f64 = 0.2;

/// So many failures to start within [`REMEMBERED_MS`] make a revision failed (SPEC §7).
const STARTS: usize = 10;

/// How long a failure to start counts, in milliseconds (SPEC §7).
const REMEMBERED_MS: u64 = 5 * 60 * 1_000;

/// What happened to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It trapped at work.
    Trap,
    /// It trapped at a message that had made one trap before.
    TrapAgain,
    /// It did not start.
    Start,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start another.
    Replace {
        /// Not before, in milliseconds since 1970.
        at: u64,
    },
    /// Start none: the revision failed.
    GiveUp,
}

/// The failures of one revision's instances, and what follows from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supervision {
    /// Failures since one did well. A first failure to start counts as the second: only a trap is free.
    in_a_row: u32,
    not_before: u64,
    /// When instances failed to start: at most [`STARTS`], the oldest first.
    starts: VecDeque<u64>,
}

impl Supervision {
    /// Of a revision whose instances have not failed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what to do about an instance that failed.
    ///
    /// The first trap in a row is replaced at once, so that an agent that traps on one message of twenty is not
    /// slowed down. A message that makes an instance trap again makes no wait longer: the fault is in the message, and
    /// a few of them, tried again together, would stop all others for minutes. `chance` is from 0 to 1 and shortens the
    /// wait by up to a fifth.
    pub fn failed(&mut self, now: u64, chance: f64, kind: Failure) -> Verdict {
        match kind {
            Failure::Trap => self.in_a_row = self.in_a_row.saturating_add(1),
            Failure::TrapAgain => {}
            Failure::Start => {
                self.in_a_row = self.in_a_row.saturating_add(1).max(2);
                self.remember(now);
            }
        }
        let at = now.saturating_add(wait(self.in_a_row, chance));
        self.not_before = at;
        match kind {
            Failure::Start if self.starts.len() >= STARTS => Verdict::GiveUp,
            Failure::Start | Failure::Trap | Failure::TrapAgain => Verdict::Replace { at },
        }
    }

    /// An instance did its work: the next failure is the first in a row, and nothing waits. Failures to start
    /// still count until they are five minutes old.
    pub fn well(&mut self) {
        self.in_a_row = 0;
        self.not_before = 0;
    }

    /// When an instance may be started: none for now, or a time in milliseconds since 1970 to wait for.
    pub fn may_start(&self, now: u64) -> Option<u64> {
        // Nothing waits for longer than the longest wait: if it seems to, the clock was set back.
        let waits = self.not_before > now && self.not_before - now <= LONGEST_MS;
        waits.then_some(self.not_before)
    }

    fn remember(&mut self, now: u64) {
        for start in &mut self.starts {
            // After the clock was set back, what seems to come is as old as now.
            *start = (*start).min(now);
        }
        self.starts.retain(|start| now - start <= REMEMBERED_MS);
        if self.starts.len() == STARTS {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }
}

/// The wait after so many failures in a row, in milliseconds.
fn wait(in_a_row: u32, chance: f64) -> u64 {
    let Some(doublings) = in_a_row.checked_sub(2) else { return 0 };
    let full = FIRST_MS.saturating_mul(2u64.saturating_pow(doublings)).min(LONGEST_MS);
    let chance = if chance.is_nan() { 0.0 } else { chance.clamp(0.0, 1.0) };
    // At most 30,000, so nothing is lost on the way through f64.
    full - (full as f64 * JITTER * chance) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: u64 = 1_000_000_000;

    #[test]
    fn waits_grow_from_the_second_in_a_row_to_the_cap() {
        use Failure::*;
        for (failures, waits) in [
            (&[Trap, Trap, Trap, Trap][..], &[0, 100, 200, 400][..]),
            (&[Start, Start, Start], &[100, 200, 400]),
            (&[Trap, Start, Trap], &[0, 100, 200]),
            (&[Start, Trap], &[100, 200]),
            (&[TrapAgain; 12], &[0; 12]),
            (&[Trap, TrapAgain, TrapAgain, Trap, TrapAgain, Trap], &[0, 0, 0, 100, 100, 200]),
            (&[Trap; 12], &[0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]),
        ] {
            let mut supervision = Supervision::new();
            for (kind, wait) in failures.iter().zip(waits) {
                assert_eq!(supervision.failed(NOON, 0.0, *kind), Verdict::Replace { at: NOON + wait }, "{failures:?}");
                assert_eq!(supervision.may_start(NOON), (*wait > 0).then_some(NOON + wait), "{failures:?}");
                assert_eq!(supervision.may_start(NOON + wait), None, "{failures:?}");
            }
        }
    }

    #[test]
    fn chance_shortens_a_wait_by_up_to_a_fifth() {
        for (chance, wait) in [(0.0, 100), (0.5, 90), (1.0, 80), (7.0, 80), (-1.0, 100), (f64::NAN, 100)] {
            let mut supervision = Supervision::new();
            supervision.failed(NOON, chance, Failure::Trap);
            let second = supervision.failed(NOON, chance, Failure::Trap);
            assert_eq!(second, Verdict::Replace { at: NOON + wait }, "{chance}");
        }
    }

    #[test]
    fn one_that_does_well_ends_the_wait() {
        let mut supervision = Supervision::new();
        for _ in 0..5 {
            supervision.failed(NOON, 0.0, Failure::Trap);
        }
        supervision.well();
        assert_eq!(supervision.may_start(NOON), None);
        assert_eq!(supervision.failed(NOON, 0.0, Failure::Trap), Verdict::Replace { at: NOON });
    }

    #[test]
    fn ten_failures_to_start_in_five_minutes_are_too_many() {
        // milliseconds between them, and whether the tenth is too many
        for (apart, gives_up) in [(0, true), (33_333, true), (33_334, false), (REMEMBERED_MS + 1, false)] {
            let mut supervision = Supervision::new();
            for n in 0..10 {
                let verdict = supervision.failed(NOON + n * apart, 0.0, Failure::Start);
                assert_eq!(verdict == Verdict::GiveUp, n == 9 && gives_up, "{n} {apart}");
                supervision.well();
            }
        }
        let mut supervision = Supervision::new();
        for _ in 0..50 {
            assert_ne!(
                supervision.failed(NOON, 0.0, Failure::Trap),
                Verdict::GiveUp,
                "traps are not failures to start"
            );
        }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_wait_longer() {
        let mut supervision = Supervision::new();
        for _ in 0..9 {
            supervision.failed(NOON, 0.0, Failure::Start);
        }
        let back = NOON - 3_600_000;
        assert_eq!(supervision.may_start(back), None);
        supervision.well();
        let mut later = supervision.clone();
        assert_eq!(supervision.failed(back, 0.0, Failure::Start), Verdict::GiveUp);
        supervision.failed(back + REMEMBERED_MS + 1, 0.0, Failure::Start);
        assert_eq!(supervision.starts.len(), 1, "all are forgotten");
        later.failed(NOON + REMEMBERED_MS + 1, 0.0, Failure::Start);
        assert_eq!(later.starts.len(), 1, "all are forgotten");
    }

    proptest! {
        #[test]
        fn waits_and_memory_are_bounded(steps in prop::collection::vec((any::<u64>(), any::<f64>(), 0..4), 0..200)) {
            let mut supervision = Supervision::new();
            for (now, chance, kind) in steps {
                let kind = match kind {
                    0 => Failure::Trap,
                    1 => Failure::Start,
                    2 => Failure::TrapAgain,
                    _ => {
                        supervision.well();
                        prop_assert_eq!(supervision.may_start(now), None);
                        continue;
                    }
                };
                match supervision.failed(now, chance, kind) {
                    Verdict::Replace { at } => prop_assert!(at >= now && at - now <= LONGEST_MS),
                    Verdict::GiveUp => prop_assert_eq!(kind, Failure::Start),
                }
                prop_assert!(supervision.starts.len() <= STARTS);
                prop_assert!(supervision.may_start(now).is_none_or(|at| at > now && at - now <= LONGEST_MS));
            }
        }
    }
}
