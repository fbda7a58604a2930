//! The actions that a rollout requests from the host.

use std::time::Duration;

use serde::Serialize;

use super::strategy::MemoryHandover;
use crate::format::Conversion;
use crate::names::{AgentName, RevisionId};

/// The decision after an observation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Decision {
    /// The actions that are safe now, in any order.
    pub actions: Vec<RolloutAction>,
    /// The reason for waiting, for people to read.
    pub waits: Option<String>,
    /// The time after which to observe again although nothing changed.
    #[serde(skip)]
    pub recheck_after: Option<Duration>,
}

impl Decision {
    pub(super) fn request(&mut self, action: RolloutAction) {
        // Two parts of a decision may find the same action necessary; the list is short.
        if !self.actions.contains(&action) {
            self.actions.push(action);
        }
    }

    pub(super) fn recheck_in(&mut self, after: Duration) {
        // The soonest wins: a decision that is made too early only finds the same again.
        self.recheck_after = Some(self.recheck_after.map_or(after, |soonest| soonest.min(after)));
    }
}

impl RolloutAction {
    /// Returns the agent that the action is for.
    pub fn agent(&self) -> &AgentName {
        match self {
            Self::Pause { agent } | Self::Resume { agent } => agent,
            Self::Weigh { stable, .. } => &stable.agent,
            Self::Revive { revision }
            | Self::Prepare { revision, .. }
            | Self::Start { revision, .. }
            | Self::Cap { revision, .. }
            | Self::Probe { revision }
            | Self::Rehearse { revision, .. }
            | Self::Shadow { revision, .. }
            | Self::Handoff { revision, .. }
            | Self::TakeBack { revision, .. }
            | Self::KeepState { revision }
            | Self::Convert { revision, .. }
            | Self::RestoreState { revision }
            | Self::Stop { revision } => &revision.agent,
        }
    }
}

/// An action for a rollout. A failed one is requested again; a successful one shows in the next observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum RolloutAction {
    /// Brings a stored revision back, with its own component and settings, in the state unloaded. If it is not stored
    /// any more, it shows as failed.
    Revive {
        /// The revision.
        revision: RevisionId,
    },
    /// Takes a revision from unloaded to ready.
    Prepare {
        /// The revision.
        revision: RevisionId,
        /// The instances to start; with 0 one is started as a trial.
        instances: u32,
    },
    /// Starts more instances.
    Start {
        /// The revision.
        revision: RevisionId,
        /// The total number.
        instances: u32,
    },
    /// Limits the instances of a revision; surplus ones end when idle.
    Cap {
        /// The revision.
        revision: RevisionId,
        /// The limit; `None` restores the declared one.
        instances: Option<u32>,
    },
    /// Calls the `health` export once.
    Probe {
        /// The revision.
        revision: RevisionId,
    },
    /// Lets a revision handle past messages on a copy, with the live snapshot restored.
    Rehearse {
        /// The revision.
        revision: RevisionId,
        /// The number of messages.
        messages: u32,
    },
    /// Starts or ends the handling of copies of live messages.
    Shadow {
        /// The revision.
        revision: RevisionId,
        /// Set to start.
        on: bool,
    },
    /// Splits the traffic between stable and the candidate. A revision with traffic is running then; one that had some
    /// and has none is draining.
    Weigh {
        /// The running revision.
        stable: RevisionId,
        /// The new revision.
        candidate: RevisionId,
        /// The candidate's percentage.
        percent: u8,
    },
    /// Pauses the mailbox, so that the running revision finishes its messages.
    Pause {
        /// The agent.
        agent: AgentName,
    },
    /// Resumes the mailbox.
    Resume {
        /// The agent.
        agent: AgentName,
    },
    /// Saves the memory of the running revision as its snapshot, restores it in this one (or lets it start anew),
    /// checks it, and moves all traffic to it. After a failure the old revision still has everything, and this one
    /// shows as failed.
    Handoff {
        /// The new revision.
        revision: RevisionId,
        /// The treatment of the memory.
        memory: MemoryHandover,
        /// The conversion of the state that comes first.
        conversion: Option<Conversion>,
    },
    /// Stores a copy of the state under the number of this revision, which runs.
    KeepState {
        /// The running revision.
        revision: RevisionId,
    },
    /// Stores a copy of the state, converts the state, and moves all traffic to this revision. After a failure the
    /// state is unfinished, and this revision shows as failed.
    Convert {
        /// The new revision.
        revision: RevisionId,
        /// The conversion.
        conversion: Conversion,
    },
    /// Puts back the copy of the state stored under the number of this revision, after an unfinished conversion.
    RestoreState {
        /// The revision that ran with it.
        revision: RevisionId,
    },
    /// Starts an instance of this revision with the snapshot that it once handed over, and moves all traffic to it.
    /// Later changes by other revisions are lost.
    TakeBack {
        /// The revision.
        revision: RevisionId,
        /// The conversion of the state that comes first.
        conversion: Option<Conversion>,
    },
    /// Ends a revision. Its messages in flight are interrupted and return to the mailbox.
    Stop {
        /// The revision.
        revision: RevisionId,
    },
}
