//! The facts of an observation about a rollout, whatever its step and direction.

use super::analysis::{self, StableFailures};
use super::observation::{Observation, ObservedRevision, StepMeasurements};
use super::record::Rollout;
use super::verdict::Verdict;
use super::window::Window;
use crate::lifecycle::RevisionState;

impl Rollout {
    /// Judges the candidate by the measurements of this window.
    pub(super) fn verdict(&self, seen: &Observation) -> Verdict {
        let windows = self.windows(seen);
        let known = StableFailures { recent: self.stable_recent, before: self.stable_before };
        analysis::analyze(&self.settings.rollback, &windows.stable, known, &windows.candidate)
    }

    /// Returns the measurements since [`Rollout::window`] began.
    pub(super) fn windows(&self, seen: &Observation) -> StepMeasurements {
        // Until the host measures the present step, its figures are those of another one.
        let windows =
            if seen.measurements.step == self.window() { seen.measurements } else { StepMeasurements::default() };
        // The messages that a draining revision still answers are no basis for comparison.
        if self.weight == 100 { StepMeasurements { stable: Window::default(), ..windows } } else { windows }
    }

    /// Returns `true` if traffic is split with this weight and exactly the revisions with traffic are running.
    pub(super) fn is_in_force(&self, seen: &Observation, weight: u8) -> bool {
        let runs =
            |seen: &Option<ObservedRevision>| seen.as_ref().is_some_and(|seen| seen.state == RevisionState::Running);
        seen.weight == weight && runs(&seen.stable) == (weight < 100) && runs(&seen.candidate) == (weight > 0)
    }
}
