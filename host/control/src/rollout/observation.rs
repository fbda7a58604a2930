//! What a rollout is told, and what it answers.
//!
//! Whoever carries rollouts out does, whenever something may have changed:
//!
//! 1. [`Ledger::follow`](super::Ledger::follow) for each agent with what is declared; a revision that it asks for is
//!    made and given to it.
//! 2. [`turns`](super::turns) over all rollouts under way; those whose turn it is are [observed](super::Rollout::observe)
//!    and [settled](super::Ledger::settle). For an agent whose rollout has just ended, once more from 1: what is
//!    declared may be something else than what came of it.
//! 3. [`tidy`](super::tidy()) for each agent, after all of 2, since it ends what no rollout holds.
//! 4. Persists each ledger that changed, and then does what was listed; and all this again until nothing is.
//!
//! What was measured, compared and rehearsed is of the rollout under way: it begins anew with another rollout's id, and
//! the windows also with another step. Work that ends after its rollout did says nothing about the next.

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

/// What stands of a rollout at this moment. After a restart that is nothing: [`Observation::default`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observation {
    /// The revision that ran before; none if nothing of it is in memory.
    pub stable: Option<Seen>,
    /// The new one; likewise.
    pub candidate: Option<Seen>,
    /// How much of the traffic the candidate has, of a hundred.
    pub weight: u8,
    /// Whether the mailbox is held for a handoff.
    pub paused: bool,
    /// The state as it was before this rollout is kept.
    pub state_kept: bool,
    /// A conversion of the state has begun and not come to its end: nobody may use the state.
    pub unfinished: bool,
    /// Whether copies of messages go to the candidate.
    pub shadowed: bool,
    /// How the copies were answered so far.
    pub compared: Compared,
    /// What came of the rehearsal.
    pub rehearsal: Rehearsal,
    /// What was measured since [`super::Rollout::window`] began.
    pub windows: Windows,
    /// What was measured since the rollout began, or the host started.
    pub figures: Figures,
}

/// A revision, as observed.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Where it is in its life.
    pub state: State,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// Whether the host works on it: then nothing but its traffic may be changed.
    pub busy: bool,
    /// Whether it keeps state in its memory; known once it is ready.
    pub stateful: bool,
    /// Its component exports `migrate`; known once it is ready.
    pub migrates: bool,
    /// Messages and calls that it has in hand.
    pub in_flight: u32,
    /// Instances that stand.
    pub instances: u32,
    /// The bound that [`Action::Cap`] put on its instances.
    pub cap: Option<u32>,
    /// What its probes said; none if its component exports no `health`.
    pub probes: Option<Probes>,
}

impl Seen {
    /// The reason for which it failed, if it has.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed { reason } => Some(reason),
            _ => None,
        }
    }

    /// Whether it can take messages, or does.
    pub(super) fn can_take(&self) -> bool {
        matches!(self.state, State::Ready | State::Running | State::Draining)
    }
}

/// What came of handling the last messages on a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Rehearsal {
    /// It has not been done, or not to its end.
    #[default]
    Open,
    /// All were handled, and answered so.
    Passed(Answers),
    /// One was not: which, and how.
    Failed(String),
}

/// What was measured of both since one step. The one who measures begins anew when [`super::Rollout::window`] changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Windows {
    /// The step since which; what was measured since another is not looked at.
    pub step: usize,
    /// Of the running revision.
    pub stable: Window,
    /// Of the new one.
    pub candidate: Window,
    /// Conversations in which something was said since, and that stay with the running revision although the new one has
    /// their place.
    pub held: u64,
    /// What they stay for.
    pub sticky: Sticky,
}

/// What follows from an observation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Decision {
    /// What is safe to do now, in any order.
    pub actions: Vec<Action>,
    /// What it waits for and why, for a person to read.
    pub waits: Option<String>,
    /// When to look again although nothing happened.
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
    /// Whose it is.
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

/// One thing to do for a rollout. Each may fail and is then asked for again; one that succeeded shows in the next
/// observation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Give a kept revision a new life, with its own bytes and settings: it is unloaded then. If it is kept no more,
    /// it shows as failed.
    Revive {
        /// Which.
        revision: RevisionId,
    },
    /// Take a revision from unloaded to ready.
    Prepare {
        /// Which.
        revision: RevisionId,
        /// Instances that are to stand; with 0 one is started to try it.
        instances: u32,
    },
    /// Let more instances stand.
    Start {
        /// Of which.
        revision: RevisionId,
        /// All of them.
        instances: u32,
    },
    /// Let it have no more than so many instances; none for as many as declared. Those beyond end when they are at
    /// rest.
    Cap {
        /// Which.
        revision: RevisionId,
        /// How many.
        instances: Option<u32>,
    },
    /// Ask its `health` once.
    Probe {
        /// Whose.
        revision: RevisionId,
    },
    /// Let it handle so many of the last messages on a copy, with the live snapshot restored.
    Rehearse {
        /// Which.
        revision: RevisionId,
        /// How many.
        messages: u32,
    },
    /// Let it handle copies of live messages, or no more of them.
    Shadow {
        /// Which.
        revision: RevisionId,
        /// Whether.
        on: bool,
    },
    /// Give the candidate so much of the traffic, and stable the rest. Who gets any is running then; who had some
    /// and gets none is draining.
    Weigh {
        /// The one.
        stable: RevisionId,
        /// The other.
        candidate: RevisionId,
        /// The candidate's, of a hundred.
        percent: u8,
    },
    /// Hold the mailbox, so that the running revision comes to rest.
    Pause {
        /// Whose.
        agent: AgentName,
    },
    /// Let the mailbox go on.
    Resume {
        /// Whose.
        agent: AgentName,
    },
    /// Save the memory of the one that runs and keep it as its snapshot, restore it in this one (or let this one begin
    /// anew), check, and give it all traffic. When it fails the old one still has everything, and this one shows as
    /// failed.
    Handoff {
        /// To which.
        revision: RevisionId,
        /// Whether it takes the memory over.
        memory: Memory,
        /// The conversion of the state that goes before.
        conversion: Option<Conversion>,
    },
    /// Keep the state as it is under the number of this revision, which runs.
    KeepState {
        /// The one that runs.
        revision: RevisionId,
    },
    /// Keep the state as it is, convert it, and give this one all traffic. When it fails, the state is unfinished, and
    /// this one shows as failed.
    Convert {
        /// To which.
        revision: RevisionId,
        /// The conversion.
        conversion: Conversion,
    },
    /// Put the state back that was kept under the number of this revision before an unfinished conversion.
    RestoreState {
        /// The one that ran with it.
        revision: RevisionId,
    },
    /// Start this one's instance with the snapshot that it gave when it handed its memory over, and give it all
    /// traffic. What others remembered since is dropped.
    TakeBack {
        /// Which.
        revision: RevisionId,
        /// The conversion of the state that goes before.
        conversion: Option<Conversion>,
    },
    /// End a revision. What it still has in hand is interrupted and goes back to the mailbox.
    Stop {
        /// Which.
        revision: RevisionId,
    },
}
