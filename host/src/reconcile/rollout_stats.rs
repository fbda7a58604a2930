//! The statistics of rollouts under way.

use std::collections::BTreeSet;

use caxton_control::AgentName;
use caxton_control::rollout::Window;
use caxton_control::rollout::{Ledger, Rollout, RolloutStats, Status, StepMeasurements};

use super::managed::ManagedAgent;
use super::measurement::{MeasuredRevision, Measurement, current_or_last};
use super::reconciler::Reconciler;

impl Reconciler {
    /// Starts a new window for each agent whose rollout has reached another step, and ends work for closed rollouts.
    pub(super) fn update_measurements(&mut self, names: &BTreeSet<AgentName>) {
        for name in names {
            let Some(managed) = self.managed.get_mut(name) else { continue };
            let open = self.ledgers.get(name).and_then(Ledger::open);
            managed.end_rehearsals(open.map(|rollout| rollout.id));
            if let Some(stop) = &managed.conversion_stop
                && open.is_none_or(|rollout| matches!(rollout.status, Status::RollingBack { .. }))
            {
                // Safe at any moment: no message is handled meanwhile, and the kept copy of the state is restored.
                stop.cancel();
            }
            let Some(rollout) = open else {
                if managed.measurement.take().is_some() {
                    // Recording for windows costs time with each message.
                    managed.live_revisions().for_each(|live| live.end_window());
                }
                continue;
            };
            let [stable, candidate] = [rollout.from.number, rollout.to.number].map(|number| managed.live(number));
            let same = managed.measurement.take().filter(|measuring| measuring.rollout == rollout.id);
            if same.is_none() {
                // Of one rollout only: an earlier one may have paused for longer.
                managed.longest_pause_ms = 0;
            }
            let (before, window) = (same.as_ref().map(|same| same.window), rollout.window());
            let [first, second] = same.map_or([None, None], |same| same.sides);
            let mut sides = [current_or_last(first, stable), current_or_last(second, candidate)];
            if before != Some(window) {
                let numbers = [rollout.from.number, rollout.to.number];
                for (side, number) in sides.iter_mut().zip(numbers) {
                    let Some(side) = side else { continue };
                    // Both sides at the same moment, so that they are compared over the same time.
                    side.live.begin_window();
                    side.probes_before = managed.probe_counts(number);
                }
            }
            managed.measurement = Some(Measurement { rollout: rollout.id, window, sides });
        }
    }
}

impl ManagedAgent {
    /// Returns the windows and the statistics of a rollout.
    pub(super) fn measure(&self, rollout: &Rollout) -> (StepMeasurements, RolloutStats) {
        let Some(measuring) = self.measurement.as_ref().filter(|measuring| measuring.rollout == rollout.id) else {
            return Default::default();
        };
        let [stable, candidate] = &measuring.sides;
        let window = |side: &Option<MeasuredRevision>, number: u64| {
            let Some(side) = side else { return Window::default() };
            let ((passed, failed), (passed_before, failed_before)) = (self.probe_counts(number), side.probes_before);
            Window {
                probes_passed: passed.saturating_sub(passed_before),
                probes_failed: failed.saturating_sub(failed_before),
                ..side.live.window()
            }
        };
        let (held_conversations, sticky) = self.agent.held_conversations();
        let mut windows = StepMeasurements {
            step: measuring.window,
            stable: window(stable, rollout.from.number),
            candidate: window(candidate, rollout.to.number),
            held_conversations,
            sticky,
        };
        // The breaker is that of the agent: with a split its failures may be those of stable.
        let has_all = self.agent.current().is_some_and(|current| current.id.number == rollout.to.number);
        windows.candidate.breaker_open = has_all && self.agent.is_breaker_open();
        let (probes_passed, probes_failed) = self.probe_counts(rollout.to.number);
        let answered = |side: &Option<MeasuredRevision>| side.as_ref().map_or(0, MeasuredRevision::answered);
        let failures = self.revisions.iter().find(|r| r.number == rollout.to.number).map_or(0, |r| r.failures);
        let of_pool = |get: fn(&crate::wasm::Pool) -> u64| candidate.as_ref().map_or(0, |side| get(&side.live.pool));
        let figures = RolloutStats {
            started: of_pool(|pool| u64::from(pool.started())),
            failed: failures + of_pool(|pool| u64::from(pool.failures())),
            peak_memory_bytes: of_pool(crate::wasm::Pool::peak_memory),
            longest_pause_ms: self.longest_pause_ms,
            stable_messages: answered(stable),
            candidate_messages: answered(candidate),
            probes_passed,
            probes_failed,
            compared: self.compared(rollout.id),
            rehearsed: self.rehearsed_answers(rollout.id),
            // Lost messages are searched for after the end.
            lost: None,
        };
        (windows, figures)
    }
}
