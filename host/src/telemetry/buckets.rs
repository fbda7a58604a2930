//! Histograms with the buckets of the metrics, for durations of each message: a record is two atomic additions.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets of all metrics in nanoseconds, from a call in memory to a slow agent.
pub(crate) const BOUNDS_NS: [u64; 16] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    30_000_000_000,
];

/// Durations in buckets: those up to the first bound, those up to the next, and so on. The last bucket has those longer
/// than all bounds.
#[derive(Debug, Default)]
pub(crate) struct DurationBuckets {
    counts: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl DurationBuckets {
    /// Records a duration.
    pub(crate) fn record(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Sixteen bounds: a binary search takes four comparisons.
        self.counts[BOUNDS_NS.partition_point(|bound| *bound < ns)].fetch_add(1, Ordering::Relaxed);
        // Not atomic together: a scrape may see the count without its time, and the next one has both.
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// The sum of several [`DurationBuckets`] at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    counts: [u64; BOUNDS_NS.len() + 1],
    sum_ns: u64,
}

impl Distribution {
    /// Adds the counts of `times`.
    pub(crate) fn add(&mut self, times: &DurationBuckets) {
        for (sum, cell) in self.counts.iter_mut().zip(&times.counts) {
            *sum += cell.load(Ordering::Relaxed);
        }
        self.sum_ns = self.sum_ns.saturating_add(times.sum_ns.load(Ordering::Relaxed));
    }

    /// Returns each of the [bounds](BOUNDS_NS) with the number of durations up to it.
    pub(crate) fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0;
        BOUNDS_NS.into_iter().zip(self.counts).map(move |(bound, count)| {
            sum += count;
            (bound, sum)
        })
    }

    /// Returns the number of durations.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations in seconds.
    pub(crate) fn sum(&self) -> f64 {
        Duration::from_nanos(self.sum_ns).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_buckets_are_inclusive() {
        let (one, other) = (DurationBuckets::default(), DurationBuckets::default());
        one.record(Duration::ZERO);
        one.record(Duration::from_micros(50));
        one.record(Duration::from_nanos(50_001));
        other.record(Duration::from_secs(30));
        other.record(Duration::from_secs(31));
        let mut all = Distribution::default();
        [&one, &other].into_iter().for_each(|times| all.add(times));
        let found: Vec<(u64, u64)> = all.up_to().collect();
        assert_eq!((found[0], found[1]), ((50_000, 2), (100_000, 3)));
        assert_eq!((found[14].1, found[15].1, all.count()), (3, 4, 5));
        assert!((all.sum() - 61.000_100_001).abs() < 1e-9, "{}", all.sum());
    }
}
