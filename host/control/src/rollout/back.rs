//! A rollout on its way back.

use super::forward::{bring_up, is_busy};
use super::observation::{Action, Decision, Observation, Seen};
use super::{End, Rollout, Status, Step};
use crate::lifecycle::State;

impl Rollout {
    /// Puts traffic back on stable and everything as it was. What the candidate still has in flight it finishes:
    /// [`tidy`](super::tidy()) drains it when this is over.
    pub(super) fn back(&mut self, end: End, seen: &Observation, now: u64, decision: &mut Decision) {
        let (stable, candidate) = (self.stable(), self.candidate());
        if self.moves_memory() {
            if is_busy(&seen.candidate) {
                // Memory that is on its way arrives, or does not, before it can be taken back.
                decision.waits = Some(format!("{}: first {candidate} has to have taken over the state", self.why));
                return;
            }
            self.handed_over |= self.steps.get(self.step) == Some(&Step::Handoff) && self.is_in_force(seen, 100);
        }
        if seen.shadowed {
            decision.act(Action::Shadow { revision: candidate.clone(), on: false });
        }
        if seen.paused {
            decision.act(Action::Resume { agent: self.agent.clone() });
        }
        if let Some(State::Failed { reason }) = seen.stable.as_ref().map(|seen| &seen.state) {
            let reason = reason.clone();
            return self.stay(&reason, seen, now, decision);
        }
        if seen.stable.as_ref().is_some_and(|seen| seen.cap.is_some()) {
            decision.act(Action::Cap { revision: stable.clone(), instances: None });
        }
        // Until stable stands again, the candidate goes on.
        let waits = bring_up(seen.stable.as_ref(), &stable, self.instances.min, decision).or_else(|| {
            if self.is_in_force(seen, 0) {
                return None;
            }
            if self.handed_over {
                if seen.stable.as_ref().is_some_and(|seen| !seen.busy) {
                    decision.act(Action::TakeBack { revision: stable.clone() });
                }
                return Some(format!("{stable} restores the state that it handed over"));
            }
            decision.act(Action::Weigh { stable: stable.clone(), candidate, percent: 0 });
            Some(format!("all traffic goes back to {stable}"))
        });
        match waits {
            Some(waits) => decision.waits = Some(format!("{}: {waits}", self.why)),
            None if decision.actions.is_empty() => {
                let why = self.why.clone();
                self.finish(Status::from(end), why, now);
            }
            None => decision.waits = Some(format!("{}: all traffic is with {stable}", self.why)),
        }
    }

    /// There is nothing to go back to: who can take messages takes them.
    fn stay(&mut self, reason: &str, seen: &Observation, now: u64, decision: &mut Decision) {
        let (stable, candidate) = (self.stable(), self.candidate());
        let serves = seen.candidate.as_ref().is_some_and(Seen::can_take);
        if serves && !self.is_in_force(seen, 100) {
            decision.act(Action::Weigh { stable, candidate, percent: 100 });
            decision.waits = Some(format!("{}: there is nothing to go back to: {reason}", self.why));
        } else if decision.actions.is_empty() {
            let goes_on = if serves { format!("; {candidate} goes on") } else { String::new() };
            let why = format!("{}; {stable} cannot take over, it failed: {reason}{goes_on}", self.why);
            self.weight = if serves { 100 } else { self.weight };
            self.finish(Status::Failed, why, now);
        }
    }
}
