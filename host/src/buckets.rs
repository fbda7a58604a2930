//! Times in the buckets of the metrics, for what happens so often that it is to cost a few nanoseconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of all histograms of the metrics, in nanoseconds: from a call in memory to a slow agent.
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

/// Times in buckets: all that are not longer than the first bound, then those up to the next, and in the end what is
/// longer than all.
#[derive(Debug, Default)]
pub(crate) struct Times {
    counts: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Times {
    /// Counts a time.
    pub(crate) fn record(&self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_NS.partition_point(|bound| *bound < ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// What [`Times`] of several threads had counted at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    counts: [u64; BOUNDS_NS.len() + 1],
    sum_ns: u64,
}

impl Distribution {
    /// Takes in what was counted.
    pub(crate) fn add(&mut self, times: &Times) {
        for (sum, cell) in self.counts.iter_mut().zip(&times.counts) {
            *sum += cell.load(Ordering::Relaxed);
        }
        self.sum_ns = self.sum_ns.saturating_add(times.sum_ns.load(Ordering::Relaxed));
    }

    /// For each of the [bounds](BOUNDS_NS), how many were not longer.
    pub(crate) fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0;
        BOUNDS_NS.into_iter().zip(self.counts).map(move |(bound, count)| {
            sum += count;
            (bound, sum)
        })
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in seconds.
    pub(crate) fn sum(&self) -> f64 {
        Duration::from_nanos(self.sum_ns).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let (one, other) = (Times::default(), Times::default());
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
