//! The input and the output of a rollout's decisions.
//!
//! The host performs this cycle whenever something may have changed:
//!
//! 1. [`Ledger::apply_declaration`](super::Ledger::apply_declaration) for each agent with its declaration; a revision
//!    that it asks for is created and passed in.
//! 2. [`permits`](super::permits) over all rollouts in progress; those whose turn it is are
//!    [observed](super::Rollout::observe) and [settled](super::Ledger::settle). An agent whose rollout has just ended
//!    starts again at 1, as the declaration may differ from the result.
//! 3. [`collect_garbage`](super::collect_garbage) for each agent, after all of 2, since it ends every revision outside
//!    a rollout.
//! 4. Changed ledgers are stored, and then the actions are carried out; all this again until there are none.
//!
//! Measurements, comparisons and rehearsals belong to the rollout in progress: they start again with the id of another
//! rollout, the windows also with another step. Work that ends after its rollout says nothing about the next one.

use super::probe::ProbeResults;
use super::rehearsal::RehearsalState;
use super::split::Sticky;
use super::status::RolloutStats;
use super::window::{ComparisonCounts, Window};
use crate::lifecycle::RevisionState;

/// The observed state of a rollout. Empty after a restart: [`Observation::default`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// The revision that ran before; `None` if nothing of it is in memory.
    pub stable: Option<ObservedRevision>,
    /// The new revision; likewise.
    pub candidate: Option<ObservedRevision>,
    /// The candidate's percentage of the traffic.
    pub weight: u8,
    /// Set while the mailbox is paused for a handoff.
    pub paused: bool,
    /// The conversion of the state.
    pub conversion: ConversionState,
    /// Set while copies of messages go to the candidate.
    pub shadowed: bool,
    /// The comparison of answers to copies so far.
    pub compared: ComparisonCounts,
    /// The result of the rehearsal.
    pub rehearsal: RehearsalState,
    /// Measurements since [`super::Rollout::window`] began.
    pub measurements: StepMeasurements,
    /// Measurements since the rollout began, or since the host started.
    pub stats: RolloutStats,
}

/// The conversion of an agent's state, as observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConversionState {
    /// Set once the state as it was before the rollout under way is stored.
    pub is_state_kept: bool,
    /// Set while a conversion has begun and not ended: no revision may use the state.
    pub unfinished: bool,
    /// Set while the kept state is being put back.
    pub restoring: bool,
}

/// An observed revision.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedRevision {
    /// The lifecycle state.
    pub state: RevisionState,
    /// The time of the last change of state, in milliseconds since 1970.
    pub since: u64,
    /// Set while the host works on it: then only its traffic may be changed.
    pub busy: bool,
    /// Set if it keeps state in its memory; known once it is ready.
    pub stateful: bool,
    /// Set if its component exports `migrate`; known once it is ready.
    pub migrates: bool,
    /// Messages and calls in flight.
    pub in_flight: u32,
    /// Instances that have started.
    pub instances: u32,
    /// The bound of its instances by [`RolloutAction::Cap`](super::RolloutAction::Cap).
    pub instance_limit: Option<u32>,
    /// The results of its probes; `None` if its component exports no `health`.
    pub probes: Option<ProbeResults>,
}

impl ObservedRevision {
    /// Returns the reason of its failure, if it failed.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.state {
            RevisionState::Failed { reason } => Some(reason),
            _ => None,
        }
    }

    /// Returns `true` if it receives messages or could.
    pub(super) fn can_take(&self) -> bool {
        matches!(self.state, RevisionState::Ready | RevisionState::Running | RevisionState::Draining)
    }
}

/// The measurements of both revisions since a step began. The host starts new ones when [`super::Rollout::window`]
/// changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepMeasurements {
    /// The step; measurements of another step are ignored.
    pub step: usize,
    /// The running revision.
    pub stable: Window,
    /// The new revision.
    pub candidate: Window,
    /// Conversations with messages in the window that stay with the running revision although their place belongs to
    /// the new one.
    pub held_conversations: u64,
    /// The kind of binding that keeps them.
    pub sticky: Sticky,
}

impl Observation {
    /// Returns `true` if the host works on the candidate.
    pub(super) fn is_candidate_busy(&self) -> bool {
        self.candidate.as_ref().is_some_and(|seen| seen.busy)
    }
}
