//! The input and the output of a rollout's decisions.
//!
//! The host performs this cycle whenever something may have changed:
//!
//! 1. [`Ledger::follow`](super::Ledger::follow) for each agent with its declaration; a revision that it asks for is
//!    created and passed in.
//! 2. [`turns`](super::turns) over all rollouts in progress; those whose turn it is are
//!    [observed](super::Rollout::observe) and [settled](super::Ledger::settle). An agent whose rollout has just ended
//!    starts again at 1, as the declaration may differ from the result.
//! 3. [`tidy`](super::tidy()) for each agent, after all of 2, since it ends every revision outside a rollout.
//! 4. Changed ledgers are stored, and then the actions are carried out; all this again until there are none.
//!
//! Measurements, comparisons and rehearsals belong to the rollout in progress: they start again with the id of another
//! rollout, the windows also with another step. Work that ends after its rollout says nothing about the next one.

use std::time::Duration;

use serde::Serialize;

use super::analysis::{Compared, Window};
use super::answers::Answers;
use super::settings::Probes;
use super::split::Sticky;
use super::status::Figures;
use super::strategy::Memory;
use crate::format::Conversion;
use crate::lifecycle::State;
use crate::names::{AgentName, RevisionId};

/// The observed state of a rollout. Empty after a restart: [`Observation::default`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// The revision that ran before; `None` if nothing of it is in memory.
    pub stable: Option<Seen>,
    /// The new revision; likewise.
    pub candidate: Option<Seen>,
    /// The candidate's percentage of the traffic.
    pub weight: u8,
    /// Set while the mailbox is paused for a handoff.
    pub paused: bool,
    /// The conversion of the state.
    pub conversion: Converting,
    /// Set while copies of messages go to the candidate.
    pub shadowed: bool,
    /// The comparison of answers to copies so far.
    pub compared: Compared,
    /// The result of the rehearsal.
    pub rehearsal: Rehearsal,
    /// Measurements since [`super::Rollout::window`] began.
    pub windows: Windows,
    /// Measurements since the rollout began, or since the host started.
    pub figures: Figures,
}

/// The conversion of an agent's state, as observed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Converting {
    /// Set once the state as it was before the rollout under way is stored.
    pub kept: bool,
    /// Set while a conversion has begun and not ended: no revision may use the state.
    pub unfinished: bool,
    /// Set while the kept state is being put back.
    pub restoring: bool,
}

/// An observed revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The lifecycle state.
    pub state: State,
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
    /// The bound of its instances by [`Action::Cap`].
    pub cap: Option<u32>,
    /// The results of its probes; `None` if its component exports no `health`.
    pub probes: Option<Probes>,
}

impl Seen {
    /// Returns the reason of its failure, if it failed.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed { reason } => Some(reason),
            _ => None,
        }
    }

    /// Returns `true` if it receives messages or could.
    pub(super) fn can_take(&self) -> bool {
        matches!(self.state, State::Ready | State::Running | State::Draining)
    }
}

/// The result of handling past messages on a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Rehearsal {
    /// Not finished yet.
    #[default]
    Open,
    /// All were handled, and answered so.
    Passed(Answers),
    /// A message was not handled: its position and the error.
    Failed(String),
}

/// The measurements of both revisions since a step began. The host starts new ones when [`super::Rollout::window`]
/// changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Windows {
    /// The step; measurements of another step are ignored.
    pub step: usize,
    /// The running revision.
    pub stable: Window,
    /// The new revision.
    pub candidate: Window,
    /// Conversations with messages in the window that stay with the running revision although their place belongs to
    /// the new one.
    pub held: u64,
    /// The kind of binding that keeps them.
    pub sticky: Sticky,
}

/// The decision after an observation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Decision {
    /// The actions that are safe now, in any order.
    pub actions: Vec<Action>,
    /// The reason for waiting, for people to read.
    pub waits: Option<String>,
    /// The time after which to observe again although nothing changed.
    #[serde(skip)]
    pub look_again_in: Option<Duration>,
}

impl Decision {
    pub(super) fn act(&mut self, action: Action) {
        if !self.actions.contains(&action) {
            self.actions.push(action);
        }
    }

    pub(super) fn look_again(&mut self, after: Duration) {
        self.look_again_in = Some(self.look_again_in.map_or(after, |soonest| soonest.min(after)));
    }
}

impl Action {
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
pub enum Action {
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
        memory: Memory,
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
