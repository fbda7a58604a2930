//! The revisions of an agent that take messages, and the split of its traffic between two of them.

mod routing;
mod traffic;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use caxton_control::rollout::{FailureCounts, Window};
use caxton_control::{AgentSpec, Digest, RevisionId};
use crossbeam_utils::CachePadded;
use tokio_util::sync::CancellationToken;

use self::window::Measures;
use crate::context::HostContext;
use crate::message::{Diagnostics, Outcome};
use crate::wasm::{Kind, Pool};

pub(crate) use traffic::Traffic;

/// A revision that can take messages.
pub(crate) struct Revision {
    pub(crate) id: Arc<RevisionId>,
    pub(crate) spec: Arc<AgentSpec>,
    /// The digest of its component.
    pub(crate) digest: Digest,
    pub(crate) pool: Arc<Pool>,
    /// The number of messages and calls in hand. Padded, because senders only read its neighbours.
    pub(in crate::agent) in_flight: CachePadded<AtomicU32>,
    context: Arc<HostContext>,
    /// A token that is cancelled when the revision has to stop at once.
    pub(in crate::agent) interrupt: CancellationToken,
    /// Set while the reconciler waits until nothing is in flight.
    wakes_when_idle: AtomicBool,
    /// The number of messages and calls that it ended.
    answered: AtomicU64,
    /// The number of those that failed by its own fault.
    faulted: AtomicU64,
    /// The figures of the current window of a rollout; `None` outside of one.
    measures: ArcSwapOption<Measures>,
}

/// Counts a message or call as in flight until it is dropped.
pub(crate) struct InFlight {
    pub(in crate::agent) revision: Arc<Revision>,
}

impl InFlight {
    /// Counts a message or call as in flight on a revision.
    pub(in crate::agent) fn new(revision: Arc<Revision>) -> Self {
        // Sequentially consistent: callers look at the traffic next, and a handoff at this count after the traffic.
        revision.in_flight.fetch_add(1, Ordering::SeqCst);
        Self { revision }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Sequentially consistent with `wake_when_idle`: either this sees the flag, or the reconciler sees the zero.
        if self.revision.in_flight.fetch_sub(1, Ordering::SeqCst) == 1
            && self.revision.wakes_when_idle.load(Ordering::SeqCst)
        {
            // The reconciler waits for this.
            self.revision.context.wake(self.revision.id.agent.shared());
        }
    }
}

impl Revision {
    /// Creates a revision whose instances are in `pool`.
    pub(crate) fn new(
        id: Arc<RevisionId>,
        spec: Arc<AgentSpec>,
        digest: Digest,
        pool: Arc<Pool>,
        context: Arc<HostContext>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            spec,
            digest,
            pool,
            in_flight: CachePadded::new(AtomicU32::new(0)),
            context,
            interrupt: CancellationToken::new(),
            wakes_when_idle: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
            measures: ArcSwapOption::empty(),
        })
    }

    /// Writes a line about a call to the agent's log, with the backtrace of the call's fault.
    pub(in crate::agent) fn log(&self, level: &'static str, text: &str, outcome: &Outcome) {
        let mut text = text.to_owned();
        // The guest's last lines on stderr are in the log already.
        let diagnostics = if let Outcome::Fault(fault) = outcome { fault.diagnostics() } else { None };
        if let Some(backtrace) = diagnostics.map(Diagnostics::backtrace).filter(|backtrace| !backtrace.is_empty()) {
            text.push('\n');
            text.push_str(backtrace.trim_end());
        }
        self.context.note_line(&self.id, level, text);
    }

    /// Returns the kind of its component.
    pub(crate) fn kind(&self) -> Kind {
        self.pool.program.summary.kind
    }

    /// Returns the number of messages and calls in hand.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Interrupts what is in hand.
    pub(crate) fn interrupt(&self) {
        self.interrupt.cancel();
    }

    /// Returns a token that is cancelled when the revision is interrupted.
    pub(crate) fn interrupted(&self) -> CancellationToken {
        self.interrupt.clone()
    }

    /// Interrupts what is in hand, and drops the instances.
    pub(crate) fn stop(&self) {
        // Before the pool closes, so that instances in calls end at once as well.
        self.interrupt();
        self.pool.close();
    }

    /// Begins a window with figures of zero.
    pub(crate) fn begin_window(&self) {
        self.measures.store(Some(Arc::new(Measures::default())));
    }

    /// Ends the window.
    pub(crate) fn end_window(&self) {
        self.measures.store(None);
    }

    /// Returns the figures since the window began.
    pub(crate) fn window(&self) -> Window {
        let Some(measures) = self.measures.load_full() else { return Window::default() };
        Window { memory_bytes: self.pool.peak_memory(), ..measures.window() }
    }

    /// Counts a message or call that it ended: how long it took, if it did not fail, and whether it failed by the
    /// revision's own fault.
    pub(in crate::agent) fn measure(&self, took: Option<Duration>, faulty: bool) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        if faulty {
            self.faulted.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(measures) = &*self.measures.load() {
            measures.count(took, faulty);
        }
    }

    /// Counts a call that it could not take, since its instances failed.
    pub(in crate::agent) fn measure_untaken(&self) {
        if let Some(measures) = &*self.measures.load() {
            measures.count_untaken();
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

    /// Sets whether the reconciler is woken when nothing is in flight any more.
    pub(crate) fn wake_when_idle(&self, wakes: bool) {
        self.wakes_when_idle.store(wakes, Ordering::SeqCst);
    }
}
