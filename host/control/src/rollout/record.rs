//! The record of a rollout, as it is stored, with what can be said of it without an observation.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compat::{Formats, Incompatible, check_formats};
use super::failure_rate::FailureCounts;
use super::settings::RolloutSettings;
use super::status::{RollbackReason, RolloutStats, Status};
use super::step::Step;
use super::step_plan::Situation;
use crate::format::{Conversion, RestoredState, StateFormat};
use crate::names::{AgentName, Digest, RevisionId};
use crate::units::print_duration;

/// The rollout of one new revision, stored as a whole whenever it changes. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rollout {
    /// The number of the rollout, counted per agent from 1.
    pub id: u64,
    /// The agent.
    pub agent: AgentName,
    /// The revision that ran before: stable.
    pub from: StoredRevision,
    /// The new revision: the candidate.
    pub to: StoredRevision,
    /// The initiator: the name of a token, or `reconcile` for a changed file.
    #[serde(rename = "who")]
    pub initiator: String,
    /// The time of the request.
    pub began: u64,
    /// The time of its end; `None` while it is in progress.
    pub ended: Option<u64>,
    /// The settings in force, as declared when it began.
    pub settings: RolloutSettings,
    /// The instances for which the steps were made.
    pub instances: InstanceCounts,
    /// The steps to reach, in order.
    pub steps: Vec<Step>,
    /// The index of the present step; the number of steps at the end.
    pub step: usize,
    /// The present status.
    pub status: Status,
    /// The reason for the status, for people to read.
    pub why: String,
    /// The time of the last change of status.
    pub since: u64,
    /// The intended percent of the traffic for the candidate; stable has the rest.
    pub weight: u8,
    /// The percent of the traffic last observed at the candidate.
    #[serde(rename = "reached")]
    pub weight_in_force: u8,
    /// The history of the weight, for [`Split`](super::split::Split): the time of each change, and the weight since
    /// then.
    #[serde(rename = "weights")]
    pub weight_history: Vec<(u64, u8)>,
    /// Set once the memory was handed over from stable to the candidate.
    pub handed_over: bool,
    /// The measurements so far.
    #[serde(rename = "figures")]
    pub stats: RolloutStats,
    /// The last message accepted before the rollout; lost messages are counted from it. `None` without a durable store.
    #[serde(default)]
    pub after_message: Option<u64>,
    /// The versions of the format that the state may hold before the rollout.
    #[serde(rename = "holds", default)]
    pub state_versions: BTreeSet<u32>,
    /// The kept state that an undo puts back.
    #[serde(default)]
    pub restores: Option<RestoredState>,
    /// The conversion of the state that is part of the rollout; known once the candidate is ready.
    #[serde(default)]
    pub conversion: Option<Conversion>,
    /// Set once the state is converted.
    #[serde(default)]
    pub converted: bool,
    pub(super) clock: Clock,
    /// Measurements before the last restart of the host.
    #[serde(rename = "carried")]
    pub(super) earlier_stats: RolloutStats,
    /// The latest failures of stable while it had traffic; empty if unknown.
    #[serde(rename = "lately", default)]
    pub(super) stable_recent: FailureCounts,
    /// The latest failures of stable before any traffic moved; empty if unknown.
    #[serde(rename = "before", default)]
    pub(super) stable_before: FailureCounts,
}

/// A revision in its role in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRevision {
    /// The revision's number.
    pub number: u64,
    /// The digest of its component.
    pub digest: Digest,
    /// The settings, as [`crate::AgentSpec::revision_settings`] prints them.
    #[serde(deserialize_with = "crate::revision_settings::deserialize")]
    pub settings: String,
}

impl StoredRevision {
    /// Returns the format of its data; the default one if its settings cannot be read.
    pub fn format(&self) -> StateFormat {
        crate::revision_settings::RevisionSettings::from_text(&self.settings)
            .map(|settings| settings.state)
            .unwrap_or_default()
    }
}

/// The instances of the running revision when the rollout began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceCounts {
    /// The number that it had, at least `min`.
    #[serde(rename = "standing")]
    pub running: u32,
    /// The declared minimum.
    pub min: u32,
}

/// The time of a rollout, without pauses and without the time when no host ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Clock {
    /// The time of the last observation.
    pub(super) seen: u64,
    /// Milliseconds spent at the present step.
    pub(super) step: u64,
    /// Milliseconds spent waiting for the host's own work, to compare with the timeout.
    pub(super) worked: u64,
    /// Set while it waits for the host's own work.
    pub(super) working: bool,
}

impl Rollout {
    /// Creates a rollout that waits for its turn. `instances` are those of stable; `stateful` tells if stable keeps
    /// state in its memory, which is assumed of the candidate too until it is known; `state` has the versions of the
    /// format that the state may hold, and the kept state that an undo puts back.
    ///
    /// # Errors
    /// The strategy cannot hold for this agent.
    #[allow(clippy::too_many_arguments, reason = "each is a fact of its own that is kept as it is")]
    pub fn begin(
        id: u64,
        agent: AgentName,
        from: StoredRevision,
        to: StoredRevision,
        initiator: &str,
        settings: RolloutSettings,
        instances: InstanceCounts,
        stateful: bool,
        state: (BTreeSet<u32>, Option<RestoredState>),
        now: u64,
    ) -> Result<Self, Incompatible> {
        let (state_versions, restores) = state;
        let formats = Formats {
            stable: &from.format(),
            candidate: &to.format(),
            state_versions: &state_versions,
            migrates: None,
        };
        // A copy that is put back has a format that the revision reads, whatever the present state holds.
        if restores.is_none() {
            check_formats(&settings.strategy, stateful, &formats)?;
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
            initiator: initiator.to_owned(),
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
            weight_in_force: 0,
            weight_history: Vec::new(),
            handed_over: false,
            stats: RolloutStats::default(),
            after_message: None,
            state_versions,
            restores,
            conversion: None,
            converted: false,
            clock,
            earlier_stats: RolloutStats::default(),
            stable_recent: FailureCounts::default(),
            stable_before: FailureCounts::default(),
        })
    }

    /// Ends the rollout in favour of a newer change: it goes back, or completes if only the end of the old revision is
    /// left.
    pub fn supersede(&mut self, by: &str, now: u64) {
        let why = format!("superseded by {by}");
        match self.status {
            // It is on the way to where a superseded rollout goes.
            Status::RollingBack { .. } => {}
            _ if self.status.is_terminal() => {}
            _ if self.has_moved() => self.finish(Status::Completed, why, now),
            _ => self.start_rollback(RollbackReason::Superseded, why, now),
        }
    }

    /// Records a restart of the host, after which nothing is in memory. Returns a text about the continuation.
    pub fn record_restart(&mut self, now: u64) -> String {
        // The time without a host does not count, and the measurements of a step start again.
        self.clock = Clock { seen: now, step: 0, working: false, ..self.clock };
        self.earlier_stats = self.stats;
        let (step, all, weight) = (self.step + 1, self.steps.len(), self.weight);
        let told = match self.status {
            Status::RollingBack { .. } => "the host started again: it goes on back".to_owned(),
            _ if self.status.is_terminal() => return self.why.clone(),
            _ => format!("the host started again: it goes on with step {step} of {all} at {weight}%"),
        };
        // Repeated restarts must not lengthen the reason.
        self.why = format!("{}; {told}", self.why.split("; the host started again").next().unwrap_or_default());
        told
    }

    /// Returns `true` if all traffic has moved to the candidate for good, and only the end of the old revision is left.
    pub fn has_moved(&self) -> bool {
        let left = self.steps.get(self.step..).unwrap_or_default();
        self.weight == 100
            && self.weight_in_force == 100
            && !left.iter().any(|step| step.moves_all_traffic() || matches!(step, Step::Weight { .. }))
    }

    /// Returns the step at which the measurements for the judgement begin: the present one or, once all traffic has
    /// moved, the one that moved it.
    pub fn window(&self) -> usize {
        let (past, left) = self.steps.split_at(self.step.min(self.steps.len()));
        let moves = |step: &Step| step.moves_all_traffic() || matches!(step, Step::Weight { .. });
        match past.iter().rposition(Step::moves_all_traffic) {
            Some(moved) if self.weight == 100 && !left.iter().any(moves) => moved,
            Some(_) | None => self.step,
        }
    }

    /// Returns `true` while the mailbox has to be paused, as data move from stable to the candidate.
    pub fn needs_paused_mailbox(&self) -> bool {
        match self.status {
            // Stable failed, and the candidate takes over although the rollout goes back.
            Status::RollingBack { .. } => self.needs_conversion(),
            _ => matches!(self.steps.get(self.step), Some(Step::Handoff | Step::Convert)),
        }
    }

    /// Returns `true` if it waits for the host's own work, and not for time, messages, people or its turn.
    pub fn is_working(&self) -> bool {
        match self.status {
            Status::RollingBack { .. } => true,
            _ => self.clock.working && !self.status.is_terminal(),
        }
    }

    /// Returns the id of the revision that ran before.
    pub fn stable(&self) -> RevisionId {
        RevisionId { agent: self.agent.clone(), number: self.from.number }
    }

    /// Returns the id of the new revision.
    pub fn candidate(&self) -> RevisionId {
        RevisionId { agent: self.agent.clone(), number: self.to.number }
    }

    /// Returns the duration of the rollout so far.
    pub fn duration(&self, now: u64) -> Duration {
        Duration::from_millis(self.ended.unwrap_or(now).saturating_sub(self.began))
    }

    /// Returns the status that belongs to the present step.
    pub(super) fn status_of_step(&self) -> Status {
        match self.steps.get(self.step) {
            Some(Step::Pause) => Status::Paused,
            Some(Step::Prepare { .. }) => Status::Preparing,
            Some(Step::Start { .. } | Step::Probe | Step::Rehearse { .. }) if self.weight == 0 => Status::Starting,
            _ => Status::InProgress,
        }
    }

    pub(super) fn set_status(&mut self, status: Status, why: String, now: u64) {
        // A new reason alone does not restart the time of the status.
        if self.status != status {
            (self.status, self.since) = (status, now);
        }
        self.why = why;
    }

    /// Turns the rollout back; the actions follow with the next observation.
    pub(super) fn start_rollback(&mut self, end: RollbackReason, why: String, now: u64) {
        if let Some(bar) = self.rollback_barrier() {
            return self.finish(Status::Failed, format!("{why}; {bar}"), now);
        }
        // Nothing was done yet, so there is nothing to restore.
        if self.status == Status::Pending {
            return self.finish(end.into(), why, now);
        }
        self.set_weight(0, now);
        self.clock.working = false;
        self.set_status(Status::RollingBack { end }, why, now);
    }

    pub(super) fn finish(&mut self, status: Status, why: String, now: u64) {
        self.set_status(status, why, now);
        self.ended = Some(now);
    }

    pub(super) fn set_weight(&mut self, weight: u8, now: u64) {
        // Repeated weights would grow the history, which every message of a conversation is looked up in.
        if self.weight != weight {
            self.weight = weight;
            self.weight_history.push((now, weight));
        }
    }

    pub(super) fn next_step(&mut self) {
        self.step += 1;
        self.clock.step = 0;
    }

    /// Advances the rollout's clocks. A clock that was set back advances none.
    pub(super) fn tick(&mut self, now: u64) {
        let passed = now.saturating_sub(self.clock.seen);
        self.clock.seen = now;
        if self.status != Status::Paused {
            self.clock.step += passed;
        }
        if self.clock.working {
            self.clock.worked += passed;
        }
    }

    /// Returns the reason to give up if the host's own work has taken longer than the timeout.
    pub(super) fn timed_out(&self) -> Option<String> {
        let worked = Duration::from_millis(self.clock.worked);
        (worked > self.settings.timeout).then(|| {
            let limit = print_duration(self.settings.timeout);
            format!("it took longer than {limit}, at step {} of {}", self.step + 1, self.steps.len())
        })
    }
}

impl Rollout {
    /// Returns the reason why stable cannot have the traffic again: it cannot read what the candidate has made of the
    /// state.
    pub(super) fn rollback_barrier(&self) -> Option<String> {
        let after = self.conversion.as_ref().filter(|_| self.converted)?.state_versions_after();
        let version = self.from.format().unreadable(&after)?;
        let (stable, agent) = (self.stable(), &self.agent);
        Some(format!(
            "{stable} cannot read version {version} of the state's format, so {} goes on; `caxton rollout undo {agent} \
             --restore-state` goes back to the state as it was",
            self.candidate()
        ))
    }

    /// Returns the versions that the state may hold once the rollout has ended.
    pub(super) fn state_versions_after(&self) -> BTreeSet<u32> {
        match &self.conversion {
            Some(conversion) if self.converted => conversion.state_versions_after(),
            Some(_) | None => {
                // A single message may have written the new version, however long ago.
                let wrote = self.weight > 0 || self.weight_history.iter().any(|(_, weight)| *weight > 0);
                let new = wrote.then(|| self.to.format().version);
                self.state_versions.iter().copied().chain(new).collect()
            }
        }
    }

    /// Records that the state was converted and stored durably before the host ended: the candidate has it.
    pub fn record_conversion(&mut self, now: u64) {
        if self.status.is_terminal() || self.converted || !self.moves_memory() {
            return;
        }
        self.converted = true;
        self.handed_over |= self.steps.get(self.step) == Some(&Step::Handoff);
        self.set_weight(100, now);
    }

    /// Returns `true` if the state is still to be converted, with the mailbox paused, before the candidate has any
    /// traffic.
    pub(super) fn needs_conversion(&self) -> bool {
        self.conversion.is_some() && !self.converted && !self.steps.contains(&Step::KeepState)
    }

    /// Returns `true` if the present step moves traffic together with memory.
    pub(super) fn moves_memory(&self) -> bool {
        matches!(self.steps.get(self.step), Some(Step::Handoff | Step::TakeBack | Step::Convert))
    }
}

impl InstanceCounts {
    pub(super) fn situation(self, stable_stateful: bool, candidate_stateful: bool, new_format: bool) -> Situation {
        let instances = self.running.max(self.min);
        Situation { instances, min: self.min, stable_stateful, candidate_stateful, new_format }
    }
}
