//! How a new revision takes over from the one that runs, and goes back when it is worse (SPEC §2–§4).
//!
//! ```text
//! settings --strategy--> steps                     commands: pause, resume, promote, abort, undo
//!                          |                                      |
//! what stands --observe--> Rollout: the step it is at, its status, why, figures --> actions, what it waits for
//!                          |
//!              Ledger: the agent's rollouts, the revisions kept, what was refused
//! ```
//!
//! `strategy` has the eight strategies, `settings` what else is declared, `analysis` the judgement, `errors` its
//! comparison of failures, `compare` the comparison of two answers, `answers` what those of a rehearsal come to, `split` who is answered by which revision, `history` the ledger and `follow` what it makes
//! of a declaration, `turn` how many go at
//! a time, `tidy` what ends when no rollout holds it. `forward` takes a rollout one step on, `back` takes it back.
//!
//! There is no workflow beside the index of the step. Whoever carries out actions observes again afterwards, and
//! each time everything is judged from what stands: an action that failed is simply asked for again, and after a
//! restart the same functions bring up what is missing, with traffic on the running revision until then.

pub mod analysis;
mod answers;
mod back;
mod command;
pub mod compare;
mod conversion;
pub mod declaration;
pub mod errors;
mod follow;
mod forward;
pub mod history;
mod holds;
mod observation;
mod obstacle;
mod path;
mod reach;
pub mod settings;
pub mod split;
mod status;
mod step;
pub mod strategy;
mod tidy;
mod turn;
mod undo;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::errors::Tally;
use crate::format::{Conversion, Format, Restored};
use crate::names::{AgentName, Digest, RevisionId};
use crate::units::print_duration;

pub use answers::{Answers, First};
pub use command::{Command, Refused, Undo};
pub use follow::{Declared, Next, Wish};
pub use history::{Ledger, Mark};
pub use holds::{CannotHold, Formats, can_hold, can_read};
pub use observation::{Action, Decision, Observation, Rehearsal, Seen, Windows};
pub use obstacle::Obstacle;
pub use settings::{HealthProbe, Pace, Probes, Rollback, Settings, WATCHED};
pub use status::{End, Figures, Status};
pub use strategy::{Deploy, Memory, Reload, Situation, Step, Strategy};
pub use tidy::tidy;
pub(crate) use turn::asked;
pub use turn::{AT_A_TIME, Turn, Turns, turns};
pub use undo::KeptState;

/// One new revision on its way to traffic. Persisted whole, whenever it changed.
///
/// All times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rollout {
    /// Counts the agent's rollouts from 1.
    pub id: u64,
    /// Whose.
    pub agent: AgentName,
    /// The revision that ran before: stable.
    pub from: Side,
    /// The new one: the candidate.
    pub to: Side,
    /// Who began it: a person's token, or `reconcile` for a file that changed.
    pub who: String,
    /// When it was asked for.
    pub began: u64,
    /// When it ended.
    pub ended: Option<u64>,
    /// What it goes by.
    pub settings: Settings,
    /// What the steps were made for.
    pub instances: Instances,
    /// What is to be reached, in order.
    pub steps: Vec<Step>,
    /// Which of them it is at; their number when all are.
    pub step: usize,
    /// How far it is.
    pub status: Status,
    /// Why it is there, for a person to read.
    pub why: String,
    /// Since when it has this status.
    pub since: u64,
    /// How much of the traffic the candidate is to have, of a hundred; stable has the rest.
    pub weight: u8,
    /// How much it was last seen to have.
    pub reached: u8,
    /// When the weight became what; for [`split::Split`].
    pub weights: Vec<(u64, u8)>,
    /// Whether the memory went from stable to the candidate.
    pub handed_over: bool,
    /// What was measured.
    pub figures: Figures,
    /// The place of the last message that the host had accepted before; none where it keeps none. What is lost of those
    /// after it is counted when the rollout has ended.
    #[serde(default)]
    pub after_message: Option<u64>,
    /// The versions of its format that the state may hold before.
    #[serde(default)]
    pub holds: BTreeSet<u32>,
    /// The kept state that an undo goes back to.
    #[serde(default)]
    pub restores: Option<Restored>,
    /// The conversion of the state that goes with it; known once the candidate is ready.
    #[serde(default)]
    pub conversion: Option<Conversion>,
    /// The state is converted.
    #[serde(default)]
    pub converted: bool,
    clock: Clock,
    /// What was measured before the host started again.
    carried: Figures,
    /// What stable failed at last while it had traffic; nothing if that is not known.
    #[serde(default)]
    lately: Tally,
    /// The last failures of stable before any traffic moved; empty if they are not known.
    #[serde(default)]
    before: Tally,
}

/// A revision that takes part in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Its number among the agent's.
    pub number: u64,
    /// Its bytes.
    pub digest: Digest,
    /// Its settings, as [`crate::AgentSpec::revision_settings`] prints them.
    #[serde(deserialize_with = "crate::sparse::deserialize")]
    pub settings: String,
}

impl Side {
    /// The format of its data; that of an agent that declares none if its settings cannot be read.
    pub fn format(&self) -> Format {
        crate::sparse::read(&self.settings).map(|settings| settings.state).unwrap_or_default()
    }
}

/// Instances of the running revision when the rollout began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instances {
    /// As many as it had, at least `min`.
    pub standing: u32,
    /// As many as are always kept.
    pub min: u32,
}

/// Time as the rollout counts it: pauses, and times when no host ran, are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Clock {
    /// When it was looked at last.
    seen: u64,
    /// Milliseconds at this step.
    step: u64,
    /// Milliseconds in which it waited for the host's own work; what the timeout is compared with.
    worked: u64,
    /// Whether it does.
    working: bool,
}

impl Rollout {
    /// A rollout that waits for its turn. `instances` are those of stable; `stateful` whether stable keeps state in
    /// its memory, which is taken for the candidate's way too until it is known; `state` has the versions of its format that the state
    /// may hold, and the kept state that an undo goes back to.
    ///
    /// # Errors
    /// The strategy cannot hold for this agent.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own that is kept as it is")]
    pub fn begin(
        id: u64,
        agent: AgentName,
        from: Side,
        to: Side,
        who: &str,
        settings: Settings,
        instances: Instances,
        stateful: bool,
        state: (BTreeSet<u32>, Option<Restored>),
        now: u64,
    ) -> Result<Self, CannotHold> {
        let (holds, restores) = state;
        let formats = Formats { stable: &from.format(), candidate: &to.format(), holds: &holds, migrates: None };
        if restores.is_none() {
            can_read(&settings.strategy, stateful, &formats)?;
        }
        let new_format = restores.is_some() || formats.stable.version != formats.candidate.version;
        let situation = instances.situation(stateful, stateful, new_format);
        let steps = settings.steps(situation)?;
        let clock = Clock { seen: now, ..Clock::default() };
        Ok(Self {
            id,
            agent,
            from,
            to,
            who: who.to_owned(),
            began: now,
            ended: None,
            settings,
            instances,
            steps,
            step: 0,
            status: Status::Pending,
            why: "it waits for its turn".to_owned(),
            since: now,
            weight: 0,
            reached: 0,
            weights: Vec::new(),
            handed_over: false,
            figures: Figures::default(),
            after_message: None,
            holds,
            restores,
            conversion: None,
            converted: false,
            clock,
            carried: Figures::default(),
            lately: Tally::default(),
            before: Tally::default(),
        })
    }

    /// Judges what stands. Calls with the same observation and time give the same actions; a rollout that ended
    /// gives none. Whether it may begin is [`turns`]' affair: it is not asked before.
    pub fn observe(&mut self, seen: &Observation, now: u64) -> Decision {
        let mut decision = Decision::default();
        if self.status.is_terminal() {
            return decision;
        }
        self.tick(now);
        self.figures = self.carried.and(seen.figures);
        if self.is_in_force(seen, self.weight) {
            self.reached = self.weight;
        }
        self.forward(seen, now, &mut decision);
        if let Status::RollingBack { end } = self.status {
            // Nothing of what was meant for the way forward holds on the way back.
            decision = Decision::default();
            self.back(end, seen, now, &mut decision);
        }
        decision
    }

    /// A newer change takes its place: it goes back, or, where only the old revision's end is left, is done.
    pub fn supersede(&mut self, by: &str, now: u64) {
        let why = format!("superseded by {by}");
        match self.status {
            Status::RollingBack { .. } => {}
            _ if self.status.is_terminal() => {}
            _ if self.has_moved() => self.finish(Status::Completed, why, now),
            _ => self.fall_back(End::Superseded, why, now),
        }
    }

    /// The host started again, and nothing stands of what it knows. Says how it goes on.
    pub fn restarted(&mut self, now: u64) -> String {
        // The time without a host is nobody's, and what is measured of a step begins anew.
        self.clock = Clock { seen: now, step: 0, working: false, ..self.clock };
        self.carried = self.figures;
        let (step, all, weight) = (self.step + 1, self.steps.len(), self.weight);
        let told = match self.status {
            Status::RollingBack { .. } => "the host started again: it goes on back".to_owned(),
            _ if self.status.is_terminal() => return self.why.clone(),
            _ => format!("the host started again: it goes on with step {step} of {all} at {weight}%"),
        };
        self.why = format!("{}; {told}", self.why.split("; the host started again").next().unwrap_or_default());
        told
    }

    /// Whether all traffic is with the candidate for good, and only the end of the old revision is left.
    pub fn has_moved(&self) -> bool {
        let left = self.steps.get(self.step..).unwrap_or_default();
        self.weight == 100
            && self.reached == 100
            && !left.iter().any(|step| strategy::is_last(step) || matches!(step, Step::Weight { .. }))
    }

    /// The step since which is measured what it is judged by: the present one, or, once all traffic has moved, the
    /// one that moved it.
    pub fn window(&self) -> usize {
        let (past, left) = self.steps.split_at(self.step.min(self.steps.len()));
        let moves = |step: &Step| strategy::is_last(step) || matches!(step, Step::Weight { .. });
        match past.iter().rposition(strategy::is_last) {
            Some(moved) if self.weight == 100 && !left.iter().any(moves) => moved,
            Some(_) | None => self.step,
        }
    }

    /// Returns true while the mailbox is to be paused: data go from stable to the candidate with nothing in flight.
    pub fn hands_over(&self) -> bool {
        match self.status {
            // Stable failed, and the candidate takes over all the same.
            Status::RollingBack { .. } => self.converts(),
            _ => matches!(self.steps.get(self.step), Some(Step::Handoff | Step::Convert)),
        }
    }

    /// Whether it goes on by the host's own work, and not by time, messages or people. One that waits for its turn goes
    /// on as those do that it waits for.
    pub fn is_working(&self) -> bool {
        match self.status {
            Status::RollingBack { .. } => true,
            _ => self.clock.working && !self.status.is_terminal(),
        }
    }

    /// The revision that ran before.
    pub fn stable(&self) -> RevisionId {
        RevisionId { agent: self.agent.clone(), number: self.from.number }
    }

    /// The new revision.
    pub fn candidate(&self) -> RevisionId {
        RevisionId { agent: self.agent.clone(), number: self.to.number }
    }

    /// How long it took, or takes already.
    pub fn duration(&self, now: u64) -> Duration {
        Duration::from_millis(self.ended.unwrap_or(now).saturating_sub(self.began))
    }

    /// The status that its step has.
    fn present(&self) -> Status {
        match self.steps.get(self.step) {
            Some(Step::Pause) => Status::Paused,
            Some(Step::Prepare { .. }) => Status::Preparing,
            Some(Step::Start { .. } | Step::Probe | Step::Rehearse { .. }) if self.weight == 0 => Status::Starting,
            _ => Status::InProgress,
        }
    }

    fn become_status(&mut self, status: Status, why: String, now: u64) {
        if self.status != status {
            (self.status, self.since) = (status, now);
        }
        self.why = why;
    }

    /// Takes it back, from the next look on.
    fn fall_back(&mut self, end: End, why: String, now: u64) {
        if let Some(bar) = self.bars_the_way_back() {
            return self.finish(Status::Failed, format!("{why}; {bar}"), now);
        }
        if self.status == Status::Pending {
            return self.finish(end.into(), why, now);
        }
        self.set_weight(0, now);
        self.clock.working = false;
        self.become_status(Status::RollingBack { end }, why, now);
    }

    fn finish(&mut self, status: Status, why: String, now: u64) {
        self.become_status(status, why, now);
        self.ended = Some(now);
    }

    fn set_weight(&mut self, weight: u8, now: u64) {
        if self.weight != weight {
            self.weight = weight;
            self.weights.push((now, weight));
        }
    }

    fn go_on(&mut self) {
        self.step += 1;
        self.clock.step = 0;
    }

    /// Lets time pass. A clock that is set back lets none pass.
    fn tick(&mut self, now: u64) {
        let passed = now.saturating_sub(self.clock.seen);
        self.clock.seen = now;
        if self.status != Status::Paused {
            self.clock.step += passed;
        }
        if self.clock.working {
            self.clock.worked += passed;
        }
    }

    /// What the host has worked too long at, if it has.
    fn is_late(&self) -> Option<String> {
        let worked = Duration::from_millis(self.clock.worked);
        (worked > self.settings.timeout).then(|| {
            let limit = print_duration(self.settings.timeout);
            format!("it took longer than {limit}, at step {} of {}", self.step + 1, self.steps.len())
        })
    }
}

impl Instances {
    fn situation(self, stable_stateful: bool, candidate_stateful: bool, new_format: bool) -> Situation {
        let instances = self.standing.max(self.min);
        Situation { instances, min: self.min, stable_stateful, candidate_stateful, new_format }
    }
}
