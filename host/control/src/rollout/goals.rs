//! The action that each step requires, and the condition that completes it.

use std::time::Duration;

use super::action::{Decision, RolloutAction};
use super::analysis;
use super::compat::{Formats, check_formats};
use super::observation::{Observation, ObservedRevision, StepMeasurements};
use super::probe::ProbePace;
use super::record::Rollout;
use super::rehearsal::RehearsalState;
use super::split::Sticky;
use super::status::{RollbackReason, Status};
use super::step::Step;
use super::strategy::Strategy;
use super::verdict::Verdict;
use crate::format::Conversion;
use crate::lifecycle::RevisionState;
use crate::units::print_duration;

/// The interval of judging split traffic (SPEC §3).
pub(super) const ANALYSIS_INTERVAL: Duration = Duration::from_secs(5);

/// The number of probes of a revision with all the traffic that are enough: as many as would refuse it.
const WATCH_PROBES: u64 = 3;

/// The interval of observing a watched revision: short, as it has all the traffic.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest wait before another observation.
// A wait that is almost over would otherwise be observed many times.
const MIN_RECHECK: Duration = Duration::from_millis(100);

/// The state of a step.
pub(super) enum StepProgress {
    Done,
    /// The host works, and the time counts against the timeout.
    Working(String),
    /// The host starts the instances of a revision that is prepared, which counts as well.
    Starting(String),
    /// Waits for time, messages or a person, which does not count.
    Waiting(String),
    /// The candidate is refused.
    Refused(RollbackReason, String),
}

impl Rollout {
    /// Evaluates the present step.
    pub(super) fn step_progress(&mut self, seen: &Observation, now: u64, decision: &mut Decision) -> StepProgress {
        let (stable, candidate) = (self.stable(), self.candidate());
        let (old, new) = (seen.stable.as_ref(), seen.candidate.as_ref());
        match self.steps[self.step].clone() {
            Step::Prepare { .. } => self.step_prepare(seen),
            Step::Start { instances } => match new {
                Some(new) if new.instances >= instances => StepProgress::Done,
                Some(new) => {
                    // A busy revision is starting instances already.
                    if !new.busy {
                        decision.request(RolloutAction::Start { revision: candidate.clone(), instances });
                    }
                    StepProgress::Working(format!("{} of {instances} instances of {candidate} stand", new.instances))
                }
                None => StepProgress::Working(format!("{candidate} is not there")),
            },
            Step::Probe => self.step_probe(seen, now, decision),
            Step::Rehearse { messages } => self.step_rehearse(seen, messages, decision),
            Step::Shadow { hold, min_messages, match_percent } => {
                self.step_shadow(seen, hold, min_messages, match_percent, decision)
            }
            Step::Weight { percent, hold, needs_healthy } => {
                self.step_weight(seen, percent, hold, needs_healthy, now, decision)
            }
            Step::Shrink { instances } => {
                if old.is_none_or(|old| old.instance_limit == Some(instances)) {
                    return StepProgress::Done;
                }
                decision.request(RolloutAction::Cap { revision: stable.clone(), instances: Some(instances) });
                StepProgress::Working(format!("{stable} keeps {instances} instances"))
            }
            Step::Pause => {
                self.set_status(Status::Paused, format!("step {} waits for `promote`", self.step + 1), now);
                // A candidate is judged during a pause, too.
                decision.recheck_in(ANALYSIS_INTERVAL);
                StepProgress::Waiting("it is paused until somebody promotes".to_owned())
            }
            Step::Handoff | Step::Convert => self.step_handoff(seen, now, decision),
            Step::TakeBack => self.step_take_back(seen, now, decision),
            Step::KeepState if seen.conversion.is_state_kept => StepProgress::Done,
            Step::KeepState => {
                if old.is_some_and(|old| !old.busy) {
                    decision.request(RolloutAction::KeepState { revision: stable.clone() });
                }
                StepProgress::Working(format!("the state as {stable} wrote it is kept"))
            }
            Step::KeepWarm { hold } => match old {
                Some(old) if old.state == RevisionState::Draining => {
                    let back = match self.rollback_barrier() {
                        Some(_) => "it cannot read what is written now; the way back is `undo --restore-state`",
                        None => "undo takes no time until then",
                    };
                    self.hold(hold, decision, |left| format!("{stable} stays warm for {left} more; {back}"))
                }
                // After a restart it is not warm any more.
                Some(_) | None => StepProgress::Done,
            },
            Step::Drain => self.step_drain(old, now, decision),
            Step::Stop => match old {
                Some(old) if !old.state.is_terminal() => {
                    if !old.busy {
                        decision.request(RolloutAction::Stop { revision: stable.clone() });
                    }
                    StepProgress::Working(format!("{stable} ends"))
                }
                Some(_) | None => StepProgress::Done,
            },
            Step::Watch { hold } => self.step_watch(seen, hold, decision),
        }
    }

    /// Completes the preparation: the candidate's properties are known now, and the remaining steps are made for them.
    pub(super) fn step_prepare(&mut self, seen: &Observation) -> StepProgress {
        let Some(candidate) = &seen.candidate else { return StepProgress::Done };
        let stable_stateful = seen.stable.as_ref().is_some_and(|stable| stable.stateful);
        let (old, new) = (self.from.format(), self.to.format());
        let formats = Formats {
            stable: &old,
            candidate: &new,
            state_versions: &self.state_versions,
            migrates: Some(candidate.migrates),
        };
        let stateful = stable_stateful || candidate.stateful;
        // A copy that is put back replaces the present state, whose formats do not matter then.
        if self.restores.is_none()
            && let Err(why) = check_formats(&self.settings.strategy, stateful, &formats)
        {
            return StepProgress::Refused(RollbackReason::Failed, why.to_string());
        }
        // The target of an undo is older than the present format and cannot migrate from it.
        let migrates = candidate.migrates && self.settings.strategy != Strategy::Undo;
        let conversion = (self.restores.is_some() || old.version != new.version).then(|| Conversion {
            from: old.version,
            state_versions: self.state_versions.clone(),
            to: new.version,
            migrates: migrates && old.version != new.version,
            restores: self.restores.clone(),
        });
        let situation = self.instances.situation(stable_stateful, candidate.stateful, conversion.is_some());
        match self.settings.steps(situation) {
            Ok(steps) => {
                self.conversion = conversion;
                self.steps = steps;
                StepProgress::Done
            }
            Err(why) => StepProgress::Refused(RollbackReason::Failed, why.to_string()),
        }
    }

    fn step_probe(&self, seen: &Observation, now: u64, decision: &mut Decision) -> StepProgress {
        let Some(candidate) = &seen.candidate else { return StepProgress::Working("it is not there".to_owned()) };
        // Without a `health` export a revision is healthy once it has started.
        let Some(probes) = &candidate.probes else { return StepProgress::Done };
        let (probe, id) = (&self.settings.probe, self.candidate());
        match probes.healthy(probe) {
            Some(true) => StepProgress::Done,
            Some(false) => {
                let end =
                    if self.weight_history.is_empty() { RollbackReason::Failed } else { RollbackReason::RolledBack };
                StepProgress::Refused(end, format!("probes: {} in a row of {id} failed", probe.failures))
            }
            None => {
                let wait = probes.next_in(probe, candidate.since, ProbePace::Immediate, now);
                if !wait.is_zero() {
                    decision.recheck_in(wait);
                } else if !candidate.busy {
                    decision.request(RolloutAction::Probe { revision: id.clone() });
                }
                let (passed, need) = (probes.passed_in_a_row, probe.successes);
                StepProgress::Working(format!("{passed} of {need} probes in a row of {id} passed"))
            }
        }
    }

    fn step_rehearse(&self, seen: &Observation, messages: u32, decision: &mut Decision) -> StepProgress {
        let candidate = self.candidate();
        let refusal = match &seen.rehearsal {
            RehearsalState::Passed(answers) => answers.refusal(self.settings.rollback.match_percent),
            RehearsalState::Failed(why) => Some(why.clone()),
            RehearsalState::Open => {
                if seen.candidate.as_ref().is_some_and(|new| !new.busy) {
                    decision.request(RolloutAction::Rehearse { revision: candidate.clone(), messages });
                }
                return StepProgress::Working(format!("{candidate} rehearses the last {messages} messages"));
            }
        };
        let Some(why) = refusal else { return StepProgress::Done };
        // An undo may be the only way out of a failure, so its rehearsal can be skipped.
        let way_out = match self.settings.strategy {
            Strategy::Undo => format!("; `caxton rollout undo {} --no-rehearse` goes back all the same", self.agent),
            Strategy::Deploy(_) | Strategy::Reload(_) => String::new(),
        };
        StepProgress::Refused(RollbackReason::Failed, format!("the rehearsal failed: {why}{way_out}"))
    }

    fn step_shadow(
        &self,
        seen: &Observation,
        hold: Duration,
        min_messages: u64,
        match_percent: f64,
        decision: &mut Decision,
    ) -> StepProgress {
        let over = Duration::from_millis(self.clock.step) >= hold;
        // Copies also show the candidate's use of memory, before it has any traffic.
        let verdict = match self.verdict(seen) {
            refused @ Verdict::Refused { .. } if self.settings.rollback.automatic => refused,
            _ => analysis::analyze_copies(min_messages, match_percent, seen.compared, over),
        };
        match verdict {
            Verdict::Refused { trigger, figures } if self.settings.rollback.automatic => {
                StepProgress::Refused(RollbackReason::RolledBack, format!("{trigger}: {figures}"))
            }
            Verdict::Healthy => StepProgress::Done,
            verdict @ (Verdict::Waiting { .. } | Verdict::Refused { .. }) => {
                if !seen.shadowed {
                    decision.request(RolloutAction::Shadow { revision: self.candidate(), on: true });
                }
                decision.recheck_in(
                    hold.saturating_sub(Duration::from_millis(self.clock.step)).clamp(MIN_RECHECK, ANALYSIS_INTERVAL),
                );
                let aside = match seen.compared.set_aside {
                    0 => String::new(),
                    count => format!("; {count} more could not be compared"),
                };
                StepProgress::Waiting(format!("{}{aside}", wait_text(&verdict, "copies")))
            }
        }
    }

    fn step_weight(
        &mut self,
        seen: &Observation,
        percent: u8,
        hold: Duration,
        needs_healthy: bool,
        now: u64,
        decision: &mut Decision,
    ) -> StepProgress {
        // Recorded before it is in force, so that a restart aims at the same weight.
        self.set_weight(percent, now);
        if !self.is_in_force(seen, percent) {
            // The time of a weight counts from when it is in force.
            self.clock.step = 0;
            let (stable, candidate) = (self.stable(), self.candidate());
            decision.request(RolloutAction::Weigh { stable, candidate, percent });
            return StepProgress::Working(format!("{} gets {percent}% of the traffic", self.candidate()));
        }
        if let wait @ StepProgress::Waiting(_) = self.hold(hold, decision, |left| format!("{percent}% for {left} more"))
        {
            return wait;
        }
        match self.verdict(seen) {
            Verdict::Healthy => StepProgress::Done,
            _ if !needs_healthy => StepProgress::Done,
            verdict => {
                decision.recheck_in(ANALYSIS_INTERVAL);
                let held = self.held_back(seen).map(|held| format!("; {held}")).unwrap_or_default();
                StepProgress::Waiting(format!("{percent}%: {}{held}", wait_text(&verdict, "messages")))
            }
        }
    }

    /// Returns the reason why messages do not reach the candidate, if bound conversations are one, with the way out.
    fn held_back(&self, seen: &Observation) -> Option<String> {
        let StepMeasurements { held_conversations, sticky, .. } = self.windows(seen);
        let (stay, what) = match (held_conversations, sticky) {
            (0, _) => return None,
            (1, Sticky::Conversation) => ("stays", "1 conversation that began before".to_owned()),
            (1, Sticky::Idle | Sticky::None) => ("stays", "1 conversation that has something open".to_owned()),
            (count, Sticky::Conversation) => ("stay", format!("{count} conversations that began before")),
            (count, Sticky::Idle | Sticky::None) => ("stay", format!("{count} conversations that have something open")),
        };
        Some(format!("{what} {stay} with {}: {}", self.stable(), sticky.way_out(self.agent.as_str())))
    }

    fn step_handoff(&mut self, seen: &Observation, now: u64, decision: &mut Decision) -> StepProgress {
        let (stable, candidate) = (self.stable(), self.candidate());
        let memory = self.steps.get(self.step) == Some(&Step::Handoff);
        if seen.weight == 100 && self.is_in_force(seen, 100) {
            self.handed_over |= memory;
            self.converted |= self.conversion.is_some();
            self.set_weight(100, now);
            if seen.paused {
                decision.request(RolloutAction::Resume { agent: self.agent.clone() });
            }
            return StepProgress::Done;
        }
        let failed = seen.stable.as_ref().is_some_and(|seen| matches!(seen.state, RevisionState::Failed { .. }));
        if !seen.is_candidate_busy() && !self.is_in_force(seen, 0) && !failed {
            // After a restart the revision that hands over has to be running first.
            return StepProgress::Working(format!("{stable} has all traffic until it hands over"));
        }
        let in_flight = seen.stable.as_ref().map_or(0, |seen| seen.in_flight);
        let waited = Duration::from_millis(self.clock.step);
        if in_flight > 0 && waited >= self.settings.drain {
            // Interrupting it would lose the memory; the agent continues as before.
            let limit = print_duration(self.settings.drain);
            let why = format!("the handoff was given up: {stable} still had {in_flight} in flight after {limit}");
            return StepProgress::Refused(RollbackReason::Failed, why);
        }
        // Before the pause, during which all messages of the agent wait.
        if !seen.paused && seen.is_candidate_busy() {
            return StepProgress::Working("what is written is made safe before the mailbox is held".to_owned());
        }
        if !seen.paused {
            decision.request(RolloutAction::Pause { agent: self.agent.clone() });
            return StepProgress::Working("the mailbox is held".to_owned());
        }
        if in_flight > 0 {
            decision.recheck_in(self.settings.drain.saturating_sub(waited));
            return StepProgress::Working(format!("the handoff waits for {in_flight} in flight"));
        }
        if seen.candidate.as_ref().is_some_and(|seen| !seen.busy) {
            let (revision, conversion) = (candidate.clone(), self.conversion.clone());
            match conversion {
                conversion if memory => {
                    decision.request(RolloutAction::Handoff { revision, memory: self.settings.state, conversion });
                }
                Some(conversion) => decision.request(RolloutAction::Convert { revision, conversion }),
                // Its format turned out to be that of stable: there is nothing to convert.
                None => decision.request(RolloutAction::Weigh { stable, candidate: revision, percent: 100 }),
            }
        }
        let migrates = self.conversion.as_ref().is_some_and(|conversion| conversion.migrates);
        StepProgress::Working(if migrates {
            format!("{candidate} migrates the state; the mailbox waits for it")
        } else {
            format!("{candidate} takes over the state")
        })
    }

    fn step_take_back(&mut self, seen: &Observation, now: u64, decision: &mut Decision) -> StepProgress {
        let candidate = self.candidate();
        if seen.weight == 100 && self.is_in_force(seen, 100) {
            self.converted |= self.conversion.is_some();
            self.set_weight(100, now);
            return StepProgress::Done;
        }
        if seen.candidate.as_ref().is_some_and(|seen| !seen.busy) {
            let conversion = self.conversion.clone();
            decision.request(RolloutAction::TakeBack { revision: candidate.clone(), conversion });
        }
        StepProgress::Working(format!("{candidate} restores the state that it handed over"))
    }

    fn step_drain(&self, old: Option<&ObservedRevision>, now: u64, decision: &mut Decision) -> StepProgress {
        let Some(old) = old.filter(|old| old.state == RevisionState::Draining) else { return StepProgress::Done };
        let passed = Duration::from_millis(now.saturating_sub(old.since));
        if old.in_flight == 0 || passed >= self.settings.drain {
            return StepProgress::Done;
        }
        decision.recheck_in((self.settings.drain - passed).min(WATCH_INTERVAL));
        StepProgress::Waiting(format!("{} drains: {} in flight", self.stable(), old.in_flight))
    }

    /// Conditions that would refuse the candidate were checked before: see [`Rollout::roll_forward`].
    fn step_watch(&self, seen: &Observation, hold: Duration, decision: &mut Decision) -> StepProgress {
        let left = hold.saturating_sub(Duration::from_millis(self.clock.step));
        if left.is_zero() || !self.settings.rollback.automatic {
            return StepProgress::Done;
        }
        let mut missing = Vec::new();
        if let Verdict::Waiting { have, need } = self.verdict(seen) {
            missing.push(format!("{have} of {need} messages"));
        }
        if let Some(probed) = self.probes_missing(seen) {
            missing.push(format!("{probed} of {WATCH_PROBES} probes"));
        }
        if missing.is_empty() {
            return StepProgress::Done;
        }
        decision.recheck_in(left.clamp(MIN_RECHECK, WATCH_INTERVAL));
        let left = print_duration(Duration::from_secs(left.as_millis().div_ceil(1_000) as u64));
        let (candidate, missing) = (self.candidate(), missing.join(", "));
        StepProgress::Waiting(format!("{candidate} has all traffic and is watched for {left} more at most: {missing}"))
    }

    /// Returns the number of probes since all traffic moved, while it is too small.
    fn probes_missing(&self, seen: &Observation) -> Option<u64> {
        seen.candidate.as_ref()?.probes?;
        let window = self.windows(seen).candidate;
        Some(window.probes_passed + window.probes_failed).filter(|probed| *probed < WATCH_PROBES)
    }

    /// Requests further probes of the candidate while it has traffic.
    pub(super) fn request_probe(&self, seen: &Observation, now: u64, decision: &mut Decision) {
        let Some((candidate, probes)) = seen.candidate.as_ref().and_then(|seen| Some((seen, seen.probes?))) else {
            return;
        };
        // An undo is not judged, so its probes would have no effect.
        let nothing_follows = self.settings.strategy == Strategy::Undo;
        if candidate.state != RevisionState::Running || self.moves_memory() || nothing_follows {
            return;
        }
        let watched = matches!(self.steps.get(self.step), Some(Step::Watch { .. }));
        let pace =
            if watched && self.probes_missing(seen).is_some() { ProbePace::Frequent } else { ProbePace::Periodic };
        let wait = probes.next_in(&self.settings.probe, candidate.since, pace, now);
        if !wait.is_zero() {
            decision.recheck_in(wait);
        } else if !candidate.busy {
            decision.request(RolloutAction::Probe { revision: self.candidate() });
        }
    }

    /// Waits for the end of the step's time.
    fn hold(&self, hold: Duration, decision: &mut Decision, tell: impl Fn(String) -> String) -> StepProgress {
        let left = hold.saturating_sub(Duration::from_millis(self.clock.step));
        if left.is_zero() {
            return StepProgress::Done;
        }
        // At the interval of the analysis, since a candidate may turn out to be worse while it is held.
        decision.recheck_in(left.min(ANALYSIS_INTERVAL));
        // Rounded to seconds, since the text is shown again and again while the wait lasts.
        StepProgress::Waiting(tell(print_duration(Duration::from_secs(left.as_millis().div_ceil(1_000) as u64))))
    }
}

/// Returns the reason for waiting: missing messages, or the decision left to a person.
fn wait_text(verdict: &Verdict, what: &str) -> String {
    match verdict {
        Verdict::Waiting { have, need } => format!("{have} of {need} {what} to judge by"),
        Verdict::Healthy => "healthy".to_owned(),
        Verdict::Refused { trigger, figures } => {
            format!("{trigger}: {figures}; it does not go back by itself: promote or abort it")
        }
    }
}
