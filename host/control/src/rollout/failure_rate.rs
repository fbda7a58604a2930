//! The comparison of a candidate's failures with those of the revision before it.
//!
//! A failure rate measured on `n` messages is known only roughly, so the lower bound of the candidate's rate is
//! compared with the upper bound of stable's, as [`analysis`](super::analysis) does with times for `slower`. The bounds
//! are those of the score interval (Wilson, 1927), two standard deviations wide to each side: it holds for few messages
//! and for rates of 0 and 100 %, where the plain normal interval has no width, and needs no table, as an exact test
//! would. Two intervals that do not overlap are stricter than one test of the difference. That is wanted: the figures
//! are evaluated again and again while they grow, and each evaluation is another chance to be wrong.
//!
//! Stable is represented by, in this order:
//!
//! 1. Its failures in the same window: external problems affect both.
//! 2. With too few messages there, or none: its latest failures ([`Ledger::record_failures`](super::Ledger)).
//! 3. With no figures at all: `errors` is a bound of the candidate's own rate.

use serde::{Deserialize, Serialize};

use super::settings::RollbackRules;
use super::verdict::{Trigger, Verdict};
use super::window::Window;
use crate::units::percent_of;

/// The standard deviations between a rate and its bounds; as many as for [`P95::ranks`](super::window::P95::ranks).
const DEVIATIONS: f64 = 2.0;

/// A number of ended messages and calls, with the failures among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FailureCounts {
    /// Messages and calls that ended, with success or failure.
    pub messages: u64,
    /// Failures that are the revision's fault.
    pub faults: u64,
}

/// The shortest span of [`RecentFailures`], in milliseconds.
// Long enough for a quiet agent to have some messages, short enough for an outage to be forgotten soon.
const SPAN: u64 = 5 * 60 * 1_000;
/// The fewest messages of a span.
// The default of `min-messages`, so that a span alone is enough to compare with.
const SPAN_MESSAGES: u64 = 100;

/// The recent failures of a revision: of the present span and the one before it. Older ones say little about its
/// present state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecentFailures {
    /// The previous span.
    before: FailureCounts,
    /// The start of the present span in milliseconds, with the revision's counters then.
    span_start: (u64, FailureCounts),
}

impl RecentFailures {
    /// Starts with an earlier tally; `counters` are the revision's counters by now.
    pub fn new(before: FailureCounts, counters: FailureCounts, now: u64) -> Self {
        Self { before, span_start: (now, counters) }
    }

    /// Returns the recent failures, given the revision's counters, and starts a new span if it is time.
    pub fn update(&mut self, counters: FailureCounts, now: u64) -> FailureCounts {
        let (since, at_first) = self.span_start;
        let span = counters.since(at_first);
        let tally = self.before.and(span);
        // Both: a quiet agent keeps the few messages it has, and a busy one forgets in minutes.
        if now.saturating_sub(since) >= SPAN && span.messages >= SPAN_MESSAGES {
            *self = Self::new(span, counters, now);
        }
        tally
    }
}

/// The confidence interval of a failure rate, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    /// The lower bound.
    low: f64,
    /// The upper bound.
    high: f64,
}

impl FailureCounts {
    /// Creates a tally.
    pub fn new(messages: u64, faults: u64) -> Self {
        Self { messages, faults }
    }

    fn and(self, other: Self) -> Self {
        Self::new(self.messages + other.messages, self.faults + other.faults)
    }

    fn since(self, before: Self) -> Self {
        Self::new(self.messages.saturating_sub(before.messages), self.faults.saturating_sub(before.faults))
    }

    /// Returns the score interval of the rate; 0 to 100 without messages.
    fn rate(self) -> Rate {
        if self.messages == 0 {
            return Rate { low: 0.0, high: 100.0 };
        }
        let (count, square) = (self.messages as f64, DEVIATIONS * DEVIATIONS);
        // Counters are read one after the other, so a fault may be counted before its message.
        let at = self.faults.min(self.messages) as f64 / count;
        let centre = at + square / (2.0 * count);
        let half = DEVIATIONS * (at * (1.0 - at) / count + square / (4.0 * count * count)).sqrt();
        // Clamped, as rounding may put a bound just outside.
        let bound = |rate: f64| (rate / (1.0 + square / count) * 100.0).clamp(0.0, 100.0);
        Rate { low: bound(centre - half), high: bound(centre + half) }
    }
}

/// The figures that a candidate is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Baseline {
    /// The failures of stable in the same window.
    SameWindow(FailureCounts),
    /// The latest of stable, and the percentage of failures in the window, where it has too few messages.
    Recently(FailureCounts, f64),
    /// The absence of any.
    Unknown,
}

impl Baseline {
    /// Chooses the figures. A window with fewer messages than `enough` is replaced by the latest figures, if these
    /// cover more.
    fn of(stable: &Window, lately: FailureCounts, enough: u64) -> Self {
        let beside = FailureCounts::new(stable.messages, stable.faults);
        if beside.messages.max(lately.messages) == 0 {
            Self::Unknown
        } else if beside.messages >= enough || beside.messages >= lately.messages {
            Self::SameWindow(beside)
        } else {
            Self::Recently(lately, percent_of(beside.faults, beside.messages))
        }
    }

    /// Returns the upper bound of stable's rate, in percent.
    ///
    /// For few messages it would be nearly 100, and no candidate bad enough to be refused. So missing messages count as
    /// successes, as they do for a candidate, but never lower the rate that was seen.
    fn high(self, enough: u64) -> f64 {
        let (known, beside) = match self {
            Self::SameWindow(known) => (known, 0.0),
            Self::Recently(known, beside) => (known, beside),
            Self::Unknown => return 0.0,
        };
        let filled = FailureCounts::new(known.messages.max(enough), known.faults);
        filled.rate().high.max(percent_of(known.faults, known.messages)).max(beside)
    }

    /// Returns `true` if the candidate's failures are more than `errors` points above stable's.
    fn is_exceeded_by(self, candidate: FailureCounts, errors: f64, enough: u64) -> bool {
        match self {
            _ if candidate.faults == 0 => false,
            Self::SameWindow(_) | Self::Recently(..) => candidate.rate().low > self.high(enough) + errors,
            Self::Unknown => percent_of(candidate.faults, candidate.messages) > errors,
        }
    }

    /// Returns the measured rate of stable.
    fn seen(self) -> f64 {
        match self {
            Self::SameWindow(stable) => percent_of(stable.faults, stable.messages),
            Self::Recently(stable, beside) => percent_of(stable.faults, stable.messages).max(beside),
            Self::Unknown => 0.0,
        }
    }

    /// Returns `true` if no failure of stable is known.
    fn has_no_faults(self) -> bool {
        match self {
            Self::SameWindow(stable) => stable.faults == 0,
            Self::Recently(stable, beside) => stable.faults == 0 && beside == 0.0,
            Self::Unknown => true,
        }
    }

    /// Returns the exceeded bound, for people to read.
    fn describe(self, errors: f64) -> String {
        match self {
            Self::SameWindow(FailureCounts { messages, faults }) => format!(
                ", with the running revision {faults} of {messages}: more than {errors} points above it, by more than chance explains"
            ),
            Self::Recently(FailureCounts { messages, faults }, _) => format!(
                ", with the revision before it {faults} of its last {messages}: more than {errors} points above it, by more than chance explains"
            ),
            Self::Unknown => format!(", more than {errors}%"),
        }
    }
}

/// Refuses a candidate that fails too often, compared with stable's window or its `lately` failures.
pub(super) fn error_rate(
    rules: &RollbackRules,
    stable: &Window,
    lately: FailureCounts,
    candidate: &Window,
) -> Option<Verdict> {
    let Window { messages, faults, untaken, breaker_open, .. } = *candidate;
    let untaken = match untaken {
        0 => String::new(),
        untaken => format!(" ({untaken} could not even be taken, and stable answered)"),
    };
    let failed = format!("{faults} of {messages} messages failed{untaken}");
    let enough = rules.min_messages.max(1);
    let baseline = Baseline::of(stable, lately, enough);
    if breaker_open {
        // No more messages come, so missing ones cannot count as successes. A candidate that fails as stable did is
        // left to its breaker, as stable would be.
        if baseline.has_no_faults()
            || baseline.is_exceeded_by(FailureCounts::new(messages, faults), rules.errors, enough)
        {
            return Some(Verdict::refused(Trigger::Errors, format!("{failed}, and its breaker opened")));
        }
    }
    // Missing messages count as successes: a bound that is exceeded now will be exceeded with them.
    let of = messages.max(rules.min_messages);
    let rest = if messages < of { format!(", of {of} whatever the rest does") } else { String::new() };
    let least = FailureCounts::new(of, faults);
    if let Some(bound) = rules.errors_above.filter(|bound| faults > 0 && percent_of(faults, of) > *bound) {
        let figures = format!("{failed}, more than {bound}% (`errors-above`){rest}");
        return Some(Verdict::refused(Trigger::Errors, figures));
    }
    baseline.is_exceeded_by(least, rules.errors, enough).then(|| {
        let figures = format!("{failed}{}{rest}", baseline.describe(rules.errors));
        Verdict::refused(Trigger::Errors, figures)
    })
}

/// Refuses a candidate beside which stable fails more often than `before` traffic moved. A candidate's writes, messages
/// or use of resources can make stable fail while its own messages go well. An outage during the rollout looks the
/// same; then a rollout should wait, too.
pub(super) fn stable_degraded(rules: &RollbackRules, stable: &Window, before: FailureCounts) -> Option<Verdict> {
    // Without figures from before, its failures cannot be blamed on the rollout.
    if before.messages == 0 {
        return None;
    }
    let Window { messages, faults, .. } = *stable;
    let enough = rules.min_messages.max(1);
    // Missing messages count as successes, so that the first fault alone is no verdict.
    let least = FailureCounts::new(messages.max(enough), faults);
    Baseline::SameWindow(before).is_exceeded_by(least, rules.errors, enough).then(|| {
        let figures = format!(
            "the running revision began to fail: {faults} of {messages} messages beside the new one, {} of {} before: \
             more than {} points above it, by more than chance explains",
            before.faults, before.messages, rules.errors
        );
        Verdict::refused(Trigger::Stable, figures)
    })
}

/// The multiple of `min-messages` up to which a suspicious candidate is watched: a difference that is not certain by
/// then is too small to matter.
const MAX_UNDECIDED: u64 = 10;

/// Returns the number of messages to wait for if a candidate seems to fail too often and chance could explain it;
/// `None` if it does not, or enough were seen. Meanwhile it is neither refused nor healthy.
pub(super) fn messages_needed(
    rules: &RollbackRules,
    stable: &Window,
    lately: FailureCounts,
    candidate: &Window,
) -> Option<u64> {
    let enough = rules.min_messages.max(1);
    let most = enough.saturating_mul(MAX_UNDECIDED);
    let seen = percent_of(candidate.faults, candidate.messages);
    (candidate.messages < most && seen > Baseline::of(stable, lately, enough).seen() + rules.errors).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspicious_candidate_is_watched_until_it_is_certain() {
        let rules = RollbackRules { min_messages: 30, ..rules() };
        // stable, candidate, the number of messages to wait for
        for (stable, candidate, expected) in [
            ((500, 0), (30, 1), None),
            ((500, 0), (30, 3), Some(300)),
            ((500, 0), (299, 18), Some(300)),
            ((500, 0), (300, 18), None),
            ((500, 100), (100, 24), None),
            ((500, 100), (100, 30), Some(300)),
            ((0, 0), (30, 3), Some(300)),
        ] {
            let found = messages_needed(
                &rules,
                &window(stable.0, stable.1),
                FailureCounts::default(),
                &window(candidate.0, candidate.1),
            );
            assert_eq!(found, expected, "{stable:?} {candidate:?}");
        }
    }

    fn window(messages: u64, faults: u64) -> Window {
        Window { messages, faults, ..Window::default() }
    }

    fn rules() -> RollbackRules {
        RollbackRules::default()
    }

    fn fires(rules: &RollbackRules, stable: (u64, u64), lately: (u64, u64), candidate: (u64, u64)) -> bool {
        let lately = FailureCounts::new(lately.0, lately.1);
        error_rate(rules, &window(stable.0, stable.1), lately, &window(candidate.0, candidate.1)).is_some()
    }

    #[test]
    fn old_spans_are_forgotten() {
        let mut recent = RecentFailures::new(FailureCounts::new(50, 10), FailureCounts::new(7, 7), 0);
        // time, counters, recent failures
        for (now, counters, expected) in [
            (1, (7, 7), (50, 10)),
            (2, (17, 8), (60, 11)),
            (SPAN, (27, 8), (70, 11)),
            (SPAN + 1, (107, 8), (150, 11)),
            (SPAN + 2, (108, 8), (101, 1)),
            (SPAN + 3, (508, 8), (501, 1)),
            (2 * SPAN + 2, (509, 8), (502, 1)),
            (2 * SPAN + 3, (510, 9), (403, 1)),
        ] {
            let counters = FailureCounts::new(counters.0, counters.1);
            assert_eq!(recent.update(counters, now), FailureCounts::new(expected.0, expected.1), "{now}");
        }
    }

    #[test]
    fn the_interval_narrows_with_messages() {
        for (messages, faults, low, high) in [
            (0, 0, 0.0, 100.0),
            (1, 0, 0.0, 80.0),
            (1, 1, 20.0, 100.0),
            (100, 0, 0.0, 3.8),
            (100, 100, 96.2, 100.0),
            (100, 20, 13.3, 29.0),
            (10_000, 2_000, 19.2, 20.8),
        ] {
            let rate = FailureCounts::new(messages, faults).rate();
            let near = |given: f64, expected: f64| (given - expected).abs() < 0.1;
            assert!(near(rate.low, low) && near(rate.high, high), "{faults} of {messages}: {rate:?}");
        }
    }

    #[test]
    fn a_candidate_is_compared_with_stable() {
        let rules = rules();
        // stable in the window, stable before, candidate
        for (name, stable, lately, candidate, expected) in [
            ("both fail at a fifth", (100, 20), (0, 0), (100, 20), false),
            ("the candidate has bad luck", (100, 20), (0, 0), (100, 28), false),
            ("the candidate is worse", (100, 20), (0, 0), (100, 50), true),
            ("the candidate mends some of it", (100, 60), (0, 0), (100, 30), false),
            ("stable fails at nothing", (1_000, 0), (0, 0), (100, 20), true),
            ("within the points that are allowed", (1_000, 0), (0, 0), (1_000, 45), false),
            ("above them, as many messages tell", (10_000, 0), (0, 0), (10_000, 600), true),
            ("above them, as too few tell", (100, 0), (0, 0), (100, 7), false),
            ("what went wrong meanwhile went wrong for both", (50, 50), (10_000, 0), (100, 100), false),
            ("a window goes before what was", (100, 0), (100, 90), (100, 90), true),
            ("no stable beside it, and it failed as often", (0, 0), (100, 20), (100, 20), false),
            ("no stable beside it, and it failed less", (0, 0), (1_000, 10), (100, 20), true),
            ("nothing known: five of a hundred are allowed", (0, 0), (0, 0), (100, 5), false),
            ("nothing known: six are not", (0, 0), (0, 0), (100, 6), true),
            ("a few messages of stable excuse nothing", (3, 0), (0, 0), (100, 40), true),
            ("nor do they accuse", (3, 0), (0, 0), (100, 10), false),
            ("few beside it, and before it failed as often", (3, 0), (1_000, 200), (100, 20), false),
            ("few beside it that all failed", (3, 3), (1_000, 0), (100, 100), false),
            ("few are known of before", (0, 0), (5, 0), (100, 40), true),
            ("few are known of before, and they failed as often", (0, 0), (5, 2), (100, 40), false),
        ] {
            assert_eq!(fires(&rules, stable, lately, candidate), expected, "{name}");
        }
    }

    #[test]
    fn only_certain_failures_are_refused_early() {
        let rules = rules();
        for (name, stable, candidate, expected) in [
            ("all of a few, and stable fails at none", (1_000, 0), (12, 12), true),
            ("all of a few, and so does stable", (12, 12), (12, 12), false),
            ("six of ten could still be six of a hundred", (1_000, 0), (10, 6), false),
            ("a fifth of a few, as stable", (50, 10), (50, 10), false),
            ("nothing known: six of ten will be six of a hundred at best", (0, 0), (10, 6), true),
            ("nothing known: five of ten may be five of a hundred", (0, 0), (10, 5), false),
        ] {
            assert_eq!(fires(&rules, stable, (0, 0), candidate), expected, "{name}");
        }
        // Whatever is refused early would also be refused with the rest successful.
        for faults in 0..=100 {
            if fires(&rules, (300, 10), (0, 0), (faults, faults)) {
                assert!(fires(&rules, (300, 10), (0, 0), (100, faults)), "{faults}");
            }
        }
    }

    #[test]
    fn an_absolute_bound_applies_only_if_set() {
        let bound = RollbackRules { errors_above: Some(30.0), ..rules() };
        for (name, stable, candidate, expected) in [
            ("as stable, and below", (100, 20), (100, 20), false),
            ("as stable, and above", (100, 60), (100, 60), true),
            ("at it", (100, 60), (100, 30), false),
            ("early: 31 of 40 will be 31 of a hundred at best", (100, 60), (40, 31), true),
            ("early: 30 of 40 may be 30 of a hundred", (100, 60), (40, 30), false),
        ] {
            assert_eq!(fires(&bound, stable, (0, 0), candidate), expected, "{name}");
            assert!(!fires(&rules(), stable, (0, 0), candidate), "{name}, without the bound");
        }
        let all = RollbackRules { errors_above: Some(0.0), errors: 100.0, ..rules() };
        assert!(fires(&all, (100, 60), (0, 0), (100, 1)) && !fires(&all, (100, 60), (0, 0), (100, 0)));
    }

    #[test]
    fn an_open_breaker_is_compared_with_stable() {
        let open = |messages, faults| Window { breaker_open: true, ..window(messages, faults) };
        for (name, lately, candidate, expected) in [
            ("nothing known", (0, 0), open(3, 3), true),
            ("stable failed at nothing", (1_000, 0), open(10, 10), true),
            ("stable failed at nothing of a few", (2, 0), open(3, 3), true),
            ("stable failed at everything too", (100, 100), open(10, 10), false),
            ("stable failed at half", (1_000, 500), open(10, 10), true),
        ] {
            let lately = FailureCounts::new(lately.0, lately.1);
            let found = error_rate(&rules(), &Window::default(), lately, &candidate);
            assert_eq!(found.is_some(), expected, "{name}");
        }
    }

    /// A biased coin, tossed with SplitMix64.
    struct Coin(u64);

    impl Coin {
        fn falls(&mut self, rate: f64) -> bool {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 <= rate
        }
    }

    /// Thousands of canaries, judged after every message of a long step.
    #[test]
    fn worse_revisions_are_refused_and_equal_ones_are_not() {
        let mut coin = Coin(7);
        let mut refused = |min_messages: u64, old: f64, new: f64| {
            let rules = RollbackRules { min_messages, ..rules() };
            let mut run = || {
                let (mut stable, mut candidate) = (FailureCounts::default(), FailureCounts::default());
                (0..1_000).any(|_| {
                    stable = FailureCounts::new(stable.messages + 1, stable.faults + u64::from(coin.falls(old)));
                    candidate =
                        FailureCounts::new(candidate.messages + 1, candidate.faults + u64::from(coin.falls(new)));
                    fires(&rules, (stable.messages, stable.faults), (0, 0), (candidate.messages, candidate.faults))
                })
            };
            (0..1_000).filter(|_| run()).count()
        };
        for (min_messages, old, new, at_least, at_most) in [
            (10, 0.2, 0.2, 0, 10),
            (100, 0.2, 0.2, 0, 5),
            (10, 0.0, 0.0, 0, 0),
            (100, 0.5, 0.5, 0, 5),
            (10, 0.9, 0.9, 0, 10),
            (100, 0.2, 0.4, 990, 1_000),
            (10, 0.0, 0.2, 990, 1_000),
            (100, 0.9, 1.0, 900, 1_000),
        ] {
            let count = refused(min_messages, old, new);
            assert!((at_least..=at_most).contains(&count), "{min_messages} {old} {new}: {count} of 1000");
        }
    }

    #[test]
    fn figures_are_printed() {
        let told = |stable: Window, lately: FailureCounts, candidate: Window| match error_rate(
            &rules(),
            &stable,
            lately,
            &candidate,
        ) {
            Some(Verdict::Refused { figures, .. }) => figures,
            other => panic!("{other:?}"),
        };
        let none = FailureCounts::default();
        assert_eq!(told(window(0, 0), none, window(200, 11)), "11 of 200 messages failed, more than 5%");
        assert_eq!(
            told(window(200, 2), none, window(200, 40)),
            "40 of 200 messages failed, with the running revision 2 of 200: more than 5 points above it, by more than \
             chance explains"
        );
        assert_eq!(
            told(window(0, 0), FailureCounts::new(200, 2), window(20, 20)),
            "20 of 20 messages failed, with the revision before it 2 of its last 200: more than 5 points above it, by \
             more than chance explains, of 100 whatever the rest does"
        );
    }
}
