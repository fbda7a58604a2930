//! A histogram of durations that costs a few nanoseconds to record.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::api_types::Quantiles;

/// The parts of each octave as a power of two: values are exact to 3 %.
const PARTS_LOG2: u32 = 5;
const PARTS: u64 = 1 << PARTS_LOG2;
/// The octaves up to 2⁴⁶ ns, which is 19 hours. Longer times count as that.
const BUCKETS: usize = 42 << PARTS_LOG2;
/// The most shards. Beyond that, contention is too small to pay for their memory.
const MAX_SHARDS: usize = 8;

/// Returns the number of shards: one for each core, up to [`MAX_SHARDS`], so that busy threads rarely share a cache
/// line.
fn shards() -> usize {
    static SHARDS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(MAX_SHARDS, |cores| cores.get().min(MAX_SHARDS)));
    *SHARDS
}

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Assigns a shard to this thread, in turn.
pub(crate) fn take_shard() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // In turn and not by a hash of the thread id, so that few threads share a shard.
    HERE.set(NEXT.fetch_add(1, Ordering::Relaxed) % shards());
}

/// A value in several shards, of which each thread uses one.
#[derive(Debug)]
pub(crate) struct Sharded<T>(Box<[Padded<T>]>);

/// A value aligned to two cache lines, because processors fetch them in pairs.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T> Sharded<T> {
    /// Creates a value for each shard.
    pub(crate) fn new(make: impl Fn() -> T) -> Self {
        Self((0..shards()).map(|_| Padded(make())).collect())
    }

    /// Returns the value of this thread's shard, which other threads may share.
    pub(crate) fn here(&self) -> &T {
        // A thread that took no shard at its start, as those of libraries, takes one here.
        if HERE.get() == usize::MAX {
            take_shard();
        }
        &self.0[HERE.get()].0
    }

    /// Returns the values of all shards.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

/// A histogram of durations with logarithmic buckets. Any thread may record without a lock.
#[derive(Debug)]
pub(crate) struct Histogram(Sharded<Vec<AtomicU64>>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Sharded::new(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect()))
    }
}

impl Histogram {
    /// Records a duration.
    pub(crate) fn record(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // Relaxed: a count publishes no other memory.
        self.0.here()[bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a copy of the counts. Records made meanwhile may be missing.
    pub(crate) fn counted(&self) -> HistogramCounts {
        let mut counts = vec![0; BUCKETS];
        for shard in self.0.all() {
            for (count, cell) in counts.iter_mut().zip(shard) {
                // Relaxed: a copy need not be of one moment.
                *count += cell.load(Ordering::Relaxed);
            }
        }
        HistogramCounts(counts)
    }
}

/// The counts of a histogram at a moment.
#[derive(Debug, Clone)]
pub(crate) struct HistogramCounts(Vec<u64>);

impl HistogramCounts {
    /// Returns the counts since an earlier copy.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(self.0.iter().zip(&earlier.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    /// Returns common quantiles; `None` without records.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        let count: u64 = self.0.iter().sum();
        let us = |nanoseconds: u64| nanoseconds as f64 / 1_000.0;
        (count > 0).then(|| Quantiles {
            count,
            p50_us: us(self.at(count, 0.5)),
            p90_us: us(self.at(count, 0.9)),
            p99_us: us(self.at(count, 0.99)),
            p999_us: us(self.at(count, 0.999)),
            max_us: us(self.at(count, 1.0)),
        })
    }

    /// Returns the duration that this part of all records does not exceed; `None` without records.
    pub(crate) fn quantile(&self, part: f64) -> Option<Duration> {
        let count: u64 = self.0.iter().sum();
        (count > 0).then(|| Duration::from_nanos(self.at(count, part)))
    }

    /// Returns the duration in nanoseconds that this part of `count` records does not exceed.
    fn at(&self, count: u64, part: f64) -> u64 {
        // Rounded up: the quantile 1 is the largest value, and a single value is every quantile.
        let rank = ((count as f64 * part).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let found = self.0.iter().position(|bucket| {
            seen += bucket;
            seen >= rank
        });
        top(found.unwrap_or(BUCKETS - 1))
    }
}

/// Returns the bucket of a duration.
fn bucket(nanoseconds: u64) -> usize {
    let octave = nanoseconds.checked_ilog2().unwrap_or(0);
    // Small values have a bucket each.
    let Some(shift) = octave.checked_sub(PARTS_LOG2) else { return nanoseconds as usize };
    let part = (nanoseconds >> shift) & (PARTS - 1);
    ((((shift + 1) as usize) << PARTS_LOG2) + part as usize).min(BUCKETS - 1)
}

/// Returns the longest duration of a bucket, in nanoseconds.
fn top(bucket: usize) -> u64 {
    let (octave, part) = (bucket as u64 >> PARTS_LOG2, bucket as u64 & (PARTS - 1));
    match octave {
        0 => part,
        _ => ((PARTS + part + 1) << (octave - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact_to_three_percent() {
        let mut last = 0;
        for exponent in 0..46 {
            for time in [1u64 << exponent, (1 << exponent) + (1 << exponent) / 3, (2 << exponent) - 1] {
                let bucket = bucket(time);
                let reported = top(bucket);
                assert!(reported >= time && reported - time <= time / 31, "{time} is reported as {reported}");
                assert!(bucket >= last, "{time}");
                last = bucket;
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_cover_the_records_of_all_threads() {
        let histogram = Histogram::default();
        assert_eq!(histogram.counted().quantiles(), None, "nothing is made up");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (1..=1_000).for_each(|us| histogram.record(Duration::from_micros(us))));
            }
        });
        let first = histogram.counted();
        let found = first.quantiles().unwrap();
        assert_eq!(found.count, 4_000);
        for (reported, is) in [
            (found.p50_us, 500.0),
            (found.p90_us, 900.0),
            (found.p99_us, 990.0),
            (found.p999_us, 999.0),
            (found.max_us, 1_000.0),
        ] {
            assert!(reported >= is && reported <= is * 1.04, "{reported} for {is}");
        }
        histogram.record(Duration::from_secs(2));
        let later = histogram.counted().since(&first).quantiles().unwrap();
        assert_eq!(later.count, 1);
        assert!(later.p50_us >= 2e6);
    }
}
