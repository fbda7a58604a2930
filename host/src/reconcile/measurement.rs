//! The measurement of a rollout under way: the types.

use std::sync::Arc;

use crate::agent::Revision;

/// The measurement of one rollout.
pub(super) struct Measurement {
    pub(super) rollout: u64,
    /// The step that the window began with: see [`Rollout::window`](caxton_control::rollout::Rollout::window).
    pub(super) window: usize,
    /// The stable revision and the candidate. Each stays here after it has ended, since its answers still count.
    pub(super) sides: [Option<MeasuredRevision>; 2],
}

/// A revision under measurement.
#[derive(Clone)]
pub(super) struct MeasuredRevision {
    pub(super) live: Arc<Revision>,
    /// The number of its answers before this rollout.
    answered_before: u64,
    /// The numbers of its probes that had passed and failed when the window began.
    pub(super) probes_before: (u64, u64),
}

impl MeasuredRevision {
    /// Returns the number of its answers in this rollout.
    pub(super) fn answered(&self) -> u64 {
        self.live.answered().saturating_sub(self.answered_before)
    }
}

/// Returns the revision to measure: the live one, or else the one that was measured before.
pub(super) fn current_or_last(
    known: Option<MeasuredRevision>,
    live: Option<Arc<Revision>>,
) -> Option<MeasuredRevision> {
    match (known, live) {
        (Some(known), Some(live)) if Arc::ptr_eq(&known.live, &live) => Some(known),
        (_, Some(live)) => {
            live.begin_window();
            // A revision that has just become live has no earlier probes.
            Some(MeasuredRevision { answered_before: live.answered(), live, probes_before: (0, 0) })
        }
        (known, None) => known,
    }
}
