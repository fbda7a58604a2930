//! The probes of a revision by its `health` export, and when the next one is due.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::serde_duration;

/// The interval of repeating a failed probe that a rollout waits for, in place of `every`: a revision that never
/// becomes healthy is detected in seconds.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The probing of a revision by its `health` export (SPEC §2). A revision without the export is healthy once its
/// instances have started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct HealthProbe {
    /// The longest time from ready to the first probe (0 s – 5 min, 10 s); a rollout probes at once.
    #[serde(with = "serde_duration")]
    pub first: Duration,
    /// The interval of probes (1 s – 10 min, 30 s).
    #[serde(with = "serde_duration")]
    pub every: Duration,
    /// The time limit of a probe (10 ms – 1 min, 5 s).
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
    /// The consecutive successes that make it healthy (1 – 10, 2).
    pub successes: u32,
    /// The consecutive failures that make it unhealthy (1 – 10, 3).
    pub failures: u32,
}

impl Default for HealthProbe {
    /// Returns the value of SPEC §2.
    fn default() -> Self {
        let [first, every, timeout] = [10, 30, 5].map(Duration::from_secs);
        Self { first, every, timeout, successes: 2, failures: 3 }
    }
}

/// The probes of one revision since it is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// Probes that passed.
    pub passed: u64,
    /// Probes that failed.
    pub failed: u64,
    /// Probes that passed since the last failure.
    pub passed_in_a_row: u32,
    /// Probes that failed since the last success.
    pub failed_in_a_row: u32,
    /// The end of the last probe, in milliseconds since 1970.
    pub last: Option<u64>,
}

impl ProbeResults {
    /// Records a probe.
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

    /// Returns `true` if the revision is healthy, `false` if it is not, and `None` while that is unknown.
    pub fn healthy(&self, probe: &HealthProbe) -> Option<bool> {
        if self.failed_in_a_row >= probe.failures {
            Some(false)
        } else {
            (self.passed_in_a_row >= probe.successes).then_some(true)
        }
    }

    /// Records a probe that was skipped because all instances were busy with messages.
    pub fn skip(&mut self, now: u64) {
        // No result, but the interval starts again: at once the instances would still be busy.
        self.last = Some(now);
    }

    /// Returns the time until the next probe is due; zero if it is due now.
    pub fn next_in(&self, probe: &HealthProbe, ready_since: u64, pace: ProbePace, now: u64) -> Duration {
        let (from, wait) = match (self.last, pace) {
            (None, ProbePace::Immediate | ProbePace::Frequent) => return Duration::ZERO,
            (None, ProbePace::Periodic) => (ready_since, probe.first),
            (Some(_), ProbePace::Immediate) if self.failed_in_a_row == 0 => return Duration::ZERO,
            (Some(last), ProbePace::Immediate | ProbePace::Frequent) => (last, RETRY_INTERVAL.min(probe.every)),
            // One failure may be the first of three, so the next probe comes soon.
            (Some(last), ProbePace::Periodic) if self.failed_in_a_row > 0 => (last, RETRY_INTERVAL.min(probe.every)),
            (Some(last), ProbePace::Periodic) => (last, probe.every),
        };
        wait.saturating_sub(Duration::from_millis(now.saturating_sub(from)))
    }
}

/// The urgency of the next probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbePace {
    /// The pace when a rollout waits for the result before traffic moves.
    Immediate,
    /// The pace when a rollout waits for more results while it has traffic.
    Frequent,
    /// The pace when nothing waits for it.
    Periodic,
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
            let mut probes = ProbeResults::default();
            answers.chars().for_each(|answer| probes.count(answer == '+', 0));
            assert_eq!(probes.healthy(&HealthProbe::default()), healthy, "{answers}");
        }
    }

    #[test]
    fn probes_are_as_urgent_as_the_pace() {
        let probe = HealthProbe::default();
        use ProbePace::{Frequent, Immediate, Periodic};
        // probes at 100 s, pace, now in s, next in s; ready since 95 s
        for (answers, pace, now, next) in [
            ("", Immediate, 100, 0),
            ("", Frequent, 100, 0),
            ("", Periodic, 100, 5),
            ("", Periodic, 200, 0),
            ("+", Immediate, 100, 0),
            ("+", Frequent, 100, 1),
            ("-", Immediate, 100, 1),
            ("-", Immediate, 101, 0),
            ("+", Periodic, 110, 20),
            ("-", Periodic, 100, 1),
            ("-", Periodic, 130, 0),
            ("+", Periodic, 90, 30),
        ] {
            let mut probes = ProbeResults::default();
            answers.chars().for_each(|answer| probes.count(answer == '+', 100_000));
            let wait = probes.next_in(&probe, 95_000, pace, now * 1_000);
            assert_eq!(wait, Duration::from_secs(next), "{answers} {pace:?} {now}");
        }
    }
}
