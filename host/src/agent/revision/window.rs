//! The figures of a revision during a step of a rollout.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caxton_control::rollout::FailureCounts;
use caxton_control::rollout::{P95, Window};
use parking_lot::Mutex;

use crate::agent::Revision;
use crate::telemetry::histogram::Histogram;

/// The figures since the step began.
#[derive(Debug, Default)]
pub(crate) struct Measures {
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

impl Revision {
    /// Begins a window with figures of zero.
    pub(crate) fn begin_window(&self) {
        self.measures.store(Some(Arc::new(Measures::default())));
    }

    /// Ends the window.
    pub(crate) fn end_window(&self) {
        self.measures.store(None);
    }

    /// Counts a message or call that it ended: how long it took, if it did not fail, and whether it failed by the
    /// revision's own fault.
    pub(in crate::agent) fn measure(&self, took: Option<Duration>, faulty: bool) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if faulty {
            self.faulted.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(measures) = &*self.measures.load() {
            // Relaxed: a window is judged over seconds, and one message more or less decides nothing.
            measures.messages.fetch_add(1, Ordering::Relaxed);
            measures.faults.fetch_add(u64::from(faulty), Ordering::Relaxed);
            if let Some(took) = took {
                measures.took.get_or_init(Box::default).record(took);
                // After the time itself: `timed` never promises a time that is not recorded.
                measures.timed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts a call that it could not take, since its instances failed.
    pub(in crate::agent) fn measure_untaken(&self) {
        if let Some(measures) = &*self.measures.load() {
            measures.untaken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of messages and calls that it ended.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Returns the number of messages and calls that it ended, with its failures.
    pub(crate) fn tally(&self) -> FailureCounts {
        FailureCounts::new(self.answered(), self.faulted.load(Ordering::Relaxed))
    }

    /// Returns the figures since the window began.
    pub(crate) fn window(&self) -> Window {
        let Some(measures) = self.measures.load_full() else { return Window::default() };
        let messages = measures.messages.load(Ordering::Relaxed);
        let untaken = measures.untaken.load(Ordering::Relaxed);
        let timed = measures.timed.load(Ordering::Relaxed);
        Window {
            messages: messages + untaken,
            faults: measures.faults.load(Ordering::Relaxed) + untaken,
            untaken,
            timed,
            memory_bytes: self.pool.peak_memory(),
            p95: measures.p95(timed),
            ..Window::default()
        }
    }
}
