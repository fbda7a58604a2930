//! The action that each step requires, and the condition that completes it.

use std::time::Duration;

use super::action::{Action, Decision};
use super::analysis;
use super::compat::{Formats, check_formats};
use super::observation::{Observation, Seen, Windows};
use super::probe::Pace;
use super::record::Rollout;
use super::rehearsal::Rehearsal;
use super::split::Sticky;
use super::status::{End, Status};
use super::step::Step;
use super::strategy::Strategy;
use super::verdict::Verdict;
use crate::format::Conversion;
use crate::lifecycle::State;
use crate::units::print_duration;

/// The interval of judging split traffic (SPEC §3).
pub(super) const JUDGED_EVERY: Duration = Duration::from_secs(5);

/// The number of probes of a revision with all the traffic that are enough: as many as would refuse it.
const PROBES_WATCHED: u64 = 3;

/// The interval of observing a watched revision: short, as it has all the traffic.
const WATCHED_EVERY: Duration = Duration::from_secs(1);

/// The shortest wait before another observation.
const MOMENT: Duration = Duration::from_millis(100);

/// The state of a step.
pub(super) enum Reached {
    Yes,
    /// The host works, and the time counts against the timeout.
    Works(String),
    /// Waits for time, messages or a person, which does not count.
    Waits(String),
    /// The candidate is refused.
    Refused(End, String),
}

impl Rollout {
    /// Evaluates the present step.
    pub(super) fn reach(&mut self, seen: &Observation, now: u64, decision: &mut Decision) -> Reached {
        let (stable, candidate) = (self.stable(), self.candidate());
        let (old, new) = (seen.stable.as_ref(), seen.candidate.as_ref());
        match self.steps[self.step].clone() {
            Step::Prepare { .. } => self.prepared(seen),
            Step::Start { instances } => match new {
                Some(new) if new.instances >= instances => Reached::Yes,
                Some(new) => {
                    // A busy revision is starting instances already.
                    if !new.busy {
                        decision.act(Action::Start { revision: candidate.clone(), instances });
                    }
                    Reached::Works(format!("{} of {instances} instances of {candidate} stand", new.instances))
                }
                None => Reached::Works(format!("{candidate} is not there")),
            },
            Step::Probe => self.probed(seen, now, decision),
            Step::Rehearse { messages } => self.rehearsed(seen, messages, decision),
            Step::Shadow { hold, min_messages, match_percent } => {
                self.shadowed(seen, hold, min_messages, match_percent, decision)
            }
            Step::Weight { percent, hold, judged } => self.weighed(seen, percent, hold, judged, now, decision),
            Step::Shrink { instances } => {
                if old.is_none_or(|old| old.cap == Some(instances)) {
                    return Reached::Yes;
                }
                decision.act(Action::Cap { revision: stable.clone(), instances: Some(instances) });
                Reached::Works(format!("{stable} keeps {instances} instances"))
            }
            Step::Pause => {
                self.become_status(Status::Paused, format!("step {} waits for `promote`", self.step + 1), now);
                // A candidate is judged during a pause, too.
                decision.look_again(JUDGED_EVERY);
                Reached::Waits("it is paused until somebody promotes".to_owned())
            }
            Step::Handoff | Step::Convert => self.handed_over(seen, now, decision),
            Step::TakeBack => self.taken_back(seen, now, decision),
            Step::KeepState if seen.conversion.kept => Reached::Yes,
            Step::KeepState => {
                if old.is_some_and(|old| !old.busy) {
                    decision.act(Action::KeepState { revision: stable.clone() });
                }
                Reached::Works(format!("the state as {stable} wrote it is kept"))
            }
            Step::KeepWarm { hold } => match old {
                Some(old) if old.state == State::Draining => {
                    let back = match self.bars_the_way_back() {
                        Some(_) => "it cannot read what is written now; the way back is `undo --restore-state`",
                        None => "undo takes no time until then",
                    };
                    self.held(hold, decision, |left| format!("{stable} stays warm for {left} more; {back}"))
                }
                // After a restart it is not warm any more.
                Some(_) | None => Reached::Yes,
            },
            Step::Drain => self.drained(old, now, decision),
            Step::Stop => match old {
                Some(old) if !old.state.is_terminal() => {
                    if !old.busy {
                        decision.act(Action::Stop { revision: stable.clone() });
                    }
                    Reached::Works(format!("{stable} ends"))
                }
                Some(_) | None => Reached::Yes,
            },
            Step::Watch { hold } => self.watched(seen, hold, decision),
        }
    }

    /// Completes the preparation: the candidate's properties are known now, and the remaining steps are made for them.
    pub(super) fn prepared(&mut self, seen: &Observation) -> Reached {
        let Some(candidate) = &seen.candidate else { return Reached::Yes };
        let stable_stateful = seen.stable.as_ref().is_some_and(|stable| stable.stateful);
        let (old, new) = (self.from.format(), self.to.format());
        let formats = Formats { stable: &old, candidate: &new, holds: &self.holds, migrates: Some(candidate.migrates) };
        let stateful = stable_stateful || candidate.stateful;
        if self.restores.is_none()
            && let Err(why) = check_formats(&self.settings.strategy, stateful, &formats)
        {
            return Reached::Refused(End::Failed, why.to_string());
        }
        let migrates = candidate.migrates && self.settings.strategy != Strategy::Undo;
        let conversion = (self.restores.is_some() || old.version != new.version).then(|| Conversion {
            from: old.version,
            holds: self.holds.clone(),
            to: new.version,
            migrates: migrates && old.version != new.version,
            restores: self.restores.clone(),
        });
        let situation = self.instances.situation(stable_stateful, candidate.stateful, conversion.is_some());
        match self.settings.steps(situation) {
            Ok(steps) => {
                self.conversion = conversion;
                self.steps = steps;
                Reached::Yes
            }
            Err(why) => Reached::Refused(End::Failed, why.to_string()),
        }
    }

    fn probed(&self, seen: &Observation, now: u64, decision: &mut Decision) -> Reached {
        let Some(candidate) = &seen.candidate else { return Reached::Works("it is not there".to_owned()) };
        let Some(probes) = &candidate.probes else { return Reached::Yes };
        let (probe, id) = (&self.settings.probe, self.candidate());
        match probes.healthy(probe) {
            Some(true) => Reached::Yes,
            Some(false) => {
                let end = if self.weights.is_empty() { End::Failed } else { End::RolledBack };
                Reached::Refused(end, format!("probes: {} in a row of {id} failed", probe.failures))
            }
            None => {
                let wait = probes.next_in(probe, candidate.since, Pace::AtOnce, now);
                if !wait.is_zero() {
                    decision.look_again(wait);
                } else if !candidate.busy {
                    decision.act(Action::Probe { revision: id.clone() });
                }
                let (passed, need) = (probes.passed_in_a_row, probe.successes);
                Reached::Works(format!("{passed} of {need} probes in a row of {id} passed"))
            }
        }
    }

    fn rehearsed(&self, seen: &Observation, messages: u32, decision: &mut Decision) -> Reached {
        let candidate = self.candidate();
        let refusal = match &seen.rehearsal {
            Rehearsal::Passed(answers) => answers.refusal(self.settings.rollback.match_percent),
            Rehearsal::Failed(why) => Some(why.clone()),
            Rehearsal::Open => {
                if seen.candidate.as_ref().is_some_and(|new| !new.busy) {
                    decision.act(Action::Rehearse { revision: candidate.clone(), messages });
                }
                return Reached::Works(format!("{candidate} rehearses the last {messages} messages"));
            }
        };
        let Some(why) = refusal else { return Reached::Yes };
        // Whoever goes back may have no other choice.
        let way_out = match self.settings.strategy {
            Strategy::Undo => format!("; `caxton rollout undo {} --no-rehearse` goes back all the same", self.agent),
            Strategy::Deploy(_) | Strategy::Reload(_) => String::new(),
        };
        Reached::Refused(End::Failed, format!("the rehearsal failed: {why}{way_out}"))
    }

    fn shadowed(
        &self,
        seen: &Observation,
        hold: Duration,
        min_messages: u64,
        match_percent: f64,
        decision: &mut Decision,
    ) -> Reached {
        let over = Duration::from_millis(self.clock.step) >= hold;
        // Copies also show the candidate's use of memory, before it has any traffic.
        let verdict = match self.verdict(seen) {
            refused @ Verdict::Refused { .. } if self.settings.rollback.automatic => refused,
            _ => analysis::judge_copies(min_messages, match_percent, seen.compared, over),
        };
        match verdict {
            Verdict::Refused { trigger, figures } if self.settings.rollback.automatic => {
                Reached::Refused(End::RolledBack, format!("{trigger}: {figures}"))
            }
            Verdict::Healthy => Reached::Yes,
            verdict @ (Verdict::Waiting { .. } | Verdict::Refused { .. }) => {
                if !seen.shadowed {
                    decision.act(Action::Shadow { revision: self.candidate(), on: true });
                }
                decision.look_again(
                    hold.saturating_sub(Duration::from_millis(self.clock.step)).clamp(MOMENT, JUDGED_EVERY),
                );
                let aside = match seen.compared.set_aside {
                    0 => String::new(),
                    count => format!("; {count} more could not be compared"),
                };
                Reached::Waits(format!("{}{aside}", told(&verdict, "copies")))
            }
        }
    }

    fn weighed(
        &mut self,
        seen: &Observation,
        percent: u8,
        hold: Duration,
        judged: bool,
        now: u64,
        decision: &mut Decision,
    ) -> Reached {
        // Recorded before it is in force, so that a restart aims at the same weight.
        self.set_weight(percent, now);
        if !self.is_in_force(seen, percent) {
            // The time of a weight counts from when it is in force.
            self.clock.step = 0;
            let (stable, candidate) = (self.stable(), self.candidate());
            decision.act(Action::Weigh { stable, candidate, percent });
            return Reached::Works(format!("{} gets {percent}% of the traffic", self.candidate()));
        }
        if let wait @ Reached::Waits(_) = self.held(hold, decision, |left| format!("{percent}% for {left} more")) {
            return wait;
        }
        match self.verdict(seen) {
            Verdict::Healthy => Reached::Yes,
            _ if !judged => Reached::Yes,
            verdict => {
                decision.look_again(JUDGED_EVERY);
                let held = self.held_up(seen).map(|held| format!("; {held}")).unwrap_or_default();
                Reached::Waits(format!("{percent}%: {}{held}", told(&verdict, "messages")))
            }
        }
    }

    /// Returns the reason why messages do not reach the candidate, if bound conversations are one, with the way out.
    fn held_up(&self, seen: &Observation) -> Option<String> {
        let Windows { held, sticky, .. } = self.windows(seen);
        let (stay, what) = match (held, sticky) {
            (0, _) => return None,
            (1, Sticky::Conversation) => ("stays", "1 conversation that began before".to_owned()),
            (1, Sticky::Idle | Sticky::None) => ("stays", "1 conversation that has something open".to_owned()),
            (count, Sticky::Conversation) => ("stay", format!("{count} conversations that began before")),
            (count, Sticky::Idle | Sticky::None) => ("stay", format!("{count} conversations that have something open")),
        };
        Some(format!("{what} {stay} with {}: {}", self.stable(), sticky.way_out(self.agent.as_str())))
    }

    fn handed_over(&mut self, seen: &Observation, now: u64, decision: &mut Decision) -> Reached {
        let (stable, candidate) = (self.stable(), self.candidate());
        let memory = self.steps.get(self.step) == Some(&Step::Handoff);
        if seen.weight == 100 && self.is_in_force(seen, 100) {
            self.handed_over |= memory;
            self.converted |= self.conversion.is_some();
            self.set_weight(100, now);
            if seen.paused {
                decision.act(Action::Resume { agent: self.agent.clone() });
            }
            return Reached::Yes;
        }
        let failed = seen.stable.as_ref().is_some_and(|seen| matches!(seen.state, State::Failed { .. }));
        if !seen.is_candidate_busy() && !self.is_in_force(seen, 0) && !failed {
            // After a restart the revision that hands over has to be running first.
            return Reached::Works(format!("{stable} has all traffic until it hands over"));
        }
        let in_flight = seen.stable.as_ref().map_or(0, |seen| seen.in_flight);
        let waited = Duration::from_millis(self.clock.step);
        if in_flight > 0 && waited >= self.settings.drain {
            // Interrupting it would lose the memory; the agent continues as before.
            let limit = print_duration(self.settings.drain);
            let why = format!("the handoff was given up: {stable} still had {in_flight} in flight after {limit}");
            return Reached::Refused(End::Failed, why);
        }
        if !seen.paused && seen.is_candidate_busy() {
            return Reached::Works("what is written is made safe before the mailbox is held".to_owned());
        }
        if !seen.paused {
            decision.act(Action::Pause { agent: self.agent.clone() });
            return Reached::Works("the mailbox is held".to_owned());
        }
        if in_flight > 0 {
            decision.look_again(self.settings.drain.saturating_sub(waited));
            return Reached::Works(format!("the handoff waits for {in_flight} in flight"));
        }
        if seen.candidate.as_ref().is_some_and(|seen| !seen.busy) {
            let (revision, conversion) = (candidate.clone(), self.conversion.clone());
            match conversion {
                conversion if memory => {
                    decision.act(Action::Handoff { revision, memory: self.settings.state, conversion });
                }
                Some(conversion) => decision.act(Action::Convert { revision, conversion }),
                // Its format turned out to be that of stable: there is nothing to convert.
                None => decision.act(Action::Weigh { stable, candidate: revision, percent: 100 }),
            }
        }
        let migrates = self.conversion.as_ref().is_some_and(|conversion| conversion.migrates);
        Reached::Works(if migrates {
            format!("{candidate} migrates the state; the mailbox waits for it")
        } else {
            format!("{candidate} takes over the state")
        })
    }

    fn taken_back(&mut self, seen: &Observation, now: u64, decision: &mut Decision) -> Reached {
        let candidate = self.candidate();
        if seen.weight == 100 && self.is_in_force(seen, 100) {
            self.converted |= self.conversion.is_some();
            self.set_weight(100, now);
            return Reached::Yes;
        }
        if seen.candidate.as_ref().is_some_and(|seen| !seen.busy) {
            let conversion = self.conversion.clone();
            decision.act(Action::TakeBack { revision: candidate.clone(), conversion });
        }
        Reached::Works(format!("{candidate} restores the state that it handed over"))
    }

    fn drained(&self, old: Option<&Seen>, now: u64, decision: &mut Decision) -> Reached {
        let Some(old) = old.filter(|old| old.state == State::Draining) else { return Reached::Yes };
        let passed = Duration::from_millis(now.saturating_sub(old.since));
        if old.in_flight == 0 || passed >= self.settings.drain {
            return Reached::Yes;
        }
        decision.look_again((self.settings.drain - passed).min(WATCHED_EVERY));
        Reached::Waits(format!("{} drains: {} in flight", self.stable(), old.in_flight))
    }

    /// Conditions that would refuse the candidate were checked before: see [`Rollout::roll_forward`].
    fn watched(&self, seen: &Observation, hold: Duration, decision: &mut Decision) -> Reached {
        let left = hold.saturating_sub(Duration::from_millis(self.clock.step));
        if left.is_zero() || !self.settings.rollback.automatic {
            return Reached::Yes;
        }
        let mut missing = Vec::new();
        if let Verdict::Waiting { have, need } = self.verdict(seen) {
            missing.push(format!("{have} of {need} messages"));
        }
        if let Some(probed) = self.probes_missing(seen) {
            missing.push(format!("{probed} of {PROBES_WATCHED} probes"));
        }
        if missing.is_empty() {
            return Reached::Yes;
        }
        decision.look_again(left.clamp(MOMENT, WATCHED_EVERY));
        let left = print_duration(Duration::from_secs(left.as_millis().div_ceil(1_000) as u64));
        let (candidate, missing) = (self.candidate(), missing.join(", "));
        Reached::Waits(format!("{candidate} has all traffic and is watched for {left} more at most: {missing}"))
    }

    /// Returns the number of probes since all traffic moved, while it is too small.
    fn probes_missing(&self, seen: &Observation) -> Option<u64> {
        seen.candidate.as_ref()?.probes?;
        let window = self.windows(seen).candidate;
        Some(window.probes_passed + window.probes_failed).filter(|probed| *probed < PROBES_WATCHED)
    }

    /// Requests further probes of the candidate while it has traffic.
    pub(super) fn ask(&self, seen: &Observation, now: u64, decision: &mut Decision) {
        let Some((candidate, probes)) = seen.candidate.as_ref().and_then(|seen| Some((seen, seen.probes?))) else {
            return;
        };
        // An undo is not judged, so its probes would have no effect.
        let nothing_follows = self.settings.strategy == Strategy::Undo;
        if candidate.state != State::Running || self.moves_memory() || nothing_follows {
            return;
        }
        let watched = matches!(self.steps.get(self.step), Some(Step::Watch { .. }));
        let pace = if watched && self.probes_missing(seen).is_some() { Pace::Soon } else { Pace::NowAndThen };
        let wait = probes.next_in(&self.settings.probe, candidate.since, pace, now);
        if !wait.is_zero() {
            decision.look_again(wait);
        } else if !candidate.busy {
            decision.act(Action::Probe { revision: self.candidate() });
        }
    }

    /// Waits for the end of the step's time.
    fn held(&self, hold: Duration, decision: &mut Decision, tell: impl Fn(String) -> String) -> Reached {
        let left = hold.saturating_sub(Duration::from_millis(self.clock.step));
        if left.is_zero() {
            return Reached::Yes;
        }
        decision.look_again(left.min(JUDGED_EVERY));
        // Rounded to seconds for readers, who see the text again and again.
        Reached::Waits(tell(print_duration(Duration::from_secs(left.as_millis().div_ceil(1_000) as u64))))
    }
}

/// Returns the reason for waiting: missing messages, or the decision left to a person.
fn told(verdict: &Verdict, what: &str) -> String {
    match verdict {
        Verdict::Waiting { have, need } => format!("{have} of {need} {what} to judge by"),
        Verdict::Healthy => "healthy".to_owned(),
        Verdict::Refused { trigger, figures } => {
            format!("{trigger}: {figures}; it does not go back by itself: promote or abort it")
        }
    }
}
