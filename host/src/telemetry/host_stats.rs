//! Statistics of the whole host: counts, rates and times. All values are measured; one that was not measured is absent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::api_types::{DeliveryStats, FailureCount, MessageStats, ProcessStats};
use crate::telemetry::histogram::{Histogram, HistogramCounts, Sharded};

/// The sampling interval, and so the time over which the peak rate is measured.
const TICK: Duration = Duration::from_secs(1);
/// The number of samples over which the current rate is measured.
const RATE_TICKS: usize = 5;
/// The samples between two copies of the histogram, and the number of copies: together they cover the last minute.
const COPY_EVERY: u64 = 10;
const COPIES: usize = 6;

/// A counter of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostCounter {
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
    /// Runs of handlers that were discarded because another run had changed what they had read.
    Conflict,
    /// Runs of handlers, including those of conflicts.
    Run,
}

const FIGURES: usize = HostCounter::Run as usize + 1;

/// The counts since the host started. Those of removed agents are included.
#[derive(Debug)]
pub(crate) struct StatsRecorder {
    counts: Sharded<[AtomicU64; FIGURES]>,
    /// The time from the acceptance of a message to the end of its handling.
    delivery: Histogram,
    /// The failed attempts and calls by code. A lock is cheap beside the cost of a failure.
    failures: Mutex<BTreeMap<&'static str, u64>>,
    samples: Mutex<Samples>,
}

/// The samples that rates are computed from.
#[derive(Debug)]
struct Samples {
    /// The time of each sample, the messages done by then, and the CPU time by then.
    ticks: VecDeque<(Instant, u64, Duration)>,
    copies: VecDeque<HistogramCounts>,
    count: u64,
    peak: f64,
}

impl Default for StatsRecorder {
    fn default() -> Self {
        let first = (Instant::now(), 0, cpu_time());
        let delivery = Histogram::default();
        // With a first sample and a first copy, so that rates and quantiles have a base from the start.
        let samples = Samples { ticks: [first].into(), copies: [delivery.counted()].into(), count: 0, peak: 0.0 };
        Self {
            counts: Sharded::new(Default::default),
            delivery,
            failures: Mutex::default(),
            samples: Mutex::new(samples),
        }
    }
}

impl StatsRecorder {
    /// Adds one to a counter.
    pub(crate) fn count(&self, figure: HostCounter) {
        // Relaxed: a count publishes no other memory.
        self.counts.here()[figure as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Records the time from a message's acceptance to the end of its handling.
    pub(crate) fn delivered(&self, time: Duration) {
        self.delivery.record(time);
    }

    /// Counts a failed attempt or call under its code.
    pub(crate) fn failed_with(&self, code: &'static str) {
        *self.failures.lock().entry(code).or_default() += 1;
    }

    /// Returns the failed attempts and calls by code, the most frequent first.
    pub(crate) fn failures(&self) -> Vec<FailureCount> {
        let failures = self.failures.lock();
        let mut found: Vec<FailureCount> =
            failures.iter().map(|(code, count)| FailureCount { code: (*code).to_owned(), count: *count }).collect();
        found.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        found
    }

    fn sum(&self, figure: HostCounter) -> u64 {
        self.counts.all().map(|counts| counts[figure as usize].load(Ordering::Relaxed)).sum()
    }

    fn done(&self) -> u64 {
        self.sum(HostCounter::Handled) + self.sum(HostCounter::Failed)
    }

    /// Takes a sample for the rates.
    fn sample(&self, now: Instant) {
        let (done, cpu) = (self.done(), cpu_time());
        let mut samples = self.samples.lock();
        if let Some((then, before, _)) = samples.ticks.back() {
            samples.peak = samples.peak.max(rate(done - before, now.saturating_duration_since(*then)));
        }
        samples.ticks.push_back((now, done, cpu));
        if samples.ticks.len() > RATE_TICKS {
            samples.ticks.pop_front();
        }
        samples.count += 1;
        if samples.count.is_multiple_of(COPY_EVERY) {
            samples.copies.push_back(self.delivery.counted());
            if samples.copies.len() > COPIES {
                samples.copies.pop_front();
            }
        }
    }

    /// Returns the counts and rates of messages.
    pub(crate) fn messages(&self) -> MessageStats {
        let (done, now) = (self.done(), Instant::now());
        let samples = self.samples.lock();
        let per_second = samples.ticks.front().map_or(0.0, |(then, before, _)| {
            rate(done.saturating_sub(*before), now.saturating_duration_since(*then).max(TICK))
            // At least one interval: a shorter time just after the start would inflate the rate.
        });
        MessageStats {
            per_second,
            peak_per_second: samples.peak.max(per_second),
            accepted: self.sum(HostCounter::Accepted),
            handled: self.sum(HostCounter::Handled),
            failed: self.sum(HostCounter::Failed),
            retried: self.sum(HostCounter::Retried),
            refused: self.sum(HostCounter::Refused),
            dropped: self.sum(HostCounter::Dropped),
            runs: self.sum(HostCounter::Run),
            conflicts: self.sum(HostCounter::Conflict),
        }
    }

    /// Returns the quantiles of delivery times.
    pub(crate) fn deliveries(&self) -> DeliveryStats {
        let counted = self.delivery.counted();
        let samples = self.samples.lock();
        // The oldest copy is 50 to 60 seconds old.
        let recent = samples.copies.front().map(|then| counted.since(then));
        DeliveryStats { last_minute: recent.and_then(|recent| recent.quantiles()), since_start: counted.quantiles() }
    }

    /// Returns the memory and CPU use of the process.
    pub(crate) fn process(&self) -> ProcessStats {
        let (cpu, now) = (cpu_time(), Instant::now());
        let samples = self.samples.lock();
        let cores = samples.ticks.front().map_or(0.0, |(then, _, before)| {
            // As for the rate of messages: a shorter time just after the start would inflate it.
            let passed = now.saturating_duration_since(*then).max(TICK);
            cpu.saturating_sub(*before).as_secs_f64() / passed.as_secs_f64()
        });
        ProcessStats { resident_bytes: resident_bytes(), cpu_seconds: cpu.as_secs_f64(), cores }
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Takes a sample at each interval, until `stop`.
pub(crate) async fn run(stats: Arc<StatsRecorder>, stop: CancellationToken) {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
    // After a stall, catching up would measure rates over no time.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => stats.sample(Instant::now()),
        }
    }
}

/// Returns the resident memory of this process in bytes; `None` where `/proc` cannot be read.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Returns the CPU time of this process on all cores.
pub(crate) fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_cover_the_last_seconds_and_fall_to_zero() {
        let stats = StatsRecorder::default();
        let began = stats.samples.lock().ticks[0].0;
        // Messages done in each second, and the peak so far.
        for (second, (done, peak)) in [(10, 10.0), (70, 70.0), (0, 70.0), (20, 70.0)].into_iter().enumerate() {
            for _ in 0..done {
                stats.count(HostCounter::Handled);
                stats.delivered(Duration::from_millis(2));
            }
            stats.sample(began + TICK * (second as u32 + 1));
            assert_eq!(stats.samples.lock().peak, peak, "second {second}");
        }
        let found = stats.messages();
        assert_eq!((found.handled, found.accepted, found.peak_per_second >= 70.0), (100, 0, true));
        for second in 5..65 {
            stats.sample(began + TICK * second);
        }
        assert_eq!(stats.messages().per_second, 0.0);
        assert_eq!(stats.messages().peak_per_second, 70.0);
        let times = stats.deliveries();
        assert_eq!(times.last_minute, None, "a minute without messages has no times");
        assert_eq!(times.since_start.map(|times| times.count), Some(100));
    }
}
