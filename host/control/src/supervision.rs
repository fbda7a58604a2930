//! The restart policy of failed instances: backoff between replacements, and the point at which a revision is given up
//! (SPEC §7).

use std::collections::VecDeque;

/// The wait before the second replacement in a row, in milliseconds (SPEC §7). Each further one doubles it.
const FIRST_MS: u64 = 100;

/// The longest wait, in milliseconds (SPEC §7).
const LONGEST_MS: u64 = 30_000;

/// The largest part of a wait that chance takes away, so that agents that failed together do not start together. Equal
/// to the jitter of delivery attempts in SPEC §7.
const JITTER: f64 = 0.2;

/// The number of failures to start within [`START_WINDOW_MS`] that makes a revision failed (SPEC §7).
const MAX_FAILED_STARTS: usize = 10;

/// The time for which a failure to start counts, in milliseconds (SPEC §7).
const START_WINDOW_MS: u64 = 5 * 60 * 1_000;

/// A failure of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceFailure {
    /// A fault at a message, of a revision beside which another one answers: its instances are spared for a while.
    Trap,
    /// A fault at a message that says nothing about other messages: the agent has no other revision for them, or the
    /// message had caused a fault before.
    Message,
    /// A failure to start.
    Start,
}

/// The consequence of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartDecision {
    /// Starts a replacement.
    Replace {
        /// The earliest time of the start, in milliseconds since 1970.
        at: u64,
    },
    /// Starts none: the revision failed.
    GiveUp,
}

/// The failures of one revision's instances, with the wait that follows from them. Bounded in size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Supervision {
    /// The consecutive failures since the last success. The first failure to start counts as two: only a trap is
    /// replaced at once.
    in_a_row: u32,
    /// Milliseconds since 1970; 0 if nothing waits.
    not_before: u64,
    /// Times of failures to start, oldest first; at most [`MAX_FAILED_STARTS`].
    starts: VecDeque<u64>,
}

impl Supervision {
    /// Creates the record of a revision whose instances have not failed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records the failure of an instance and returns its consequence.
    ///
    /// The first trap in a row is replaced at once, so that an agent that traps on one message of twenty is not slowed
    /// down. A fault of a message alone makes no wait, and lengthens none: a few such messages, or one caller that sends
    /// them, would stop all others for minutes. `chance` is from 0 to 1 and shortens the wait by up to a fifth.
    pub fn failed(&mut self, now: u64, chance: f64, kind: InstanceFailure) -> RestartDecision {
        match kind {
            InstanceFailure::Trap => self.in_a_row = self.in_a_row.saturating_add(1),
            // A wait that a clock set back has left behind is none.
            InstanceFailure::Message => return RestartDecision::Replace { at: self.may_start(now).unwrap_or(now) },
            InstanceFailure::Start => {
                self.in_a_row = self.in_a_row.saturating_add(1).max(2);
                self.remember(now);
            }
        }
        let at = now.saturating_add(wait(self.in_a_row, chance));
        self.not_before = at;
        match kind {
            InstanceFailure::Start if self.starts.len() >= MAX_FAILED_STARTS => RestartDecision::GiveUp,
            InstanceFailure::Start | InstanceFailure::Trap | InstanceFailure::Message => {
                RestartDecision::Replace { at }
            }
        }
    }

    /// Records a success: the next failure is the first in a row, and no start has to wait. Failures to start still
    /// count until they are five minutes old.
    pub fn succeeded(&mut self) {
        self.in_a_row = 0;
        self.not_before = 0;
    }

    /// Returns the time before which no instance may start, in milliseconds since 1970; `None` if one may start now.
    pub fn may_start(&self, now: u64) -> Option<u64> {
        // No wait exceeds the longest one, so a later time means that the clock was set back.
        let waits = self.not_before > now && self.not_before - now <= LONGEST_MS;
        waits.then_some(self.not_before)
    }

    fn remember(&mut self, now: u64) {
        for start in &mut self.starts {
            // After the clock was set back, a time in the future would never be forgotten.
            *start = (*start).min(now);
        }
        self.starts.retain(|start| now - start <= START_WINDOW_MS);
        // The bound holds even if failures arrive faster than they are forgotten.
        if self.starts.len() == MAX_FAILED_STARTS {
            self.starts.pop_front();
        }
        self.starts.push_back(now);
    }
}

/// Returns the wait after `in_a_row` consecutive failures, in milliseconds.
fn wait(in_a_row: u32, chance: f64) -> u64 {
    // The first trap in a row is replaced at once.
    let Some(doublings) = in_a_row.checked_sub(2) else { return 0 };
    // Saturating: after dozens of failures in a row the power exceeds 64 bits.
    let full = FIRST_MS.saturating_mul(2u64.saturating_pow(doublings)).min(LONGEST_MS);
    // A caller's broken random source must not produce a broken wait.
    let chance = if chance.is_nan() { 0.0 } else { chance.clamp(0.0, 1.0) };
    // At most 30,000, so the conversion through `f64` is exact.
    full - (full as f64 * JITTER * chance) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: u64 = 1_000_000_000;

    #[test]
    fn waits_double_from_the_second_failure_up_to_the_cap() {
        use InstanceFailure::*;
        for (failures, waits) in [
            (&[Trap, Trap, Trap, Trap][..], &[0, 100, 200, 400][..]),
            (&[Start, Start, Start], &[100, 200, 400]),
            (&[Trap, Start, Trap], &[0, 100, 200]),
            (&[Start, Trap], &[100, 200]),
            (&[Message; 12], &[0; 12]),
            (&[Trap, Message, Message, Trap, Message, Trap], &[0, 0, 0, 100, 100, 200]),
            (&[Start, Message, Message, Start], &[100, 100, 100, 200]),
            (&[Trap; 12], &[0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]),
        ] {
            let mut supervision = Supervision::new();
            for (kind, wait) in failures.iter().zip(waits) {
                assert_eq!(
                    supervision.failed(NOON, 0.0, *kind),
                    RestartDecision::Replace { at: NOON + wait },
                    "{failures:?}"
                );
                assert_eq!(supervision.may_start(NOON), (*wait > 0).then_some(NOON + wait), "{failures:?}");
                assert_eq!(supervision.may_start(NOON + wait), None, "{failures:?}");
            }
        }
    }

    #[test]
    fn chance_shortens_a_wait_by_up_to_a_fifth() {
        for (chance, wait) in [(0.0, 100), (0.5, 90), (1.0, 80), (7.0, 80), (-1.0, 100), (f64::NAN, 100)] {
            let mut supervision = Supervision::new();
            supervision.failed(NOON, chance, InstanceFailure::Trap);
            let second = supervision.failed(NOON, chance, InstanceFailure::Trap);
            assert_eq!(second, RestartDecision::Replace { at: NOON + wait }, "{chance}");
        }
    }

    #[test]
    fn success_ends_the_wait() {
        let mut supervision = Supervision::new();
        for _ in 0..5 {
            supervision.failed(NOON, 0.0, InstanceFailure::Trap);
        }
        supervision.succeeded();
        assert_eq!(supervision.may_start(NOON), None);
        assert_eq!(supervision.failed(NOON, 0.0, InstanceFailure::Trap), RestartDecision::Replace { at: NOON });
    }

    #[test]
    fn ten_failures_to_start_in_five_minutes_fail_the_revision() {
        // milliseconds between two failures; true if the tenth fails the revision
        for (apart, gives_up) in [(0, true), (33_333, true), (33_334, false), (START_WINDOW_MS + 1, false)] {
            let mut supervision = Supervision::new();
            for n in 0..10 {
                let verdict = supervision.failed(NOON + n * apart, 0.0, InstanceFailure::Start);
                assert_eq!(verdict == RestartDecision::GiveUp, n == 9 && gives_up, "{n} {apart}");
                supervision.succeeded();
            }
        }
        let mut supervision = Supervision::new();
        for _ in 0..50 {
            assert_ne!(
                supervision.failed(NOON, 0.0, InstanceFailure::Trap),
                RestartDecision::GiveUp,
                "traps are not failures to start"
            );
        }
    }

    #[test]
    fn a_clock_set_back_lengthens_no_wait() {
        let mut supervision = Supervision::new();
        for _ in 0..9 {
            supervision.failed(NOON, 0.0, InstanceFailure::Start);
        }
        let back = NOON - 3_600_000;
        assert_eq!(supervision.may_start(back), None);
        let message = supervision.failed(back, 0.0, InstanceFailure::Message);
        assert_eq!(message, RestartDecision::Replace { at: back });
        supervision.succeeded();
        let mut later = supervision.clone();
        assert_eq!(supervision.failed(back, 0.0, InstanceFailure::Start), RestartDecision::GiveUp);
        supervision.failed(back + START_WINDOW_MS + 1, 0.0, InstanceFailure::Start);
        assert_eq!(supervision.starts.len(), 1, "earlier failures are forgotten");
        later.failed(NOON + START_WINDOW_MS + 1, 0.0, InstanceFailure::Start);
        assert_eq!(later.starts.len(), 1, "earlier failures are forgotten");
    }

    proptest! {
        #[test]
        fn waits_and_memory_are_bounded(steps in prop::collection::vec((any::<u64>(), any::<f64>(), 0..4), 0..200)) {
            let mut supervision = Supervision::new();
            for (now, chance, kind) in steps {
                let kind = match kind {
                    0 => InstanceFailure::Trap,
                    1 => InstanceFailure::Start,
                    2 => InstanceFailure::Message,
                    _ => {
                        supervision.succeeded();
                        prop_assert_eq!(supervision.may_start(now), None);
                        continue;
                    }
                };
                match supervision.failed(now, chance, kind) {
                    RestartDecision::Replace { at } => prop_assert!(at >= now && at - now <= LONGEST_MS),
                    RestartDecision::GiveUp => prop_assert_eq!(kind, InstanceFailure::Start),
                }
                prop_assert!(supervision.starts.len() <= MAX_FAILED_STARTS);
                prop_assert!(supervision.may_start(now).is_none_or(|at| at > now && at - now <= LONGEST_MS));
            }
        }
    }
}
