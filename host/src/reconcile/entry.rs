//! An agent with its revisions, as the reconciler has them.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::lifecycle::State;
use caxton_control::rollout::Recent;
use caxton_control::rollout::{Figures, Probes, Rehearsal, Seen};
use caxton_control::{AgentName, AgentSpec, Digest};
use tokio_util::sync::CancellationToken;

use super::convert::Failed;
use super::roll::Measuring;
use super::told::Told;
use crate::agent::{Agent, RehearsalReport, Revision, Shadow};
use crate::store::Rest;

/// What a task reports when it ends.
pub(super) enum Report {
    /// A revision's component is compiled.
    Loaded { agent: AgentName, number: u64 },
    /// A revision is ready with so many instances, or failed.
    Prepared { agent: AgentName, number: u64, result: Result<(Arc<Revision>, u32), String> },
    /// So many instances of a revision stand, or do not.
    Stands { agent: AgentName, number: u64, instances: u32, result: Result<(), String> },
    /// A revision's `health` was asked; none if it could not be.
    Probed { agent: AgentName, number: u64, passed: Option<bool> },
    /// A revision has handled the last messages on a copy, for this rollout; or that could not be done.
    Rehearsed { agent: AgentName, number: u64, rollout: u64, result: Result<RehearsalReport, String> },
    /// The disk is free for a handoff to this revision.
    Rests { agent: AgentName, number: u64, rest: Rest },
    /// The data of an agent, and so its traffic, are with this revision, or stay where they were.
    HandedOff { agent: AgentName, number: u64, result: Result<(), Failed> },
    /// The state as this revision wrote it is kept, for this rollout.
    StateKept { agent: AgentName, number: u64, rollout: u64, result: Result<(), String> },
    /// The state is as it was when this revision had it.
    StateRestored { agent: AgentName, number: u64, result: Result<(), String> },
    /// Messages that were lost during a rollout that has ended, by their places; none if they could not be counted.
    Counted { agent: AgentName, rollout: u64, lost: Option<Vec<u64>> },
    /// A revision that had to be saved first has ended.
    Stopped { agent: AgentName, number: u64 },
}

impl Report {
    /// Whose it is.
    pub(super) fn agent(&self) -> &AgentName {
        match self {
            Self::Loaded { agent, .. }
            | Self::Prepared { agent, .. }
            | Self::Stands { agent, .. }
            | Self::Probed { agent, .. }
            | Self::Rehearsed { agent, .. }
            | Self::Rests { agent, .. }
            | Self::HandedOff { agent, .. }
            | Self::StateKept { agent, .. }
            | Self::StateRestored { agent, .. }
            | Self::Counted { agent, .. }
            | Self::Stopped { agent, .. } => agent,
        }
    }
}

/// An agent with its revisions.
pub(super) struct Entry {
    pub(super) agent: Arc<Agent>,
    pub(super) revisions: Vec<Record>,
    /// The number of the next revision; none until the store was asked.
    pub(super) next_number: Option<u64>,
    pub(super) paused: bool,
    /// Since when it leaves, as the reconciler counts it.
    pub(super) retired: Option<u64>,
    /// Who has how much of the traffic, of a hundred.
    pub(super) shares: Vec<(u64, u8)>,
    /// What is measured.
    pub(super) measuring: Option<Measuring>,
    /// Since when its mailbox is held for a handoff, and the longest time that it ever was.
    pub(super) paused_since: Option<Instant>,
    pub(super) longest_pause_ms: u64,
    /// Keeps the disk free while it is held.
    pub(super) rest: Option<Rest>,
    /// What the revision that runs failed at of late, by its number.
    pub(super) lately: Option<(u64, Recent)>,
    /// The figures of its rollout that were persisted last, and when.
    pub(super) kept: Option<(Instant, Figures)>,
    /// What was told last of its rollouts.
    pub(super) told: Option<Told>,
    /// Where copies of its messages go, or went in the rollout under way.
    pub(super) shadow: Option<Arc<Shadow>>,
    /// Ends the rehearsal that is under way, and of which rollout it is.
    pub(super) rehearsing: Option<(u64, CancellationToken)>,
    /// The last rollout after which lost messages were looked for since the host started.
    pub(super) counted: u64,
    /// What came of a candidate's rehearsal, and of which rollout.
    pub(super) rehearsal: Option<(u64, Rehearsal)>,
    /// The rollout for which the state as it was is kept.
    pub(super) state_kept: Option<u64>,
    /// A conversion of the state did not come to its end: the state that was kept is to be put back first.
    pub(super) unfinished: bool,
    /// That is being done.
    pub(super) restoring: bool,
    /// Breaks off the conversion of the state that is under way.
    pub(super) converting: Option<CancellationToken>,
    /// A setting that applies in place and cannot act on what runs.
    pub(super) misfit: Option<String>,
}

/// A revision with its place in its life.
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) spec: Arc<AgentSpec>,
    pub(super) digest: Digest,
    pub(super) state: State,
    /// In milliseconds since 1970, as the reconciler counts it.
    pub(super) since: u64,
    pub(super) busy: bool,
    pub(super) live: Option<Arc<Revision>>,
    /// Instances that were made to stand. Later they may end when idle.
    pub(super) stood: u32,
    /// The bound that a rollout put on its instances.
    pub(super) cap: Option<u32>,
    /// Instances that did not come to stand while it was made ready.
    pub(super) failures: u64,
    /// What its probes said; none before it is ready, and if it exports no `health`.
    pub(super) probes: Option<Probes>,
}

impl Record {
    pub(super) fn new(number: u64, spec: Arc<AgentSpec>, digest: Digest, now: u64) -> Self {
        let state = State::Unloaded;
        let (busy, live, stood, cap, failures, probes) = (false, None, 0, None, 0, None);
        Self { number, spec, digest, state, since: now, busy, live, stood, cap, failures, probes }
    }

    pub(super) fn seen(&self) -> Seen {
        let live = self.live.as_ref();
        Seen {
            state: self.state.clone(),
            since: self.since,
            busy: self.busy,
            stateful: live.is_some_and(|live| live.kind() == crate::wasm::Kind::Stateful),
            migrates: live.is_some_and(|live| live.pool.program.summary.migrates),
            in_flight: live.map_or(0, |live| live.in_flight()),
            instances: live.map_or(0, |live| live.pool.live()).max(self.stood),
            cap: self.cap,
            probes: self.probes,
        }
    }
}

impl Entry {
    pub(super) fn new(agent: Arc<Agent>) -> Self {
        Self {
            agent,
            revisions: Vec::new(),
            next_number: None,
            paused: false,
            retired: None,
            shares: Vec::new(),
            measuring: None,
            paused_since: None,
            longest_pause_ms: 0,
            rest: None,
            lately: None,
            kept: None,
            told: None,
            shadow: None,
            rehearsing: None,
            rehearsal: None,
            counted: 0,
            state_kept: None,
            unfinished: false,
            restoring: false,
            converting: None,
            misfit: None,
        }
    }

    /// Returns true while the state is being converted, or has to be put back as it was.
    pub(super) fn converts(&self) -> bool {
        self.converting.is_some() || self.unfinished
    }

    pub(super) fn record(&mut self, number: u64) -> Option<&mut Record> {
        self.revisions.iter_mut().find(|record| record.number == number)
    }
}

impl Record {
    /// Counts a probe.
    pub(super) fn count_probe(&mut self, passed: Option<bool>, now: u64) {
        let probes = self.probes.get_or_insert_with(Probes::default);
        match passed {
            Some(passed) => probes.count(passed, now),
            None => probes.skip(now),
        }
    }
}
