//! An agent and its revisions as the reconciler manages them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::RecentFailures;
use caxton_control::rollout::{ObservedRevision, ProbeResults, RehearsalState, RolloutStats};
use caxton_control::{AgentSpec, Digest};
use tokio_util::sync::CancellationToken;

use super::measurement::Measurement;
use super::rollout_events::ReportedProgress;
use super::settings_check::check_settings;
use crate::agent::{Agent, Revision, Shadow};
use crate::store::Rest;
use crate::wasm::Kind;

/// An agent that is declared, or was and still drains.
pub(super) struct ManagedAgent {
    pub(super) agent: Arc<Agent>,
    pub(super) revisions: Vec<ManagedRevision>,
    /// The number of the next revision; `None` until it was read from the store.
    pub(super) next_number: Option<u64>,
    /// Set while its mailbox is paused for a handoff.
    pub(super) paused: bool,
    /// The start of its removal on the steady clock, in milliseconds.
    pub(super) retired: Option<u64>,
    /// The revisions that have traffic, each with its share in percent.
    pub(super) shares: Vec<(u64, u8)>,
    /// The measurement of the rollout under way.
    pub(super) measurement: Option<Measurement>,
    pub(super) paused_since: Option<Instant>,
    /// The longest pause of its mailbox in the rollout under way.
    pub(super) longest_pause_ms: u64,
    /// Pauses the checkpoints of the store during a handoff, whose writes the paused mailbox waits for.
    pub(super) checkpoint_pause: Option<Rest>,
    /// The number of the running revision and its failures of the last minutes.
    pub(super) recent_failures: Option<(u64, RecentFailures)>,
    /// The statistics of its rollout that were persisted last, with the time of that.
    pub(super) persisted_stats: Option<(Instant, RolloutStats)>,
    /// The progress of its last rollout that events were emitted for.
    pub(super) reported: Option<ReportedProgress>,
    /// The shadow of the rollout under way, which receives copies of messages. Kept after its end for its results.
    pub(super) shadow: Option<Arc<Shadow>>,
    /// The rollout whose rehearsal is under way, and the token that ends it.
    pub(super) running_rehearsal: Option<(u64, CancellationToken)>,
    /// The last rollout after which the host has searched for lost messages since it started.
    pub(super) loss_checked_to: u64,
    /// A rollout with the outcome of its rehearsal.
    pub(super) rehearsal: Option<(u64, RehearsalState)>,
    /// The rollout for which a copy of the earlier state is kept.
    pub(super) state_saved_for: Option<u64>,
    /// Set after a conversion of the state was broken off: the kept copy has to be restored before anything else.
    pub(super) conversion_unfinished: bool,
    /// Set while the kept copy is being restored.
    pub(super) restoring: bool,
    /// Breaks off the conversion of the state that is under way.
    pub(super) conversion_stop: Option<CancellationToken>,
    /// The reason why a setting that applies in place cannot act on the running component.
    pub(super) settings_error: Option<String>,
    /// The rules that the running revision violates since they have changed.
    pub(super) policy_error: Option<String>,
}

/// A revision of a managed agent.
pub(super) struct ManagedRevision {
    pub(super) number: u64,
    pub(super) spec: Arc<AgentSpec>,
    pub(super) digest: Digest,
    pub(super) state: RevisionState,
    /// The time of the last transition on the steady clock, in milliseconds.
    pub(super) since: u64,
    /// Set until it is prepared for the first time if its number is above all that the store has.
    pub(super) is_new: bool,
    /// Set while a task works on it. The plan leaves it alone until the task reports.
    pub(super) busy: bool,
    /// A token that ends its preparation; `None` unless it is being prepared.
    pub(super) preparing: Option<CancellationToken>,
    /// The running part; `None` before it is ready and after it has ended.
    pub(super) live: Option<Arc<Revision>>,
    /// The number of instances that were started on request. Idle ones may have ended since.
    pub(super) started: u32,
    /// The bound of instances that a rollout has set.
    pub(super) instance_limit: Option<u32>,
    /// Instances that failed to start.
    pub(super) failures: u64,
    /// The results of its probes; `None` before it is ready, and if it exports no `health`.
    pub(super) probes: Option<ProbeResults>,
}

impl ManagedRevision {
    pub(super) fn new(number: u64, spec: Arc<AgentSpec>, digest: Digest, now: u64) -> Self {
        let state = RevisionState::Unloaded;
        let (busy, preparing, live, started, instance_limit, failures, probes) = (false, None, None, 0, None, 0, None);
        Self {
            number,
            spec,
            digest,
            state,
            since: now,
            is_new: false,
            busy,
            preparing,
            live,
            started,
            instance_limit,
            failures,
            probes,
        }
    }

    /// Returns the observation of this revision that plans are made from.
    pub(super) fn observe(&self) -> ObservedRevision {
        let live = self.live.as_ref();
        ObservedRevision {
            state: self.state.clone(),
            since: self.since,
            busy: self.busy,
            stateful: live.is_some_and(|live| live.kind() == Kind::Stateful),
            migrates: live.is_some_and(|live| live.pool.program.summary.migrates),
            in_flight: live.map_or(0, |live| live.in_flight()),
            // Idle instances may have ended; a rollout that asked for them must not wait for them again.
            instances: live.map_or(0, |live| live.pool.live()).max(self.started),
            instance_limit: self.instance_limit,
            probes: self.probes,
        }
    }
}

impl ManagedAgent {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self {
            agent,
            revisions: Vec::new(),
            next_number: None,
            paused: false,
            retired: None,
            shares: Vec::new(),
            measurement: None,
            paused_since: None,
            longest_pause_ms: 0,
            checkpoint_pause: None,
            recent_failures: None,
            persisted_stats: None,
            reported: None,
            shadow: None,
            running_rehearsal: None,
            rehearsal: None,
            loss_checked_to: 0,
            state_saved_for: None,
            conversion_unfinished: false,
            restoring: false,
            conversion_stop: None,
            settings_error: None,
            policy_error: None,
        }
    }

    /// Returns the live revision of this number.
    pub(super) fn live(&self, number: u64) -> Option<Arc<Revision>> {
        self.revisions.iter().find(|revision| revision.number == number).and_then(|revision| revision.live.clone())
    }

    /// Applies the bounds of instances to all live revisions.
    pub(super) fn bound_instances(&self) {
        let instances = self.agent.spec().instances.clone();
        let max = instances.max;
        for (revision, live) in self.revisions.iter().filter_map(|revision| Some((revision, revision.live.as_ref()?))) {
            // At least one, since a revision without instances could not answer what it has accepted.
            live.pool.set_max(revision.instance_limit.map_or(max, |cap| cap.min(max)).max(1));
            live.pool.set_reuse(instances.reuse.value());
            if let Some(limit) = revision.instance_limit {
                // A lower bound alone keeps idle instances until their timeout, and the other side needs the room.
                live.pool.trim(limit, Duration::ZERO);
            }
        }
    }

    /// Returns the revisions that have instances or may start some.
    pub(super) fn live_revisions(&self) -> impl Iterator<Item = &Arc<Revision>> {
        self.revisions.iter().filter_map(|revision| revision.live.as_ref())
    }

    /// Applies the declared settings that need no new revision.
    pub(super) fn apply_settings(&mut self) {
        self.bound_instances();
        self.recheck_settings();
    }

    /// Checks the settings that apply in place against the running component. Those of a new revision are checked when
    /// it is prepared.
    pub(super) fn recheck_settings(&mut self) {
        let (spec, current) = (self.agent.spec(), self.agent.current());
        let checked = current.map_or(Ok(()), |current| check_settings(&spec, &current.pool.program.summary));
        let error = checked.err();
        // Logged once, although every pass may check again.
        if let Some(why) = error.as_ref().filter(|why| self.settings_error.as_ref() != Some(why)) {
            tracing::error!(agent = %self.agent.name(), "a changed setting cannot act: {why}");
        }
        self.settings_error = error;
    }

    /// Returns `true` while the state is being converted or has to be restored.
    pub(super) fn is_converting(&self) -> bool {
        self.conversion_stop.is_some() || self.conversion_unfinished
    }

    /// Returns the number of probes of a revision that passed, and of those that failed.
    pub(super) fn probe_counts(&self, number: u64) -> (u64, u64) {
        let probes =
            self.revisions.iter().find(|revision| revision.number == number).and_then(|revision| revision.probes);
        probes.map_or((0, 0), |probes| (probes.passed, probes.failed))
    }

    pub(super) fn revision_mut(&mut self, number: u64) -> Option<&mut ManagedRevision> {
        self.revisions.iter_mut().find(|revision| revision.number == number)
    }
}

impl ManagedRevision {
    /// Counts the result of a probe; `None` if the revision could not be asked.
    pub(super) fn count_probe(&mut self, passed: Option<bool>, now: u64) {
        let probes = self.probes.get_or_insert_with(ProbeResults::default);
        match passed {
            Some(passed) => probes.count(passed, now),
            // A busy revision has neither passed nor failed.
            None => probes.skip(now),
        }
    }
}
