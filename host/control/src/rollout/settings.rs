//! What a rollout goes by beside its strategy: when it is judged, how it is probed, how long it may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::strategy::{Common, Memory, Situation, Step, Strategy};
use super::{CannotHold, strategy};
use crate::units::serde_duration;

/// How often traffic that is split is judged (SPEC §3).
pub const JUDGED_EVERY: Duration = Duration::from_secs(5);

/// How long a new revision with all the traffic is watched at most, for it to be judged by `min-messages` and its
/// probes. An agent that has so few messages is not kept from being done by them for ever, and what comes up later is
/// supervision's affair, or a person's.
pub const WATCHED: Duration = Duration::from_secs(300);

/// So many probes of a revision with all the traffic are enough: as many as would refuse it.
pub(super) const PROBES_WATCHED: u64 = 3;

/// How often one that is watched is looked at: it has all the traffic.
pub(super) const WATCHED_EVERY: Duration = Duration::from_secs(1);

/// A probe that failed while a rollout waits for it is repeated after this time and not after `every`: who never
/// becomes healthy is found out in seconds.
const AGAIN: Duration = Duration::from_secs(1);

/// `rollback`: when a new revision is taken back, and what is kept to go back to (SPEC §4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
// A record of an earlier version lacks what was added since.
#[serde(rename_all = "kebab-case", default)]
pub struct Rollback {
    /// Whether that happens by itself (true).
    pub automatic: bool,
    /// When so many more of its messages, of a hundred, failed than of stable's (0 – 100, 5).
    pub errors: f64,
    /// Above so many failed of a hundred messages, whatever stable does (0 – 100, off).
    #[serde(default)]
    pub errors_above: Option<f64>,
    /// When its p95 is above stable's in the same window by more than so many percent (0 – 10,000, 50).
    pub slower: f64,
    /// A p95 that is not above this is not slow (0 – 1 h, 10 ms).
    #[serde(with = "serde_duration")]
    pub slower_min: Duration,
    /// Below so many passed of a hundred probes (0 – 100, 50).
    pub probes: f64,
    /// Above so much memory of one instance, in bytes (1 MiB – 4 GiB, off).
    pub memory_bytes: Option<u64>,
    /// When fewer of a hundred answers that its rehearsal compares are alike (0 – 100, off).
    #[serde(rename = "match")]
    pub match_percent: Option<f64>,
    /// With fewer messages it is not judged, and is never healthy (0 – 1,000,000, 100).
    pub min_messages: u64,
    /// Revisions that are kept beside the one that runs, with their bytes, settings and snapshots (0 – 100, 3).
    pub keep: u32,
}

impl Default for Rollback {
    /// SPEC §3, §4.
    fn default() -> Self {
        Self {
            automatic: true,
            errors: 5.0,
            errors_above: None,
            slower: 50.0,
            slower_min: Duration::from_millis(10),
            probes: 50.0,
            memory_bytes: None,
            match_percent: None,
            min_messages: 100,
            keep: 3,
        }
    }
}

/// How a revision's `health` is asked (SPEC §2). One that exports none is healthy when its instances stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HealthProbe {
    /// The first comes at the latest so long after it is ready (0 s – 5 min, 10 s); a rollout asks at once.
    #[serde(with = "serde_duration")]
    pub first: Duration,
    /// Time between two (1 s – 10 min, 30 s).
    #[serde(with = "serde_duration")]
    pub every: Duration,
    /// How long an answer may take (10 ms – 1 min, 5 s).
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
    /// Successes in a row to be healthy (1 – 10, 2).
    pub successes: u32,
    /// Failures in a row not to be (1 – 10, 3).
    pub failures: u32,
}

impl Default for HealthProbe {
    /// SPEC §2.
    fn default() -> Self {
        let [first, every, timeout] = [10, 30, 5].map(Duration::from_secs);
        Self { first, every, timeout, successes: 2, failures: 3 }
    }
}

/// What the probes of one revision said since it is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Probes {
    /// How many passed.
    pub passed: u64,
    /// How many did not.
    pub failed: u64,
    /// How many passed since the last that did not.
    pub passed_in_a_row: u32,
    /// How many failed since the last that did not.
    pub failed_in_a_row: u32,
    /// When the last ended, in milliseconds since 1970.
    pub last: Option<u64>,
}

impl Probes {
    /// Counts one.
    pub fn count(&mut self, passed: bool, now: u64) {
        if passed {
            (self.passed, self.passed_in_a_row, self.failed_in_a_row) =
                (self.passed + 1, self.passed_in_a_row.saturating_add(1), 0);
        } else {
            (self.failed, self.failed_in_a_row, self.passed_in_a_row) =
                (self.failed + 1, self.failed_in_a_row.saturating_add(1), 0);
        }
        self.last = Some(now);
    }

    /// Whether it is healthy (`true`), not (`false`), or not known yet.
    pub fn healthy(&self, probe: &HealthProbe) -> Option<bool> {
        if self.failed_in_a_row >= probe.failures {
            Some(false)
        } else {
            (self.passed_in_a_row >= probe.successes).then_some(true)
        }
    }

    /// One could not be asked: all instances had messages in hand.
    pub fn skip(&mut self, now: u64) {
        self.last = Some(now);
    }

    /// In how long the next is due; zero for now.
    pub fn next_in(&self, probe: &HealthProbe, ready_since: u64, pace: Pace, now: u64) -> Duration {
        let (from, wait) = match (self.last, pace) {
            (None, Pace::AtOnce | Pace::Soon) => return Duration::ZERO,
            (None, Pace::NowAndThen) => (ready_since, probe.first),
            (Some(_), Pace::AtOnce) if self.failed_in_a_row == 0 => return Duration::ZERO,
            (Some(last), Pace::AtOnce | Pace::Soon) => (last, AGAIN.min(probe.every)),
            // Who failed once is asked again soon.
            (Some(last), Pace::NowAndThen) if self.failed_in_a_row > 0 => (last, AGAIN.min(probe.every)),
            (Some(last), Pace::NowAndThen) => (last, probe.every),
        };
        wait.saturating_sub(Duration::from_millis(now.saturating_sub(from)))
    }
}

/// How urgent the next probe is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// A rollout waits for it before traffic moves.
    AtOnce,
    /// A rollout waits for it, and wants to know how it goes on.
    Soon,
    /// Nothing waits for it.
    NowAndThen,
}

/// Everything that a rollout goes by, as it was declared when it began. What is changed afterwards is for the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    /// The strategy.
    pub strategy: Strategy,
    /// When it is taken back.
    pub rollback: Rollback,
    /// What becomes of state in memory (migrate).
    pub state: Memory,
    /// How many of the last messages the candidate has to handle on a copy first (0 – 10,000, 0).
    pub rehearse: u32,
    /// How its health is asked.
    pub probe: HealthProbe,
    /// How long the host's own work may take; pauses, step times and waits for messages are not counted (30 s –
    /// 30 min, 5 min).
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
    /// How long the old revision may take to finish what is in flight (5 s – 10 min, 60 s).
    #[serde(with = "serde_duration")]
    pub drain: Duration,
}

impl Default for Settings {
    /// What a record lacks; one without a strategy is of no version.
    fn default() -> Self {
        Self::new(Strategy::Undo)
    }
}

impl Settings {
    /// This strategy, with everything else as it is unless declared otherwise.
    pub fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            rollback: Rollback::default(),
            state: Memory::default(),
            rehearse: 0,
            probe: HealthProbe::default(),
            timeout: Duration::from_secs(300),
            drain: Duration::from_secs(60),
        }
    }

    /// The steps, in order. The first is always [`Step::Prepare`].
    ///
    /// # Errors
    /// The strategy cannot hold for this agent.
    pub fn steps(&self, situation: Situation) -> Result<Vec<Step>, CannotHold> {
        strategy::steps(&self.strategy, Common { situation, rehearse: self.rehearse })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_successes_are_healthy_and_three_failures_are_not() {
        for (answers, healthy) in [
            ("", None),
            ("+", None),
            ("++", Some(true)),
            ("--", None),
            ("---", Some(false)),
            ("++--", None),
            ("++---", Some(false)),
            ("---+", None),
            ("---++", Some(true)),
            ("+-+-+-", None),
        ] {
            let mut probes = Probes::default();
            answers.chars().for_each(|answer| probes.count(answer == '+', 0));
            assert_eq!(probes.healthy(&HealthProbe::default()), healthy, "{answers}");
        }
    }

    #[test]
    fn a_rollout_that_waits_asks_at_once_and_later_it_is_asked_now_and_then() {
        let probe = HealthProbe::default();
        use Pace::{AtOnce, NowAndThen, Soon};
        // answers at 100 s, ready since 95 s, pace, now in s, next in s
        for (answers, pace, now, next) in [
            ("", AtOnce, 100, 0),
            ("", Soon, 100, 0),
            ("", NowAndThen, 100, 5),
            ("", NowAndThen, 200, 0),
            ("+", AtOnce, 100, 0),
            ("+", Soon, 100, 1),
            ("-", AtOnce, 100, 1),
            ("-", AtOnce, 101, 0),
            ("+", NowAndThen, 110, 20),
            ("-", NowAndThen, 100, 1),
            ("-", NowAndThen, 130, 0),
            ("+", NowAndThen, 90, 30),
        ] {
            let mut probes = Probes::default();
            answers.chars().for_each(|answer| probes.count(answer == '+', 100_000));
            let wait = probes.next_in(&probe, 95_000, pace, now * 1_000);
            assert_eq!(wait, Duration::from_secs(next), "{answers} {pace:?} {now}");
        }
    }
}
