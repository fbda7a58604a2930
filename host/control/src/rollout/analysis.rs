//! The judgement of a candidate by measurements alone (SPEC §4).
//!
//! Both revisions are measured in the same window, which starts again with each step. The usual rules of canary
//! analysis hold; where tools differ, these were chosen:
//!
//! - With fewer than `min-messages` of the candidate nothing is healthy: the step waits and shows the count. No traffic
//!   is not good traffic. An operator can promote, and `min-messages = 0` goes by time alone.
//! - The candidate is compared with stable: two revisions that fail equally often do not take each other back. See
//!   [`failure_rate`](super::failure_rate) for the comparison, and for what it uses when no old revision runs beside.
//! - A certain failure is not waited for: once more messages failed than `errors` allows of `min-messages`, no further
//!   message could change the result, and the candidate is refused at once. One failure of one message refuses nothing.
//! - A candidate whose breaker opened, and that failed more often than stable, is refused: it gets no more messages to
//!   be judged by.
//! - Memory is a fact, not a rate: one instance above the bound refuses.
//! - While stable has traffic beside the candidate, stable is judged too, by its failures before traffic moved: a
//!   candidate whose writes or messages make stable fail does harm, however well its own messages go.
//! - `slower` is judged once `min-messages` of both succeeded: one slow message is no trend, and at 100 % there is
//!   nothing to compare with. Failed messages are left out, since a failure is often faster than an answer. Times up to
//!   `slower-min` are never slow: a few hundred microseconds are noise of the machine. A p95 of a hundred messages is
//!   known only roughly, so the lower bound of the candidate's is compared with the upper bound of stable's: what
//!   chance alone explains refuses nothing.

use std::time::Duration;

use super::failure_rate::{FailureCounts, error_rate, messages_needed, stable_degraded};
use super::settings::RollbackRules;
use super::verdict::{Trigger, Verdict};
use super::window::{ComparisonCounts, Window};
use crate::units::{percent_of, print_bytes, print_duration};

/// The fewest probes to judge by: SPEC §2 takes three failures for unhealthy.
const MIN_PROBES: u64 = 3;

/// The failures of stable outside the window under judgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StableFailures {
    /// The latest known: for the comparison with a candidate where stable has no messages in the window.
    pub(super) recent: FailureCounts,
    /// The failures before any traffic moved: for the comparison with stable itself.
    pub(super) before: FailureCounts,
}

/// Judges a candidate by the measurements of both revisions in the same window, and by the earlier failures of stable.
pub(super) fn analyze(rules: &RollbackRules, stable: &Window, known: StableFailures, candidate: &Window) -> Verdict {
    let lately = known.recent;
    // Facts come before rates: the order decides which reason people see.
    let refused = memory(rules, candidate)
        .or_else(|| probes(rules, candidate))
        .or_else(|| error_rate(rules, stable, lately, candidate))
        .or_else(|| stable_degraded(rules, stable, known.before))
        .or_else(|| slower(rules, stable, candidate));
    match refused {
        Some(verdict) => verdict,
        None if candidate.messages < rules.min_messages => {
            Verdict::Waiting { have: candidate.messages, need: rules.min_messages }
        }
        None => match messages_needed(rules, stable, lately, candidate) {
            Some(need) => Verdict::Waiting { have: candidate.messages, need },
            None => Verdict::Healthy,
        },
    }
}

/// Judges a candidate by its answers to copies. `over` tells that the time for copies is over: then fewer are enough,
/// but never none.
pub(super) fn analyze_copies(min_messages: u64, match_percent: f64, compared: ComparisonCounts, over: bool) -> Verdict {
    let ComparisonCounts { copies, alike, .. } = compared;
    let unlike = copies.saturating_sub(alike);
    // At the end of the time one copy is enough: an agent may have few messages.
    let need = if over { 1 } else { min_messages.max(1) };
    // Missing copies count as alike, so a refusal cannot become wrong with more of them.
    if percent_of(unlike, copies.max(need)) > 100.0 - match_percent {
        let figures = format!("{unlike} of {copies} copies were answered otherwise, {match_percent}% have to agree");
        return Verdict::refused(Trigger::Match, figures);
    }
    if copies < need { Verdict::Waiting { have: copies, need: min_messages.max(1) } } else { Verdict::Healthy }
}

fn memory(rules: &RollbackRules, candidate: &Window) -> Option<Verdict> {
    // Also with a single message: memory that was used once will be used again.
    let bound = rules.memory_bytes.filter(|bound| candidate.memory_bytes > *bound)?;
    let figures = format!("an instance had {} of memory, more than {}", bytes(candidate.memory_bytes), bytes(bound));
    Some(Verdict::refused(Trigger::Memory, figures))
}

fn probes(rules: &RollbackRules, candidate: &Window) -> Option<Verdict> {
    let (passed, all) = (candidate.probes_passed, candidate.probes_passed + candidate.probes_failed);
    (all >= MIN_PROBES && percent_of(passed, all) < rules.probes).then(|| {
        let figures = format!("{passed} of {all} probes passed, fewer than {}%", rules.probes);
        Verdict::refused(Trigger::Probes, figures)
    })
}

fn slower(rules: &RollbackRules, stable: &Window, candidate: &Window) -> Option<Verdict> {
    // Both need their messages: a p95 of a few is any of them.
    let enough = |window: &Window| window.timed >= rules.min_messages.max(1);
    let (before, now) = (stable.p95?, candidate.p95?);
    let bound = before.high.mul_f64(1.0 + rules.slower / 100.0).max(rules.slower_min);
    (enough(stable) && enough(candidate) && now.low > bound).then(|| {
        let figures = format!(
            "95 of 100 messages took up to {}, with the running revision {}; more than {}% slower",
            time(now.at),
            time(before.at),
            rules.slower
        );
        Verdict::refused(Trigger::Slower, figures)
    })
}

fn bytes(bytes: u64) -> String {
    // Measured sizes are rarely whole numbers of a useful unit, so large ones are rounded to megabytes.
    if bytes >= 10 << 20 { print_bytes(bytes >> 20 << 20) } else { print_bytes(bytes) }
}

fn time(time: Duration) -> String {
    // Of short times, whole milliseconds would hide the difference.
    if time < Duration::from_millis(10) { format!("{}µs", time.as_micros()) } else { print_duration(time) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::window::P95;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const NONE: StableFailures = StableFailures {
        recent: FailureCounts { messages: 0, faults: 0 },
        before: FailureCounts { messages: 0, faults: 0 },
    };

    fn window(messages: u64, faults: u64, p95: u64) -> Window {
        let p95 = (messages > 0).then(|| P95::exactly(MS(p95)));
        Window {
            messages,
            faults,
            untaken: 0,
            timed: messages - faults,
            p95,
            memory_bytes: 64 << 20,
            breaker_open: false,
            probes_passed: 3,
            probes_failed: 0,
        }
    }

    /// Returns a verdict in short form.
    fn short(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Waiting { have, need } => format!("{have} of {need}"),
            Verdict::Healthy => "healthy".to_owned(),
            Verdict::Refused { trigger, .. } => trigger.to_string(),
        }
    }

    #[test]
    fn each_trigger_fires_exactly_beyond_its_bound() {
        let good = window(1_000, 0, 20);
        let with = |change: fn(&mut Window)| {
            let mut window = window(100, 0, 20);
            change(&mut window);
            window
        };
        let rules = RollbackRules { memory_bytes: Some(128 << 20), ..RollbackRules::default() };
        for (name, candidate, expected) in [
            ("as good", window(100, 0, 20), "healthy"),
            ("no traffic is not good traffic", window(0, 0, 0), "0 of 100"),
            ("one too few", window(99, 0, 20), "99 of 100"),
            ("one of one is no rate", window(1, 1, 20), "1 of 100"),
            ("calls that it could not take", with(|window| (window.faults, window.untaken) = (30, 28)), "errors"),
            ("one that is left alone", with(|window| (window.faults, window.breaker_open) = (30, true)), "errors"),
            ("six of a hundred may be chance", window(100, 6, 20), "100 of 1000"),
            ("fifteen are not", window(100, 15, 20), "errors"),
            ("fifteen of fifteen will be fifteen of a hundred at best", window(15, 15, 20), "errors"),
            ("six of ten may still be six of a hundred", window(10, 6, 20), "10 of 100"),
            ("half as slow again is allowed", window(100, 0, 30), "healthy"),
            ("more is not", window(100, 0, 31), "slower"),
            ("with too few it is no trend", window(99, 0, 900), "99 of 100"),
            ("memory at the bound", with(|w| w.memory_bytes = 128 << 20), "healthy"),
            ("memory above it", with(|w| w.memory_bytes = (128 << 20) + 1), "memory"),
            (
                "memory is a fact, also with no messages",
                Window { memory_bytes: 1 << 30, ..Window::default() },
                "memory",
            ),
            ("half of the probes", with(|w| (w.probes_passed, w.probes_failed) = (2, 2)), "healthy"),
            ("fewer than half", with(|w| (w.probes_passed, w.probes_failed) = (2, 3)), "probes"),
            ("two probes say nothing", with(|w| (w.probes_passed, w.probes_failed) = (0, 2)), "healthy"),
        ] {
            assert_eq!(short(&analyze(&rules, &good, NONE, &candidate)), expected, "{name}");
        }
    }

    #[test]
    fn slower_needs_measurements_of_stable() {
        let slow = window(100, 0, 900);
        for (name, stable, expected) in [
            ("stable has no messages any more", window(0, 0, 0), "healthy"),
            ("stable has too few", window(99, 0, 1), "healthy"),
            ("stable is as slow", window(100, 0, 900), "healthy"),
            ("stable is not", window(100, 0, 100), "slower"),
        ] {
            assert_eq!(short(&analyze(&RollbackRules::default(), &stable, NONE, &slow)), expected, "{name}");
        }
    }

    #[test]
    fn times_up_to_the_floor_are_not_slow() {
        let window = |us| Window { p95: Some(P95::exactly(Duration::from_micros(us))), ..window(378, 0, 1) };
        for (name, floor, before, now, expected) in [
            ("among microseconds", 10, 208, 491, "healthy"),
            ("at the floor", 10, 208, 10_000, "healthy"),
            ("above it", 10, 208, 10_001, "slower"),
            ("above it, and not by much", 10, 9_000, 13_000, "healthy"),
            ("without a floor", 0, 208, 491, "slower"),
            ("with a high one", 1_000, 20_000, 900_000, "healthy"),
        ] {
            let rules = RollbackRules { slower_min: MS(floor), ..RollbackRules::default() };
            assert_eq!(short(&analyze(&rules, &window(before), NONE, &window(now))), expected, "{name}");
        }
    }

    #[test]
    fn slower_is_judged_by_successes() {
        let of = |messages, timed, p95| Window { timed, ..window(messages, 0, p95) };
        for (name, stable, candidate, expected) in [
            ("most of stable failed", of(500, 99, 20), of(500, 500, 900), "healthy"),
            ("most of the candidate did", of(500, 500, 20), of(500, 99, 900), "healthy"),
            ("enough went well of both", of(500, 100, 20), of(500, 100, 900), "slower"),
        ] {
            assert_eq!(short(&analyze(&RollbackRules::default(), &stable, NONE, &candidate)), expected, "{name}");
        }
    }

    #[test]
    fn stable_is_judged_by_its_failures_before_the_rollout() {
        // before any traffic moved; in the window
        for (name, before, now, expected) in [
            ("a candidate whose writes break it", (1_000, 0), (253, 33), "stable"),
            ("little is known, and it was well", (30, 0), (253, 33), "stable"),
            ("certain from a few", (1_000, 0), (15, 15), "stable"),
            ("it always failed at that", (1_000, 130), (253, 33), "healthy"),
            ("bad luck", (1_000, 100), (253, 33), "healthy"),
            ("within the points that are allowed", (1_000, 0), (1_000, 45), "healthy"),
            ("nothing is known of before", (0, 0), (253, 200), "healthy"),
            ("it fails less", (1_000, 500), (253, 33), "healthy"),
            ("it has no messages any more", (1_000, 0), (0, 0), "healthy"),
        ] {
            let known = StableFailures { before: FailureCounts::new(before.0, before.1), ..NONE };
            let verdict = analyze(&RollbackRules::default(), &window(now.0, now.1, 20), known, &window(100, 0, 20));
            assert_eq!(short(&verdict), expected, "{name}");
        }
        // A candidate that fails itself is refused for its own errors.
        let known = StableFailures { before: FailureCounts::new(1_000, 0), ..NONE };
        let verdict = analyze(&RollbackRules::default(), &window(100, 20, 20), known, &window(100, 90, 20));
        assert_eq!(short(&verdict), "errors");
    }

    #[test]
    fn differences_within_chance_are_not_slower() {
        let near = |messages, low, at, high| Window {
            p95: Some(P95 { low: MS(low), at: MS(at), high: MS(high) }),
            ..window(messages, 0, at)
        };
        let stable = near(100, 18, 20, 30);
        for (name, candidate, expected) in [
            ("twice as slow, with some luck", near(100, 25, 40, 90), "healthy"),
            ("twice as slow, in any case", near(100, 46, 50, 90), "slower"),
        ] {
            assert_eq!(short(&analyze(&RollbackRules::default(), &stable, NONE, &candidate)), expected, "{name}");
        }
    }

    /// Judges equal revisions thousands of times, with times distributed like those of real calls.
    #[test]
    fn equal_revisions_are_not_slower_than_each_other() {
        let mut seed = 7_u64;
        let mut times = |messages: u64, factor: f64| {
            let mut times: Vec<f64> = (0..messages)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let part = ((seed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
                    // A Pareto distribution: most are short, with a long tail as of queues.
                    factor * (1.0 - part).powf(-0.5)
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let [low, at, high] = P95::ranks(messages)
                .map(|rank| times[((rank * messages as f64).ceil() as usize).clamp(1, times.len()) - 1])
                .map(Duration::from_secs_f64);
            Window { messages, timed: messages, p95: Some(P95 { low, at, high }), ..Window::default() }
        };
        for (messages, at_most, at_least) in [(100, 10, 400), (300, 2, 1_900), (1_000, 0, 1_990)] {
            let rules = RollbackRules { min_messages: 20, ..RollbackRules::default() };
            let fires = |times: &mut dyn FnMut(u64, f64) -> Window, factor| {
                let mut judged =
                    |_: &u32| short(&analyze(&rules, &times(messages, 1.0), NONE, &times(messages, factor)));
                (0..2_000).filter(|run| judged(run) == "slower").count()
            };
            let (same, slow) = (fires(&mut times, 1.0), fires(&mut times, 4.0));
            assert!(same <= at_most && slow >= at_least, "{messages} messages: {same}, {slow}");
        }
    }

    #[test]
    fn rules_can_be_off() {
        let off =
            RollbackRules { errors: 100.0, slower: 10_000.0, probes: 0.0, min_messages: 0, ..RollbackRules::default() };
        let bad = Window { probes_passed: 0, probes_failed: 9, ..window(100, 100, 900) };
        for candidate in [bad, Window::default()] {
            assert_eq!(analyze(&off, &window(100, 0, 20), NONE, &candidate), Verdict::Healthy);
        }
    }

    #[test]
    fn copies_have_to_agree() {
        // min-messages, match, copies, alike, over
        for (min, percent, copies, alike, over, expected) in [
            (100, 100.0, 100, 100, false, "healthy"),
            (100, 100.0, 99, 99, false, "99 of 100"),
            (100, 100.0, 1, 0, false, "match"),
            (100, 99.0, 1, 0, false, "1 of 100"),
            (100, 99.0, 100, 99, false, "healthy"),
            (100, 99.0, 100, 98, false, "match"),
            (100, 100.0, 7, 7, true, "healthy"),
            (100, 100.0, 0, 0, true, "0 of 100"),
            (100, 90.0, 7, 6, true, "match"),
            (100, 0.0, 7, 0, true, "healthy"),
        ] {
            let verdict = analyze_copies(min, percent, ComparisonCounts { copies, alike, set_aside: 7 }, over);
            assert_eq!(short(&verdict), expected, "{min} {percent} {copies} {alike} {over}");
        }
    }

    #[test]
    fn figures_are_printed() {
        let told =
            |stable: Window, candidate: Window| match analyze(&RollbackRules::default(), &stable, NONE, &candidate) {
                Verdict::Refused { figures, .. } => figures,
                other => panic!("{other:?}"),
            };
        let good = window(200, 0, 4);
        assert_eq!(
            told(good, window(200, 0, 40)),
            "95 of 100 messages took up to 40ms, with the running revision 4000µs; more than 50% slower"
        );
        let known = StableFailures { before: FailureCounts::new(1_000, 2), ..NONE };
        let Verdict::Refused { figures, .. } = analyze(&RollbackRules::default(), &window(253, 33, 4), known, &good)
        else {
            panic!("stable began to fail");
        };
        assert_eq!(
            figures,
            "the running revision began to fail: 33 of 253 messages beside the new one, 2 of 1000 before: more than 5 \
             points above it, by more than chance explains"
        );
    }
}
