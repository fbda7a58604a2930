//! A rollout on its way forward.

use std::time::Duration;

use super::action::{Decision, RolloutAction};
use super::goals::{ANALYSIS_INTERVAL, StepProgress};
use super::observation::{Observation, ObservedRevision};
use super::record::Rollout;
use super::status::{RollbackReason, Status};
use super::step::Step;
use super::strategy::Strategy;
use super::verdict::Verdict;
use crate::lifecycle::RevisionState;
use crate::names::RevisionId;

impl Rollout {
    /// Takes the rollout as far as the observation allows. Leaves it rolling back if the candidate is refused.
    pub(super) fn roll_forward(&mut self, seen: &Observation, now: u64, decision: &mut Decision) {
        if matches!(self.status, Status::RollingBack { .. }) {
            return;
        }
        if self.status == Status::Pending {
            self.set_status(Status::Preparing, "it has its turn".to_owned(), now);
        }
        if let Some((end, why)) = self.refusal(seen) {
            return self.start_rollback(end, why, now);
        }
        // Before the revisions are brought up: a failed stable must not be waited for.
        self.take_over_from_failed(seen, now);
        let wait = self.ensure_running(seen, decision);
        self.release_unneeded(seen, decision);
        if let Some(wait) = wait {
            return self.record_wait(wait.into(), seen, now, decision);
        }
        // Paused by an operator; a declared pause is a step, and is evaluated below.
        let operator_paused = self.status == Status::Paused && self.steps.get(self.step) != Some(&Step::Pause);
        if operator_paused {
            let why = self.why.clone();
            decision.recheck_in(ANALYSIS_INTERVAL);
            return self.record_wait(StepProgress::Waiting(why), seen, now, decision);
        }
        while self.step < self.steps.len() {
            match self.step_progress(seen, now, decision) {
                StepProgress::Done => self.next_step(),
                wait => return self.record_wait(wait, seen, now, decision),
            }
        }
        let why = match seen.stable.as_ref().map(|seen| &seen.state) {
            Some(RevisionState::Failed { reason }) => {
                format!("{} runs; {} failed: {reason}", self.candidate(), self.stable())
            }
            Some(_) | None => format!("{} runs", self.candidate()),
        };
        self.finish(Status::Completed, why, now);
    }

    /// Records the reason for waiting, and gives up if the host has worked too long.
    fn record_wait(&mut self, wait: StepProgress, seen: &Observation, now: u64, decision: &mut Decision) {
        let is_starting = matches!(wait, StepProgress::Starting(_));
        let (working, text) = match wait {
            StepProgress::Done => return,
            StepProgress::Refused(end, why) => return self.start_rollback(end, why, now),
            StepProgress::Working(text) | StepProgress::Starting(text) => (true, text),
            StepProgress::Waiting(text) => (false, text),
        };
        // While it waits for anything else, the candidate is probed as well.
        self.request_probe(seen, now, decision);
        self.clock.working = working && self.status != Status::Paused;
        if let Some(why) = self.timed_out() {
            // Without any traffic so far there is nothing to roll back.
            let end = if self.weight_history.is_empty() { RollbackReason::Failed } else { RollbackReason::RolledBack };
            return self.start_rollback(end, format!("{why}: {text}"), now);
        }
        if self.clock.working {
            let left = self.settings.timeout.saturating_sub(Duration::from_millis(self.clock.worked));
            // A millisecond after the limit, which has to be exceeded.
            decision.recheck_in(left + Duration::from_millis(1));
        }
        let present = match self.status_of_step() {
            // Compiled already, although the step has not ended.
            Status::Preparing if is_starting => Status::Starting,
            present => present,
        };
        let text = format!("step {} of {}: {text}", self.step + 1, self.steps.len());
        if self.status != Status::Paused {
            self.set_status(present, text.clone(), now);
        }
        decision.waits = Some(text);
    }

    /// Returns the reason to refuse the candidate at any step.
    fn refusal(&self, seen: &Observation) -> Option<(RollbackReason, String)> {
        let candidate = self.candidate();
        let ran = self.weight_in_force > 0;
        if let Some(RevisionState::Failed { reason }) = seen.candidate.as_ref().map(|seen| &seen.state) {
            let end = if ran { RollbackReason::RolledBack } else { RollbackReason::Failed };
            return Some((end, format!("{candidate} failed: {reason}")));
        }
        // The target of an undo was chosen by an operator, and must not be taken back by a rule.
        if self.weight == 0 || !self.settings.rollback.automatic || self.settings.strategy == Strategy::Undo {
            return None;
        }
        let probes = seen.candidate.as_ref().and_then(|seen| seen.probes);
        if probes.and_then(|probes| probes.healthy(&self.settings.probe)) == Some(false) {
            let failed = self.settings.probe.failures;
            return Some((RollbackReason::RolledBack, format!("probes: {failed} in a row of {candidate} failed")));
        }
        match self.verdict(seen) {
            Verdict::Refused { trigger, figures } => {
                Some((RollbackReason::RolledBack, format!("{trigger}: {figures}")))
            }
            Verdict::Healthy | Verdict::Waiting { .. } => None,
        }
    }

    /// Moves all traffic to the candidate if stable failed: there is nothing to go back to, and otherwise no revision
    /// serves.
    fn take_over_from_failed(&mut self, seen: &Observation, now: u64) {
        let Some(RevisionState::Failed { reason }) = seen.stable.as_ref().map(|seen| &seen.state) else { return };
        // A handoff or a conversion in progress has to end first, with or without success.
        let step = self.steps.get(self.step);
        if self.weight == 100 || step == Some(&Step::Convert) || self.moves_memory() && seen.is_candidate_busy() {
            return;
        }
        // Its migration is known only once it is prepared, and with it if it can read the state.
        if matches!(step, Some(Step::Prepare { .. })) {
            let ready = seen.candidate.as_ref().is_some_and(ObservedRevision::can_take);
            if !ready || !matches!(self.step_prepare(seen), StepProgress::Done) {
                return;
            }
        }
        let why = format!("{} failed: {reason}; {} takes over", self.stable(), self.candidate());
        // The remaining steps are for two revisions that share the traffic, and only one is left.
        self.steps.truncate(self.step);
        if self.needs_conversion() {
            // The state is converted first, with the mailbox paused.
            self.steps.push(Step::Convert);
        } else {
            self.steps.push(Step::Weight { percent: 100, hold: Duration::ZERO, needs_healthy: false });
            self.set_weight(100, now);
        }
        self.set_status(Status::InProgress, why, now);
    }

    /// Brings up the revisions that this step needs and that are not up, as after a restart. Returns the reason for
    /// waiting.
    fn ensure_running(&self, seen: &Observation, decision: &mut Decision) -> Option<NotReady> {
        // The handoff has succeeded, and the step is about to record that.
        if self.moves_memory() && self.is_in_force(seen, 100) {
            return None;
        }
        let (stable, candidate) = (self.stable(), self.candidate());
        let failed = seen.stable.as_ref().is_some_and(|seen| seen.failure().is_some());
        let old = if failed || self.moves_memory() && seen.is_candidate_busy() {
            None
        } else if self.weight < 100 {
            bring_up(seen.stable.as_ref(), &stable, self.instances.min, decision)
        } else {
            None
        };
        let new = bring_up(seen.candidate.as_ref(), &candidate, self.candidate_instances(), decision);
        // Until the candidate is up, all traffic is with stable, even if the candidate had some before a restart.
        let weight = if new.is_none() { self.weight } else { 0 };
        if old.is_none() && (new.is_none() || weight < 100) && !self.is_in_force(seen, weight) {
            let can = |seen: &Option<ObservedRevision>| seen.as_ref().is_some_and(ObservedRevision::can_take);
            if (weight == 100 || can(&seen.stable)) && (weight == 0 || can(&seen.candidate)) {
                decision.request(RolloutAction::Weigh { stable, candidate, percent: weight });
            }
        }
        old.or(new)
    }

    /// Ends a pause or shadowing that belongs to another step.
    fn release_unneeded(&self, seen: &Observation, decision: &mut Decision) {
        let step = self.steps.get(self.step);
        // A paused rollout must not hold up messages; a handoff in progress comes to its end first.
        let holds = matches!(step, Some(Step::Handoff | Step::Convert));
        let needed = holds && (self.status != Status::Paused || seen.is_candidate_busy());
        if seen.paused && !needed && !seen.conversion.unfinished {
            decision.request(RolloutAction::Resume { agent: self.agent.clone() });
        }
        if seen.shadowed && !matches!(step, Some(Step::Shadow { .. })) {
            decision.request(RolloutAction::Shadow { revision: self.candidate(), on: false });
        }
    }

    /// Returns the number of the candidate's instances that are up by this step.
    fn candidate_instances(&self) -> u32 {
        // Up to the present step: a rolling rollout starts its instances batch by batch.
        let begun = self.steps.iter().take(self.step + 1);
        let mut instances = begun.filter_map(|step| match step {
            Step::Prepare { instances } | Step::Start { instances } => Some(*instances),
            _ => None,
        });
        instances.next_back().unwrap_or(self.instances.min)
    }
}

/// A revision that cannot take messages yet, with the reason for people to read.
pub(super) enum NotReady {
    /// It is loaded, and its instances are starting.
    Starting(String),
    /// It is not loaded, or has failed.
    NotLoaded(String),
}

impl NotReady {
    /// Returns the reason.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Starting(text) | Self::NotLoaded(text) => text,
        }
    }
}

impl From<NotReady> for StepProgress {
    fn from(revision: NotReady) -> Self {
        match revision {
            NotReady::Starting(text) => Self::Starting(text),
            NotReady::NotLoaded(text) => Self::Working(text),
        }
    }
}

/// Brings a revision up. Returns the reason for waiting; `None` once it can take messages.
pub(super) fn bring_up(
    seen: Option<&ObservedRevision>,
    revision: &RevisionId,
    instances: u32,
    decision: &mut Decision,
) -> Option<NotReady> {
    let not_loaded = |text: &str| Some(NotReady::NotLoaded(format!("{revision} {text}")));
    let Some(seen) = seen else {
        decision.request(RolloutAction::Revive { revision: revision.clone() });
        return not_loaded("is brought back");
    };
    match &seen.state {
        RevisionState::Unloaded => {
            if !seen.busy {
                decision.request(RolloutAction::Prepare { revision: revision.clone(), instances });
            }
            not_loaded("is being validated and compiled")
        }
        RevisionState::Loaded => Some(NotReady::Starting(format!("{revision} is starting its instances"))),
        RevisionState::Ready | RevisionState::Running | RevisionState::Draining => None,
        RevisionState::Stopped => {
            decision.request(RolloutAction::Revive { revision: revision.clone() });
            not_loaded("is brought back")
        }
        RevisionState::Failed { reason } => not_loaded(&format!("failed: {reason}")),
    }
}
