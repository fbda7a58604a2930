//! Tests of the breaker against the rules of SPEC §7.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const RESET: u64 = 60_000;
const NOON: u64 = 1_000_000_000;

fn open() -> Breaker {
    let mut breaker = Breaker::new(1, RESET);
    assert!(breaker.fault(NOON, FaultHistory::First));
    breaker
}

#[test]
fn opens_after_consecutive_faults_or_half_of_a_full_window() {
    // consecutive faults that open; handlings (`x` a fault, `.` none) and repetitions; true if it is open then
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
                    breaker.fault(NOON, FaultHistory::First)
                } else {
                    breaker.count_successes(1);
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
            assert!(breaker.succeeded());
        } else {
            assert!(breaker.fault(due, FaultHistory::First));
        }
        assert_eq!((breaker.state(due), breaker.opened()), (state, opened));
    }
}

#[test]
fn results_of_earlier_deliveries_change_nothing_once_open() {
    let mut breaker = open();
    let before = breaker.clone();
    assert!(!breaker.succeeded());
    assert!(!breaker.fault(NOON + 1, FaultHistory::First));
    breaker.abandoned();
    assert_eq!(breaker, before);
}

#[test]
fn old_faults_do_not_open_a_closed_breaker_again() {
    let mut breaker = Breaker::new(100, RESET);
    (0..100).for_each(|n| {
        if n % 2 == 0 {
            breaker.count_successes(1);
        } else {
            breaker.fault(NOON, FaultHistory::First);
        }
    });
    assert_eq!(breaker.admits(NOON + RESET), Admission::Trial);
    breaker.succeeded();
    assert!(!breaker.fault(NOON + RESET, FaultHistory::First));
}

#[test]
fn a_clock_jump_does_not_keep_it_open() {
    // the next time of the clock, and the answer then
    for (now, admission) in [
        (NOON - 1, Admission::No { until: NOON - 1 + RESET }),
        (NOON - SKEW_MS, Admission::No { until: NOON - SKEW_MS + RESET }),
        (NOON - SKEW_MS - 1, Admission::Trial),
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
fn changed_settings_apply_at_once() {
    let mut breaker = open();
    breaker.configure(1, 5_000);
    assert_eq!(breaker.admits(NOON + 5_000), Admission::Trial);
    let mut breaker = Breaker::new(10, RESET);
    (0..5).for_each(|_| assert!(!breaker.fault(NOON, FaultHistory::First)));
    breaker.configure(3, RESET);
    assert!(breaker.fault(NOON, FaultHistory::First));
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    Well,
    Fault(FaultHistory),
    Abandoned,
    Later(u64),
    SetBack(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Ask),
        3 => Just(Step::Well),
        4 => Just(Step::Fault(FaultHistory::First)),
        2 => Just(Step::Fault(FaultHistory::Repeated)),
        1 => Just(Step::Abandoned),
        2 => (0u64..100_000).prop_map(Step::Later),
        1 => (0u64..200_000).prop_map(Step::SetBack),
    ];
    prop::collection::vec(step, 0..400)
}

#[test]
fn a_new_revision_begins_closed() {
    let mut breaker = Breaker::new(2, RESET);
    breaker.fault(NOON, FaultHistory::First);
    assert!(!breaker.reset());
    assert!(!breaker.fault(NOON, FaultHistory::First), "faults of the former revision do not count");
    assert!(breaker.fault(NOON, FaultHistory::First) && breaker.state(NOON) == BreakerState::Open);
    assert!(breaker.reset() && breaker.admits(NOON) == Admission::Yes);
}

#[test]
fn a_message_that_fails_again_counts_once() {
    let mut breaker = Breaker::new(3, RESET);
    breaker.fault(NOON, FaultHistory::First);
    for _ in 0..1_000 {
        assert!(!breaker.fault(NOON, FaultHistory::Repeated));
    }
    assert!(!breaker.fault(NOON, FaultHistory::First));
    assert_eq!(breaker.admits(NOON), Admission::Yes);
    assert!(breaker.fault(NOON, FaultHistory::First), "the third message");
    // Only messages that had failed were there to try: the others keep their attempts.
    assert_eq!(breaker.admits(NOON + RESET), Admission::Trial);
    assert!(breaker.fault(NOON + RESET, FaultHistory::Repeated));
    assert_eq!(breaker.admits(NOON + RESET), Admission::No { until: NOON + 2 * RESET });
}

#[test]
fn counting_handlers_together_equals_one_by_one() {
    for handlers in [0, 1, 7, 99, 100, 101, 128, 1_000, u32::MAX] {
        let start = || {
            let mut breaker = Breaker::new(100, RESET);
            breaker.count_successes(20);
            (0..49).for_each(|_| assert!(!breaker.fault(NOON, FaultHistory::First)));
            breaker
        };
        let (mut together, mut one_by_one) = (start(), start());
        together.count_successes(handlers);
        (0..handlers.min(1_000)).for_each(|_| one_by_one.count_successes(1));
        assert_eq!(together, one_by_one, "{handlers}");
    }
    let mut open = open();
    let before = open.clone();
    open.count_successes(7);
    assert_eq!(open, before, "no trial ended");
}

#[test]
fn a_late_success_ends_the_series() {
    let mut breaker = Breaker::new(2, RESET);
    breaker.fault(NOON, FaultHistory::First);
    breaker.fault(NOON, FaultHistory::Repeated);
    breaker.count_successes(1);
    assert!(!breaker.fault(NOON, FaultHistory::First));
}

proptest! {
    /// Compares the breaker with a model whose window is a list, with a jumping clock.
    #[test]
    fn opens_as_the_model_and_admits_one_trial(steps in steps(), faults in 1u32..101) {
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
                Step::Fault(FaultHistory::Repeated) if closed => prop_assert!(!breaker.fault(now, FaultHistory::Repeated)),
                Step::Well | Step::Fault(_) if closed => {
                    let fault = !matches!(step, Step::Well);
                    window.push_back(fault);
                    if window.len() > 100 {
                        window.pop_front();
                    }
                    let half = window.len() == 100 && window.iter().filter(|fault| **fault).count() >= 50;
                    let row = window.iter().rev().take_while(|fault| **fault).count() >= faults as usize;
                    if fault {
                        prop_assert_eq!(breaker.fault(now, FaultHistory::First), half || row);
                    } else {
                        breaker.count_successes(1);
                    }
                }
                Step::Well => prop_assert_eq!(breaker.succeeded(), trials == 1),
                Step::Fault(failing) => prop_assert_eq!(breaker.fault(now, failing), trials == 1),
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
