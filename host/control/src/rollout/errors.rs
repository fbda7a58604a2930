//! Whether a candidate fails more often than the revision before it.
//!
//! A rate of failures that is measured on `n` messages is known only roughly, so the least that the candidate's rate can
//! be is compared with the most that stable's can be, as [`analysis`](super::analysis) does with the times that `slower`
//! compares. The bounds are those of the score interval (Wilson, 1927), two deviations wide to each side: it holds for
//! few messages and for rates of 0 and 100 %, where the plain normal interval has no width, and needs no table, as an
//! exact test would. Two intervals that do not overlap are stricter than one test of the difference. That is wanted:
//! the figures are looked at again and again while they grow, and each look is another chance to be wrong.
//!
//! What stable is taken for, in this order:
//!
//! 1. What it failed at in the same window: whatever else goes wrong meanwhile, goes wrong for both.
//! 2. Where it has too few messages there, or none: what it failed at last ([`Ledger::note_figures`](super::Ledger)).
//! 3. Nothing is known of it: `errors` is a bound of the candidate's own rate.

use serde::{Deserialize, Serialize};

use super::analysis::{Trigger, Verdict, Window, percent};
use super::settings::Rollback;

/// Deviations between a rate and its bounds; as many as for [`P95::ranks`](super::analysis::P95::ranks).
const DEVIATIONS: f64 = 2.0;

/// Messages and calls that a revision ended, and how many of them failed by its fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tally {
    /// Messages and calls that it ended, well or not.
    pub messages: u64,
    /// How many of them failed by its fault.
    pub faults: u64,
}

/// How long a span of [`Recent`] lasts at least, in milliseconds.
const SPAN: u64 = 5 * 60 * 1_000;
/// How many messages it has at least.
const SPAN_MESSAGES: u64 = 100;

/// What a revision failed at of late: in the span under way, and in the one before it. What it did long ago says little
/// of how it does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recent {
    /// The span before.
    before: Tally,
    /// Its counters when the span began, and when that was, in milliseconds.
    began: (u64, Tally),
}

impl Recent {
    /// Begins with what is known from before; `counters` are those of the revision by now.
    pub fn new(before: Tally, counters: Tally, now: u64) -> Self {
        Self { before, began: (now, counters) }
    }

    /// What it failed at of late, by its counters.
    pub fn look(&mut self, counters: Tally, now: u64) -> Tally {
        let (since, at_first) = self.began;
        let span = counters.since(at_first);
        let tally = self.before.and(span);
        if now.saturating_sub(since) >= SPAN && span.messages >= SPAN_MESSAGES {
            *self = Self::new(span, counters, now);
        }
        tally
    }
}

/// A rate of failures, of a hundred, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    /// The least that it can be, short of chance.
    low: f64,
    /// The most that it can be, short of chance.
    high: f64,
}

impl Tally {
    /// Failures of so many messages.
    pub fn new(messages: u64, faults: u64) -> Self {
        Self { messages, faults }
    }

    fn and(self, other: Self) -> Self {
        Self::new(self.messages + other.messages, self.faults + other.faults)
    }

    fn since(self, before: Self) -> Self {
        Self::new(self.messages.saturating_sub(before.messages), self.faults.saturating_sub(before.faults))
    }

    /// The score interval of its rate. Without messages it can be anything.
    fn rate(self) -> Rate {
        if self.messages == 0 {
            return Rate { low: 0.0, high: 100.0 };
        }
        let (count, square) = (self.messages as f64, DEVIATIONS * DEVIATIONS);
        let at = self.faults.min(self.messages) as f64 / count;
        let centre = at + square / (2.0 * count);
        let half = DEVIATIONS * (at * (1.0 - at) / count + square / (4.0 * count * count)).sqrt();
        let bound = |rate: f64| (rate / (1.0 + square / count) * 100.0).clamp(0.0, 100.0);
        Rate { low: bound(centre - half), high: bound(centre + half) }
    }
}

/// What a candidate is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    /// Stable in the same window.
    Beside(Tally),
    /// Stable, as it did last. Of the window, where it has few messages, the part that failed.
    Lately(Tally, f64),
    /// Nothing is known of it.
    Unknown,
}

impl Before {
    /// A window with fewer messages than `enough` is a part of what stable did last, if more is known of that.
    fn of(stable: &Window, lately: Tally, enough: u64) -> Self {
        let beside = Tally::new(stable.messages, stable.faults);
        if beside.messages.max(lately.messages) == 0 {
            Self::Unknown
        } else if beside.messages >= enough || beside.messages >= lately.messages {
            Self::Beside(beside)
        } else {
            Self::Lately(lately, percent(beside.faults, beside.messages))
        }
    }

    /// The most that stable's rate can be.
    ///
    /// Of few messages that would be nearly anything, and no candidate bad enough to be refused. Those that are missing
    /// are taken for well, as they are of a candidate; what failed already is not made less by them.
    fn high(self, enough: u64) -> f64 {
        let (known, beside) = match self {
            Self::Beside(known) => (known, 0.0),
            Self::Lately(known, beside) => (known, beside),
            Self::Unknown => return 0.0,
        };
        let filled = Tally::new(known.messages.max(enough), known.faults);
        filled.rate().high.max(percent(known.faults, known.messages)).max(beside)
    }

    /// Whether so many failures are more than `errors` points above it.
    fn is_exceeded_by(self, candidate: Tally, errors: f64, enough: u64) -> bool {
        match self {
            _ if candidate.faults == 0 => false,
            Self::Beside(_) | Self::Lately(..) => candidate.rate().low > self.high(enough) + errors,
            Self::Unknown => percent(candidate.faults, candidate.messages) > errors,
        }
    }

    /// The rate that was seen of it.
    fn seen(self) -> f64 {
        match self {
            Self::Beside(stable) => percent(stable.faults, stable.messages),
            Self::Lately(stable, beside) => percent(stable.faults, stable.messages).max(beside),
            Self::Unknown => 0.0,
        }
    }

    /// Whether nothing is known against it.
    fn is_spotless(self) -> bool {
        match self {
            Self::Beside(stable) => stable.faults == 0,
            Self::Lately(stable, beside) => stable.faults == 0 && beside == 0.0,
            Self::Unknown => true,
        }
    }

    /// The bound that was passed, for a person to read.
    fn told(self, errors: f64) -> String {
        match self {
            Self::Beside(Tally { messages, faults }) => format!(
                ", with the running revision {faults} of {messages}: more than {errors} points above it, by more than chance explains"
            ),
            Self::Lately(Tally { messages, faults }, _) => format!(
                ", with the revision before it {faults} of its last {messages}: more than {errors} points above it, by more than chance explains"
            ),
            Self::Unknown => format!(", more than {errors}%"),
        }
    }
}

/// Refuses a candidate that fails too often. Stable failed at `lately` of its messages before traffic moved.
pub(super) fn errors(rules: &Rollback, stable: &Window, lately: Tally, candidate: &Window) -> Option<Verdict> {
    let Window { messages, faults, untaken, breaker_open, .. } = *candidate;
    let untaken = match untaken {
        0 => String::new(),
        untaken => format!(" ({untaken} could not even be taken, and stable answered)"),
    };
    let failed = format!("{faults} of {messages} messages failed{untaken}");
    let enough = rules.min_messages.max(1);
    let before = Before::of(stable, lately, enough);
    if breaker_open {
        // No more of them come, so those that are missing can make nothing good. One that fails as stable does is left to
        // its breaker, as stable would be.
        if before.is_spotless() || before.is_exceeded_by(Tally::new(messages, faults), rules.errors, enough) {
            return Some(Verdict::refused(Trigger::Errors, format!("{failed}, and its breaker opened")));
        }
    }
    // As if all that is missing went well: what fires now would fire then.
    let of = messages.max(rules.min_messages);
    let rest = if messages < of { format!(", of {of} whatever the rest does") } else { String::new() };
    let least = Tally::new(of, faults);
    if let Some(bound) = rules.errors_above.filter(|bound| faults > 0 && percent(faults, of) > *bound) {
        let figures = format!("{failed}, more than {bound}% (`errors-above`){rest}");
        return Some(Verdict::refused(Trigger::Errors, figures));
    }
    before.is_exceeded_by(least, rules.errors, enough).then(|| {
        let figures = format!("{failed}{}{rest}", before.told(rules.errors));
        Verdict::refused(Trigger::Errors, figures)
    })
}

/// Refuses a candidate beside which stable fails more often than `before` traffic moved. What a candidate writes, sends
/// or uses up can make stable fail while its own messages go well. An outage that comes with the rollout looks the same;
/// a rollout in the middle of one had better wait, too.
pub(super) fn harm(rules: &Rollback, stable: &Window, before: Tally) -> Option<Verdict> {
    if before.messages == 0 {
        return None;
    }
    let Window { messages, faults, .. } = *stable;
    let enough = rules.min_messages.max(1);
    let least = Tally::new(messages.max(enough), faults);
    Before::Beside(before).is_exceeded_by(least, rules.errors, enough).then(|| {
        let figures = format!(
            "the running revision began to fail: {faults} of {messages} messages beside the new one, {} of {} before: \
             more than {} points above it, by more than chance explains",
            before.faults, before.messages, rules.errors
        );
        Verdict::refused(Trigger::Stable, figures)
    })
}

/// A candidate that seems to fail too often is judged by up to so many times `min-messages`: a difference that is not
/// certain by then is too small to matter.
const UNDECIDED: u64 = 10;

/// Returns how many messages are to be waited for of a candidate that seems to fail more than it may, as long as chance
/// could explain it; none if it does not seem to, or enough were seen. It is not refused, and not healthy either.
pub(super) fn undecided(rules: &Rollback, stable: &Window, lately: Tally, candidate: &Window) -> Option<u64> {
    let enough = rules.min_messages.max(1);
    let most = enough.saturating_mul(UNDECIDED);
    let seen = percent(candidate.faults, candidate.messages);
    (candidate.messages < most && seen > Before::of(stable, lately, enough).seen() + rules.errors).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_that_seems_to_fail_more_is_waited_for_until_it_is_certain() {
        let rules = Rollback { min_messages: 30, ..rules() };
        // stable, candidate, the messages that are waited for
        for (stable, candidate, expected) in [
            ((500, 0), (30, 1), None),
            ((500, 0), (30, 3), Some(300)),
            ((500, 0), (299, 18), Some(300)),
            ((500, 0), (300, 18), None),
            ((500, 100), (100, 24), None),
            ((500, 100), (100, 30), Some(300)),
            ((0, 0), (30, 3), Some(300)),
        ] {
            let found =
                undecided(&rules, &window(stable.0, stable.1), Tally::default(), &window(candidate.0, candidate.1));
            assert_eq!(found, expected, "{stable:?} {candidate:?}");
        }
    }

    fn window(messages: u64, faults: u64) -> Window {
        Window { messages, faults, ..Window::default() }
    }

    fn rules() -> Rollback {
        Rollback::default()
    }

    fn fires(rules: &Rollback, stable: (u64, u64), lately: (u64, u64), candidate: (u64, u64)) -> bool {
        let lately = Tally::new(lately.0, lately.1);
        errors(rules, &window(stable.0, stable.1), lately, &window(candidate.0, candidate.1)).is_some()
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut recent = Recent::new(Tally::new(50, 10), Tally::new(7, 7), 0);
        // at, counters, of late
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
            let counters = Tally::new(counters.0, counters.1);
            assert_eq!(recent.look(counters, now), Tally::new(expected.0, expected.1), "{now}");
        }
    }

    #[test]
    fn a_rate_is_known_as_well_as_messages_tell() {
        for (messages, faults, low, high) in [
            (0, 0, 0.0, 100.0),
            (1, 0, 0.0, 80.0),
            (1, 1, 20.0, 100.0),
            (100, 0, 0.0, 3.8),
            (100, 100, 96.2, 100.0),
            (100, 20, 13.3, 29.0),
            (10_000, 2_000, 19.2, 20.8),
        ] {
            let rate = Tally::new(messages, faults).rate();
            let near = |given: f64, expected: f64| (given - expected).abs() < 0.1;
            assert!(near(rate.low, low) && near(rate.high, high), "{faults} of {messages}: {rate:?}");
        }
    }

    #[test]
    fn a_candidate_is_judged_by_what_stable_fails_at() {
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
    fn what_is_certain_is_refused_early_and_nothing_else() {
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
        // What fires with all the rest well also fires when it is there.
        for faults in 0..=100 {
            if fires(&rules, (300, 10), (0, 0), (faults, faults)) {
                assert!(fires(&rules, (300, 10), (0, 0), (100, faults)), "{faults}");
            }
        }
    }

    #[test]
    fn an_absolute_bound_is_beside_it_and_off_unless_set() {
        let bound = Rollback { errors_above: Some(30.0), ..rules() };
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
        let all = Rollback { errors_above: Some(0.0), errors: 100.0, ..rules() };
        assert!(fires(&all, (100, 60), (0, 0), (100, 1)) && !fires(&all, (100, 60), (0, 0), (100, 0)));
    }

    #[test]
    fn a_breaker_that_opened_is_compared_too() {
        let open = |messages, faults| Window { breaker_open: true, ..window(messages, faults) };
        for (name, lately, candidate, expected) in [
            ("nothing known", (0, 0), open(3, 3), true),
            ("stable failed at nothing", (1_000, 0), open(10, 10), true),
            ("stable failed at nothing of a few", (2, 0), open(3, 3), true),
            ("stable failed at everything too", (100, 100), open(10, 10), false),
            ("stable failed at half", (1_000, 500), open(10, 10), true),
        ] {
            let lately = Tally::new(lately.0, lately.1);
            let found = errors(&rules(), &Window::default(), lately, &candidate);
            assert_eq!(found.is_some(), expected, "{name}");
        }
    }

    /// SplitMix64, as a coin.
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

    /// Thousands of canaries whose figures are looked at after every message, as many as come in a long step.
    #[test]
    fn equal_revisions_are_not_taken_back_and_worse_ones_are() {
        let mut coin = Coin(7);
        let mut refused = |min_messages: u64, old: f64, new: f64| {
            let rules = Rollback { min_messages, ..rules() };
            let mut run = || {
                let (mut stable, mut candidate) = (Tally::default(), Tally::default());
                (0..1_000).any(|_| {
                    stable = Tally::new(stable.messages + 1, stable.faults + u64::from(coin.falls(old)));
                    candidate = Tally::new(candidate.messages + 1, candidate.faults + u64::from(coin.falls(new)));
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
    fn figures_are_told() {
        let told =
            |stable: Window, lately: Tally, candidate: Window| match errors(&rules(), &stable, lately, &candidate) {
                Some(Verdict::Refused { figures, .. }) => figures,
                other => panic!("{other:?}"),
            };
        let none = Tally::default();
        assert_eq!(told(window(0, 0), none, window(200, 11)), "11 of 200 messages failed, more than 5%");
        assert_eq!(
            told(window(200, 2), none, window(200, 40)),
            "40 of 200 messages failed, with the running revision 2 of 200: more than 5 points above it, by more than \
             chance explains"
        );
        assert_eq!(
            told(window(0, 0), Tally::new(200, 2), window(20, 20)),
            "20 of 20 messages failed, with the revision before it 2 of its last 200: more than 5 points above it, by \
             more than chance explains, of 100 whatever the rest does"
        );
    }
}
