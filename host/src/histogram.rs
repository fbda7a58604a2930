//! How long things take: a distribution that costs a few nanoseconds to record.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::status::Quantiles;

/// Parts of every octave, as a power of two: a time is told to within 3 %.
const PARTS_LOG2: u32 = 5;
const PARTS: u64 = 1 << PARTS_LOG2;
/// The octaves up to 2⁴⁶ ns, which is 19 hours; what is longer counts as that.
const BUCKETS: usize = 42 << PARTS_LOG2;
/// Threads write to so many places at most, so that they do not wait for one another.
const MAX_SHARDS: usize = 8;

/// As many places as there are cores, so that those who work most have one of their own.
fn shards() -> usize {
    static SHARDS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(MAX_SHARDS, |cores| cores.get().min(MAX_SHARDS)));
    *SHARDS
}

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Gives this thread one of the places: those that are asked one after the other have different ones.
pub(crate) fn take_shard() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    HERE.set(NEXT.fetch_add(1, Ordering::Relaxed) % shards());
}

/// One value in each of the places that threads write to.
#[derive(Debug)]
pub(crate) struct Sharded<T>(Box<[Padded<T>]>);

/// Two cache lines, which processors fetch together.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T> Sharded<T> {
    /// Made of so many equal values.
    pub(crate) fn new(make: impl Fn() -> T) -> Self {
        Self((0..shards()).map(|_| Padded(make())).collect())
    }

    /// That of this thread, which a few others share.
    pub(crate) fn here(&self) -> &T {
        if HERE.get() == usize::MAX {
            take_shard();
        }
        &self.0[HERE.get()].0
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &padded.0)
    }
}

/// Times, counted in buckets that grow with the time. Any thread may record, without a lock.
#[derive(Debug)]
pub(crate) struct Histogram(Sharded<Vec<AtomicU64>>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Sharded::new(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect()))
    }
}

impl Histogram {
    /// Counts a time.
    pub(crate) fn record(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.here()[bucket(nanoseconds)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted up to now.
    pub(crate) fn counted(&self) -> Counted {
        let mut counts = vec![0; BUCKETS];
        for shard in self.0.all() {
            for (count, cell) in counts.iter_mut().zip(shard) {
                *count += cell.load(Ordering::Relaxed);
            }
        }
        Counted(counts)
    }
}

/// What a histogram had counted at a moment.
#[derive(Debug, Clone)]
pub(crate) struct Counted(Vec<u64>);

impl Counted {
    /// What came after an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(self.0.iter().zip(&earlier.0).map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    /// How its times lie; none when nothing was counted.
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

    /// The time that a part of all did not exceed; none when nothing was counted.
    pub(crate) fn quantile(&self, part: f64) -> Option<Duration> {
        let count: u64 = self.0.iter().sum();
        (count > 0).then(|| Duration::from_nanos(self.at(count, part)))
    }

    /// The time, in nanoseconds, that a part of `count` times did not exceed.
    fn at(&self, count: u64, part: f64) -> u64 {
        let rank = ((count as f64 * part).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        let found = self.0.iter().position(|bucket| {
            seen += bucket;
            seen >= rank
        });
        top(found.unwrap_or(BUCKETS - 1))
    }
}

/// Where a time is counted.
fn bucket(nanoseconds: u64) -> usize {
    let octave = nanoseconds.checked_ilog2().unwrap_or(0);
    let Some(shift) = octave.checked_sub(PARTS_LOG2) else { return nanoseconds as usize };
    let part = (nanoseconds >> shift) & (PARTS - 1);
    ((((shift + 1) as usize) << PARTS_LOG2) + part as usize).min(BUCKETS - 1)
}

/// The longest time of a bucket.
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
    fn every_time_is_told_to_within_three_percent() {
        let mut last = 0;
        for exponent in 0..46 {
            for time in [1u64 << exponent, (1 << exponent) + (1 << exponent) / 3, (2 << exponent) - 1] {
                let bucket = bucket(time);
                let told = top(bucket);
                assert!(told >= time && told - time <= time / 31, "{time} is told as {told}");
                assert!(bucket >= last, "{time}");
                last = bucket;
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_of_what_was_recorded_by_all_threads() {
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
        for (told, is) in [
            (found.p50_us, 500.0),
            (found.p90_us, 900.0),
            (found.p99_us, 990.0),
            (found.p999_us, 999.0),
            (found.max_us, 1_000.0),
        ] {
            assert!(told >= is && told <= is * 1.04, "{told} for {is}");
        }
        histogram.record(Duration::from_secs(2));
        let later = histogram.counted().since(&first).quantiles().unwrap();
        assert_eq!(later.count, 1);
        assert!(later.p50_us >= 2e6);
    }
}
