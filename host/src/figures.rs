//! What is measured of the host as a whole: counts, rates and times. Nothing here is estimated; what was not
//! measured is not there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::histogram::{Counted, Histogram, Sharded};
use crate::status::{DeliveryFigures, FailureCount, MessageFigures, ProcessFigures};

/// How often the counts are looked at. A rate's peak is over so long.
const TICK: Duration = Duration::from_secs(1);
/// Looks between which the rate of now is taken.
const RATE_TICKS: usize = 5;
/// Looks between two copies of the times, and the copies that are kept: together the last minute.
const COPY_EVERY: u64 = 10;
const COPIES: usize = 6;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Messages taken into mailboxes.
    Accepted,
    /// Messages and calls handled.
    Handled,
    /// Messages and calls that failed for good.
    Failed,
    /// Attempts that were followed by another.
    Retried,
    /// Messages refused because a mailbox was full.
    Refused,
    /// Messages given back because their agent ended.
    Dropped,
    /// Runs of handlers that were for nothing, because others changed what they had read.
    Conflict,
    /// Runs of handlers.
    Run,
}

const FIGURES: usize = Figure::Run as usize + 1;

/// Counts of the whole host since it started, those of agents that are gone included.
#[derive(Debug)]
pub(crate) struct Figures {
    counts: Sharded<[AtomicU64; FIGURES]>,
    /// From the acceptance of a message to the end of its handling.
    delivery: Histogram,
    /// Attempts and calls that failed, by code. A lock is little beside what a failure costs.
    failures: Mutex<BTreeMap<&'static str, u64>>,
    looks: Mutex<Looks>,
}

/// What was seen at the last looks.
#[derive(Debug)]
struct Looks {
    /// When, what was done by then, and the time on cores by then.
    ticks: VecDeque<(Instant, u64, Duration)>,
    copies: VecDeque<Counted>,
    count: u64,
    peak: f64,
}

impl Default for Figures {
    fn default() -> Self {
        let first = (Instant::now(), 0, cpu_time());
        let delivery = Histogram::default();
        let looks = Looks { ticks: [first].into(), copies: [delivery.counted()].into(), count: 0, peak: 0.0 };
        Self { counts: Sharded::new(Default::default), delivery, failures: Mutex::default(), looks: Mutex::new(looks) }
    }
}

impl Figures {
    /// Counts one.
    pub(crate) fn count(&self, figure: Figure) {
        self.counts.here()[figure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long a message took from its acceptance to the end of its handling.
    pub(crate) fn delivered(&self, time: Duration) {
        self.delivery.record(time);
    }

    /// Counts an attempt or call that failed, by the code of what went wrong.
    pub(crate) fn failed_with(&self, code: &'static str) {
        *self.failures.lock().entry(code).or_default() += 1;
    }

    /// Attempts and calls that failed, by what went wrong, the most frequent first.
    pub(crate) fn failures(&self) -> Vec<FailureCount> {
        let failures = self.failures.lock();
        let mut found: Vec<FailureCount> =
            failures.iter().map(|(code, count)| FailureCount { code: (*code).to_owned(), count: *count }).collect();
        found.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        found
    }

    fn sum(&self, figure: Figure) -> u64 {
        self.counts.all().map(|counts| counts[figure as usize].load(Ordering::Relaxed)).sum()
    }

    fn done(&self) -> u64 {
        self.sum(Figure::Handled) + self.sum(Figure::Failed)
    }

    /// Looks at the counts, for rates.
    fn look(&self, now: Instant) {
        let (done, cpu) = (self.done(), cpu_time());
        let mut looks = self.looks.lock();
        if let Some((then, before, _)) = looks.ticks.back() {
            looks.peak = looks.peak.max(rate(done - before, now.saturating_duration_since(*then)));
        }
        looks.ticks.push_back((now, done, cpu));
        if looks.ticks.len() > RATE_TICKS {
            looks.ticks.pop_front();
        }
        looks.count += 1;
        if looks.count.is_multiple_of(COPY_EVERY) {
            looks.copies.push_back(self.delivery.counted());
            if looks.copies.len() > COPIES {
                looks.copies.pop_front();
            }
        }
    }

    /// Counts and rates of messages.
    pub(crate) fn messages(&self) -> MessageFigures {
        let (done, now) = (self.done(), Instant::now());
        let looks = self.looks.lock();
        let per_second = looks.ticks.front().map_or(0.0, |(then, before, _)| {
            rate(done.saturating_sub(*before), now.saturating_duration_since(*then).max(TICK))
        });
        MessageFigures {
            per_second,
            peak_per_second: looks.peak.max(per_second),
            accepted: self.sum(Figure::Accepted),
            handled: self.sum(Figure::Handled),
            failed: self.sum(Figure::Failed),
            retried: self.sum(Figure::Retried),
            refused: self.sum(Figure::Refused),
            dropped: self.sum(Figure::Dropped),
            runs: self.sum(Figure::Run),
            conflicts: self.sum(Figure::Conflict),
        }
    }

    /// How long deliveries took.
    pub(crate) fn deliveries(&self) -> DeliveryFigures {
        let counted = self.delivery.counted();
        let looks = self.looks.lock();
        let recent = looks.copies.front().map(|then| counted.since(then));
        DeliveryFigures { last_minute: recent.and_then(|recent| recent.quantiles()), since_start: counted.quantiles() }
    }

    /// What the host's process takes.
    pub(crate) fn process(&self) -> ProcessFigures {
        let (cpu, now) = (cpu_time(), Instant::now());
        let looks = self.looks.lock();
        let cores = looks.ticks.front().map_or(0.0, |(then, _, before)| {
            let passed = now.saturating_duration_since(*then).max(TICK);
            cpu.saturating_sub(*before).as_secs_f64() / passed.as_secs_f64()
        });
        ProcessFigures { resident_bytes: resident_bytes(), cpu_seconds: cpu.as_secs_f64(), cores }
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Looks again and again, until `stop`.
pub(crate) async fn run(figures: Arc<Figures>, stop: CancellationToken) {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => figures.look(Instant::now()),
        }
    }
}

/// Memory of this process in RAM; none where the system does not tell.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Time of this process on all cores.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_seconds_and_fall_to_nothing() {
        let figures = Figures::default();
        let began = figures.looks.lock().ticks[0].0;
        // what was done in each second, and the peak then
        for (second, (done, peak)) in [(10, 10.0), (70, 70.0), (0, 70.0), (20, 70.0)].into_iter().enumerate() {
            for _ in 0..done {
                figures.count(Figure::Handled);
                figures.delivered(Duration::from_millis(2));
            }
            figures.look(began + TICK * (second as u32 + 1));
            assert_eq!(figures.looks.lock().peak, peak, "second {second}");
        }
        let found = figures.messages();
        assert_eq!((found.handled, found.accepted, found.peak_per_second >= 70.0), (100, 0, true));
        for second in 5..65 {
            figures.look(began + TICK * second);
        }
        assert_eq!(figures.messages().per_second, 0.0);
        assert_eq!(figures.messages().peak_per_second, 70.0);
        let times = figures.deliveries();
        assert_eq!(times.last_minute, None, "a minute without messages has no times");
        assert_eq!(times.since_start.map(|times| times.count), Some(100));
    }
}
