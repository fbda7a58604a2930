//! A rollout on its way back.

use super::action::{Decision, RolloutAction};
use super::goals::StepProgress;
use super::observation::{Observation, ObservedRevision};
use super::record::Rollout;
use super::rollforward::{NotReady, bring_up};
use super::status::{RollbackReason, Status};
use super::step::Step;

impl Rollout {
    /// Moves the traffic back to stable and restores everything else. The candidate finishes its messages in flight:
    /// [`collect_garbage`](super::collect_garbage) drains it afterwards.
    pub(super) fn roll_back(&mut self, end: RollbackReason, seen: &Observation, now: u64, decision: &mut Decision) {
        if !self.is_handover_settled(seen, now, decision) {
            return;
        }
        let (stable, candidate) = (self.stable(), self.candidate());
        let failed = seen.stable.as_ref().and_then(ObservedRevision::failure).map(str::to_owned);
        let mut serves = seen.candidate.as_ref().is_some_and(ObservedRevision::can_take);
        if failed.is_some() && serves && matches!(self.steps.get(self.step), Some(Step::Prepare { .. })) {
            // The candidate takes over only if it can read the state.
            serves = matches!(self.step_prepare(seen), StepProgress::Done);
        }
        if let Some(reason) = &failed
            && self.needs_conversion()
            && serves
        {
            return self.convert_for_candidate(reason, seen, decision);
        }
        if seen.conversion.unfinished {
            if !seen.conversion.restoring {
                decision.request(RolloutAction::RestoreState { revision: stable.clone() });
            }
            decision.waits = Some(format!("{}: the state is put back as it was", self.why));
            return;
        }
        if seen.shadowed {
            decision.request(RolloutAction::Shadow { revision: candidate.clone(), on: false });
        }
        if seen.paused {
            decision.request(RolloutAction::Resume { agent: self.agent.clone() });
        }
        if let Some(reason) = failed {
            return self.keep_candidate(&reason, serves, seen, now, decision);
        }
        // The cap was for a part of the traffic, and stable gets all of it again.
        if seen.stable.as_ref().is_some_and(|seen| seen.instance_limit.is_some()) {
            decision.request(RolloutAction::Cap { revision: stable.clone(), instances: None });
        }
        // The candidate keeps the traffic until stable is up again.
        let waits = bring_up(seen.stable.as_ref(), &stable, self.instances.min, decision).map(NotReady::into_text);
        let waits = waits.or_else(|| {
            if self.is_in_force(seen, 0) {
                return None;
            }
            // Stable gave its memory away, so it needs that back before any traffic.
            if self.handed_over {
                if seen.stable.as_ref().is_some_and(|seen| !seen.busy) {
                    decision.request(RolloutAction::TakeBack { revision: stable.clone(), conversion: None });
                }
                return Some(format!("{stable} restores the state that it handed over"));
            }
            decision.request(RolloutAction::Weigh { stable: stable.clone(), candidate, percent: 0 });
            Some(format!("all traffic goes back to {stable}"))
        });
        match waits {
            Some(waits) => decision.waits = Some(format!("{}: {waits}", self.why)),
            // Only once nothing is left to restore: an ended rollout requests no actions.
            None if decision.actions.is_empty() => {
                let why = self.why.clone();
                self.finish(Status::from(end), why, now);
            }
            None => decision.waits = Some(format!("{}: all traffic is with {stable}", self.why)),
        }
    }

    /// Waits for a handoff or a conversion in progress, and ends the rollout if the candidate keeps the data for good.
    /// Returns `false` if there is nothing more to do now.
    fn is_handover_settled(&mut self, seen: &Observation, now: u64, decision: &mut Decision) -> bool {
        if self.moves_memory() || self.needs_conversion() {
            if seen.is_candidate_busy() {
                // A handoff in progress has to end, with or without success, before it can be undone.
                let candidate = self.candidate();
                decision.waits = Some(format!("{}: first {candidate} has to have taken over the state", self.why));
                return false;
            }
            let arrived = self.is_in_force(seen, 100);
            self.handed_over |= self.steps.get(self.step) == Some(&Step::Handoff) && arrived;
            self.converted |= self.needs_conversion() && arrived;
        }
        let Some(bar) = self.rollback_barrier() else { return true };
        // It was converted while the way back was decided on.
        self.set_weight(100, now);
        if seen.paused {
            decision.request(RolloutAction::Resume { agent: self.agent.clone() });
        }
        self.finish(Status::Failed, format!("{}; {bar}", self.why), now);
        false
    }

    /// Converts the state for the candidate, which takes over since stable failed.
    fn convert_for_candidate(&self, reason: &str, seen: &Observation, decision: &mut Decision) {
        let (agent, revision) = (self.agent.clone(), self.candidate());
        match (seen.paused, self.conversion.clone()) {
            (true, Some(conversion)) => decision.request(RolloutAction::Convert { revision, conversion }),
            (true, None) => {}
            (false, _) => decision.request(RolloutAction::Pause { agent }),
        }
        decision.waits =
            Some(format!("{}: there is nothing to go back to: {reason}; the state is converted", self.why));
    }

    /// Ends a rollout that has nothing to go back to: a candidate that can take messages keeps the traffic.
    fn keep_candidate(&mut self, reason: &str, serves: bool, seen: &Observation, now: u64, decision: &mut Decision) {
        let (stable, candidate) = (self.stable(), self.candidate());
        if serves && !self.is_in_force(seen, 100) {
            decision.request(RolloutAction::Weigh { stable, candidate, percent: 100 });
            decision.waits = Some(format!("{}: there is nothing to go back to: {reason}", self.why));
        } else if decision.actions.is_empty() {
            let goes_on = if serves { format!("; {candidate} goes on") } else { String::new() };
            let why = format!("{}; {stable} cannot take over, it failed: {reason}{goes_on}", self.why);
            // By the weight, `settle` decides which of the two counts as running.
            self.weight = if serves { 100 } else { self.weight };
            self.finish(Status::Failed, why, now);
        }
    }
}
