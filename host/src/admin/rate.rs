//! The bound of the rate of requests.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Requests per second that are allowed on average, and in a burst. Far above what operators and dashboards need: it
/// stops a script in a loop from starving the agents.
pub(super) const RATE: f64 = 1_000.0;
const BURST: f64 = 2_000.0;

/// A token bucket that bounds the rate of requests.
pub(super) struct RequestRate(Mutex<(f64, Option<Instant>)>);

impl Default for RequestRate {
    fn default() -> Self {
        Self(Mutex::new((BURST, None)))
    }
}

impl RequestRate {
    /// Takes one request out of the bucket, or returns the time until there is one.
    pub(super) fn take(&self, now: Instant) -> Result<(), Duration> {
        // Held for a few instructions only; requests come from all threads.
        let mut bucket = self.0.lock();
        let (left, since) = *bucket;
        let passed = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        // Refilled by the time that has passed, so that no timer is needed.
        let left = (left + passed.as_secs_f64() * RATE).min(BURST);
        if left < 1.0 {
            // A refused request takes nothing, or clients that try again would never get through.
            *bucket = (left, Some(now));
            return Err(Duration::from_secs_f64((1.0 - left) / RATE));
        }
        *bucket = (left - 1.0, Some(now));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_empty_and_refill() {
        let bucket = RequestRate::default();
        let start = Instant::now();
        for _ in 0..2_000 {
            bucket.take(start).unwrap();
        }
        let wait = bucket.take(start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(1));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..2_000).filter(|_| bucket.take(later).is_ok()).count(), 1_000);
    }
}
