//! The figures of a revision during a step of a rollout.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caxton_control::rollout::{P95, Window};
use parking_lot::Mutex;

use crate::telemetry::histogram::Histogram;

/// The figures since the step began.
#[derive(Debug, Default)]
pub(super) struct Measures {
    messages: AtomicU64,
    faults: AtomicU64,
    /// Calls that it could not take, which have no times.
    untaken: AtomicU64,
    /// The number of successes, whose times are in `took`.
    timed: AtomicU64,
    /// The times of successes. Allocated at the first, because of thousands of revisions that are measured at once most
    /// handle nothing.
    took: OnceLock<Box<Histogram>>,
    /// The number of successes at the last look, with the quantiles of their times.
    looked_at: Mutex<(u64, Option<P95>)>,
}

impl Measures {
    /// Counts a message or call that ended: how long it took, if it did not fail, and whether it failed by the
    /// revision's own fault.
    pub(super) fn count(&self, took: Option<Duration>, faulty: bool) {
        // Relaxed: a window is judged over seconds, and one message more or less decides nothing.
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.faults.fetch_add(u64::from(faulty), Ordering::Relaxed);
        if let Some(took) = took {
            self.took.get_or_init(Box::default).record(took);
            // After the time itself: `timed` never promises a time that is not recorded.
            self.timed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a call that could not be taken.
    pub(super) fn count_untaken(&self) {
        self.untaken.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the figures as a rollout judges them, but for the memory.
    pub(super) fn window(&self) -> Window {
        let messages = self.messages.load(Ordering::Relaxed);
        let untaken = self.untaken.load(Ordering::Relaxed);
        let timed = self.timed.load(Ordering::Relaxed);
        Window {
            messages: messages + untaken,
            faults: self.faults.load(Ordering::Relaxed) + untaken,
            untaken,
            timed,
            p95: self.p95(timed),
            ..Window::default()
        }
    }

    fn p95(&self, timed: u64) -> Option<P95> {
        let mut looked_at = self.looked_at.lock();
        // Quantiles of a histogram cost far more than the comparison, and the reconciler looks often.
        if looked_at.0 != timed {
            let took = self.took.get()?.counted();
            let [low, at, high] = P95::ranks(timed).map(|rank| took.quantile(rank));
            *looked_at = (timed, low.zip(at).zip(high).map(|((low, at), high)| P95 { low, at, high }));
        }
        looked_at.1
    }
}
