//! The breaker of an agent: whether it is handed messages while it fails (SPEC §7).
//!
//! ```text
//! closed --faults in a row, or half of the last 100--> open --reset--> half-open --a trial goes well--> closed
//!                                                       ^                  |
//!                                                       '--the trial fails-'
//! ```
//! Every call takes the same time whatever came before.

use std::fmt;

/// How many of the last handlings the breaker remembers (SPEC §7).
const WINDOW: u32 = 100;

/// So many faults among them open it: half (SPEC §7).
const HALF: u32 = WINDOW / 2;

/// The lowest [`WINDOW`] bits.
const MASK: u128 = (1 << WINDOW) - 1;

/// Callers read the clock before they ask, so one may come with a time a little before another's. A time further
/// back than this many milliseconds means that the clock was set back.
const SKEW: u64 = 1_000;

/// Keeps messages from an agent that fails, and lets one through now and then to see whether it still does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    faults: u32,
    reset_ms: u64,
    in_a_row: u32,
    /// One bit for each of the last handlings, 1 for a fault, the newest lowest.
    window: u128,
    /// How many of its bits are handlings.
    handled: u32,
    phase: Phase,
    opened: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Since then; half-open when the reset is over.
    Open {
        since: u64,
    },
    /// A trial ended without a result, so another may begin.
    HalfOpen,
    /// A trial is under way.
    Trying,
}

/// Whether the agent is handed a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is.
    Yes,
    /// It is, and what becomes of this message decides. Whoever has it says [`well`](Breaker::well),
    /// [`fault`](Breaker::fault) or [`abandoned`](Breaker::abandoned).
    Trial,
    /// It is not.
    No {
        /// When to ask again, in milliseconds since 1970. While a trial is under way its end comes sooner.
        until: u64,
    },
}

/// What a breaker looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets everything through.
    Closed,
    /// Lets nothing through.
    Open,
    /// Lets one message through, and waits for what becomes of it.
    HalfOpen,
}

impl BreakerState {
    /// The state's name, such as `half-open`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Breaker {
    /// A closed breaker that opens after so many faults in a row (at least 1) and stays open for `reset_ms`.
    pub fn new(faults: u32, reset_ms: u64) -> Self {
        Self { faults, reset_ms, in_a_row: 0, window: 0, handled: 0, phase: Phase::Closed, opened: 0 }
    }

    /// Applies other settings in place. An open breaker stays open for the new reset, counted from when it opened.
    pub fn configure(&mut self, faults: u32, reset_ms: u64) {
        self.faults = faults;
        self.reset_ms = reset_ms;
    }

    /// Asks for the agent to be handed a message. A trial is given to one at a time.
    pub fn admits(&mut self, now: u64) -> Admission {
        let admission = self.peek(now);
        match admission {
            Admission::Yes => {}
            Admission::Trial => self.phase = Phase::Trying,
            Admission::No { .. } => {
                if let Phase::Open { since } = &mut self.phase {
                    // A clock that was set back is the one that counts from here on.
                    *since = (*since).min(now);
                }
            }
        }
        admission
    }

    /// What [`admits`](Self::admits) would say; no trial begins.
    pub fn peek(&self, now: u64) -> Admission {
        match self.phase {
            Phase::Closed => Admission::Yes,
            Phase::Open { since } => match self.opens_until(since, now) {
                Some(until) => Admission::No { until },
                None => Admission::Trial,
            },
            Phase::HalfOpen => Admission::Trial,
            // As if the trial failed now.
            Phase::Trying => Admission::No { until: now.saturating_add(self.reset_ms) },
        }
    }

    /// A message was handled without a fault. True when this closed the breaker, as it does under a trial.
    pub fn well(&mut self, _now: u64) -> bool {
        match self.phase {
            Phase::Closed => {
                self.in_a_row = 0;
                self.remember(false);
                false
            }
            Phase::Trying => {
                self.close();
                true
            }
            // It was handed over before the breaker opened, and says nothing about now.
            Phase::Open { .. } | Phase::HalfOpen => false,
        }
    }

    /// A message ended in a fault. True when this opened the breaker, a failed trial included.
    pub fn fault(&mut self, now: u64) -> bool {
        let opens = match self.phase {
            Phase::Closed => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                self.remember(true);
                let half = self.handled == WINDOW && self.window.count_ones() >= HALF;
                half || self.in_a_row >= self.faults
            }
            Phase::Trying => true,
            Phase::Open { .. } | Phase::HalfOpen => false,
        };
        if opens {
            self.phase = Phase::Open { since: now };
            self.opened = self.opened.saturating_add(1);
        }
        opens
    }

    /// The trial ended neither well nor in a fault; the next message may be one.
    pub fn abandoned(&mut self) {
        match self.phase {
            Phase::Trying => self.phase = Phase::HalfOpen,
            Phase::Closed | Phase::Open { .. } | Phase::HalfOpen => {}
        }
    }

    /// Another revision answers from now on, and what came before says nothing about it. True when this closed the
    /// breaker.
    pub fn begin_anew(&mut self) -> bool {
        let was_closed = self.phase == Phase::Closed;
        self.close();
        !was_closed
    }

    /// What it looks like from outside.
    pub fn state(&self, now: u64) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { since } if self.opens_until(since, now).is_some() => BreakerState::Open,
            Phase::Open { .. } | Phase::HalfOpen | Phase::Trying => BreakerState::HalfOpen,
        }
    }

    /// How often it opened, failed trials included.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Until when it is open; none when the reset is over, or when the clock was set back and nobody can say how
    /// long it has been open.
    fn opens_until(&self, since: u64, now: u64) -> Option<u64> {
        let was_set_back = since > now.saturating_add(SKEW);
        let until = since.min(now).saturating_add(self.reset_ms);
        (now < until && !was_set_back).then_some(until)
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.in_a_row = 0;
        // What made it open must not make it open again.
        self.window = 0;
        self.handled = 0;
    }

    fn remember(&mut self, fault: bool) {
        self.window = ((self.window << 1) | u128::from(fault)) & MASK;
        self.handled = (self.handled + 1).min(WINDOW);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const RESET: u64 = 60_000;
    const NOON: u64 = 1_000_000_000;

    fn open() -> Breaker {
        let mut breaker = Breaker::new(1, RESET);
        assert!(breaker.fault(NOON));
        breaker
    }

    #[test]
    fn it_opens_after_faults_in_a_row_or_half_of_a_full_window() {
        // faults in a row that open, what happens (`x` a fault, `.` none) and how often, whether it is open then
        for (faults, pattern, times, opens) in [
            (1, "x", 1, true),
            (0, "x", 1, true),
            (10, "x", 9, false),
            (10, "x", 10, true),
            (10, "xxxxxxxxx.", 9, false),
            (100, "x.", 49, false),
            (100, ".x", 50, true),
            (100, "..x", 300, false),
            (100, "x", 99, false),
        ] {
            let mut breaker = Breaker::new(faults, RESET);
            let opened: Vec<bool> = pattern
                .repeat(times)
                .chars()
                .map(|c| {
                    if c == 'x' {
                        breaker.fault(NOON)
                    } else {
                        breaker.well(NOON);
                        false
                    }
                })
                .collect();
            assert_eq!(breaker.state(NOON) == BreakerState::Open, opens, "{faults} {pattern} {times}");
            assert_eq!(opened.last() == Some(&true), opens, "{faults} {pattern} {times}");
            assert_eq!(breaker.opened(), u64::from(opens));
        }
    }

    #[test]
    fn one_trial_decides() {
        for (ends_well, state, opened) in [(true, BreakerState::Closed, 1), (false, BreakerState::Open, 2)] {
            let mut breaker = open();
            let due = NOON + RESET;
            assert_eq!(breaker.admits(due - 1), Admission::No { until: due });
            assert_eq!((breaker.peek(due), breaker.state(due)), (Admission::Trial, BreakerState::HalfOpen));
            assert_eq!(breaker.admits(due), Admission::Trial);
            assert_eq!(breaker.admits(due), Admission::No { until: due + RESET }, "one at a time");
            breaker.abandoned();
            assert_eq!(breaker.admits(due), Admission::Trial, "one after the other");
            if ends_well {
                assert!(breaker.well(due));
            } else {
                assert!(breaker.fault(due));
            }
            assert_eq!((breaker.state(due), breaker.opened()), (state, opened));
        }
    }

    #[test]
    fn what_was_handed_over_before_it_opened_neither_closes_nor_opens_it() {
        let mut breaker = open();
        let before = breaker.clone();
        assert!(!breaker.well(NOON + 1));
        assert!(!breaker.fault(NOON + 1));
        breaker.abandoned();
        assert_eq!(breaker, before);
    }

    #[test]
    fn old_faults_do_not_open_a_closed_breaker_again() {
        let mut breaker = Breaker::new(100, RESET);
        (0..100).for_each(|n| {
            if n % 2 == 0 {
                breaker.well(NOON);
            } else {
                breaker.fault(NOON);
            }
        });
        assert_eq!(breaker.admits(NOON + RESET), Admission::Trial);
        breaker.well(NOON + RESET);
        assert!(!breaker.fault(NOON + RESET));
    }

    #[test]
    fn a_clock_that_jumps_does_not_keep_it_open() {
        // what the clock says next, and what the breaker then does
        for (now, admission) in [
            (NOON - 1, Admission::No { until: NOON - 1 + RESET }),
            (NOON - SKEW, Admission::No { until: NOON - SKEW + RESET }),
            (NOON - SKEW - 1, Admission::Trial),
            (0, Admission::Trial),
            (u64::MAX, Admission::Trial),
        ] {
            let mut breaker = open();
            assert_eq!(breaker.peek(now), admission, "{now}");
            assert_eq!(breaker.admits(now), admission, "{now}");
            if let Admission::No { until } = admission {
                assert_eq!(breaker.admits(until), Admission::Trial, "{now}");
            }
        }
    }

    #[test]
    fn other_settings_apply_at_once() {
        let mut breaker = open();
        breaker.configure(1, 5_000);
        assert_eq!(breaker.admits(NOON + 5_000), Admission::Trial);
        let mut breaker = Breaker::new(10, RESET);
        (0..5).for_each(|_| assert!(!breaker.fault(NOON)));
        breaker.configure(3, RESET);
        assert!(breaker.fault(NOON));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask,
        Well,
        Fault,
        Abandoned,
        Later(u64),
        SetBack(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Ask),
            3 => Just(Step::Well),
            4 => Just(Step::Fault),
            1 => Just(Step::Abandoned),
            2 => (0u64..100_000).prop_map(Step::Later),
            1 => (0u64..200_000).prop_map(Step::SetBack),
        ];
        prop::collection::vec(step, 0..400)
    }

    #[test]
    fn another_revision_begins_with_it_closed() {
        let mut breaker = Breaker::new(2, RESET);
        breaker.fault(NOON);
        assert!(!breaker.begin_anew());
        assert!(!breaker.fault(NOON), "the one before counts no more");
        assert!(breaker.fault(NOON) && breaker.state(NOON) == BreakerState::Open);
        assert!(breaker.begin_anew() && breaker.admits(NOON) == Admission::Yes);
    }

    proptest! {
        /// Against a window that is a list, and with the clock jumping.
        #[test]
        fn it_opens_when_it_must_and_lets_one_trial_through(steps in steps(), faults in 1u32..101) {
            let mut breaker = Breaker::new(faults, RESET);
            let (mut now, mut window, mut trials) = (NOON, VecDeque::new(), 0u32);
            for step in steps {
                let closed = breaker.state(now) == BreakerState::Closed;
                match step {
                    Step::Ask => {
                        let (expected, admission) = (breaker.peek(now), breaker.admits(now));
                        prop_assert_eq!(expected, admission);
                        prop_assert_eq!(admission == Admission::Yes, closed);
                        match admission {
                            Admission::Yes => {}
                            Admission::Trial => trials += 1,
                            Admission::No { until } => prop_assert!(until > now && until <= now + RESET),
                        }
                        prop_assert!(trials <= 1, "two trials at once");
                    }
                    Step::Well | Step::Fault if closed => {
                        window.push_back(matches!(step, Step::Fault));
                        if window.len() > 100 {
                            window.pop_front();
                        }
                        let half = window.len() == 100 && window.iter().filter(|fault| **fault).count() >= 50;
                        let row = window.iter().rev().take_while(|fault| **fault).count() >= faults as usize;
                        if matches!(step, Step::Fault) {
                            prop_assert_eq!(breaker.fault(now), half || row);
                        } else {
                            breaker.well(now);
                        }
                    }
                    Step::Well => prop_assert_eq!(breaker.well(now), trials == 1),
                    Step::Fault => prop_assert_eq!(breaker.fault(now), trials == 1),
                    Step::Abandoned => breaker.abandoned(),
                    Step::Later(ms) => now += ms,
                    Step::SetBack(ms) => now -= ms,
                }
                if !matches!(step, Step::Ask | Step::Later(_) | Step::SetBack(_)) {
                    trials = 0;
                }
                if !closed && breaker.state(now) == BreakerState::Closed {
                    window.clear();
                }
            }
            if trials == 0 && breaker.admits(now) != Admission::Trial {
                let later = breaker.peek(now + RESET);
                prop_assert!(!matches!(later, Admission::No { .. }), "open for longer than the reset");
            }
        }
    }
}
