//! The reports of the tasks that the reconciler starts.

use std::sync::Arc;

use caxton_control::AgentName;

use crate::agent::{RehearsalReport, Revision};
use crate::store::Rest;

/// The result of a task, sent to the reconciler.
pub(super) enum TaskReport {
    /// The component of a revision is compiled; its instances are started next.
    Loaded { agent: AgentName, number: u64 },
    /// A revision is ready with this number of instances, or has failed.
    Prepared { agent: AgentName, number: u64, result: Result<(Arc<Revision>, u32), PreparationError> },
    /// A report that more instances of a revision were started, or failed to start.
    InstancesStarted { agent: AgentName, number: u64, instances: u32, result: Result<(), String> },
    /// The `health` of a revision was called; `passed` is `None` if no instance was free for that.
    Probed { agent: AgentName, number: u64, passed: Option<bool> },
    /// The rehearsal of a candidate in this rollout has ended, or could not take place.
    Rehearsed { agent: AgentName, number: u64, rollout: u64, result: Result<RehearsalReport, String> },
    /// The store has paused its checkpoints for a handoff to this revision.
    CheckpointsPaused { agent: AgentName, number: u64, rest: Rest },
    /// The data of an agent were moved to this revision, or stay where they were.
    DataMoved { agent: AgentName, number: u64, result: Result<(), MoveError> },
    /// A copy of the state in the format of this revision was saved for this rollout.
    StateSaved { agent: AgentName, number: u64, rollout: u64, result: Result<(), String> },
    /// The copy of the state in the format of this revision was restored.
    StateRestored { agent: AgentName, number: u64, result: Result<(), String> },
    /// The positions of messages that were lost during a rollout; `None` if the search failed.
    LossChecked { agent: AgentName, rollout: u64, lost: Option<Vec<u64>> },
    /// A revision whose memory had to be saved first has stopped.
    Stopped { agent: AgentName, number: u64 },
}

impl TaskReport {
    /// Returns the agent that the report concerns.
    pub(super) fn agent(&self) -> &AgentName {
        match self {
            Self::Loaded { agent, .. }
            | Self::Prepared { agent, .. }
            | Self::InstancesStarted { agent, .. }
            | Self::Probed { agent, .. }
            | Self::Rehearsed { agent, .. }
            | Self::CheckpointsPaused { agent, .. }
            | Self::DataMoved { agent, .. }
            | Self::StateSaved { agent, .. }
            | Self::StateRestored { agent, .. }
            | Self::LossChecked { agent, .. }
            | Self::Stopped { agent, .. } => agent,
        }
    }
}

/// The failure of a move of data.
pub(super) struct MoveError {
    pub(super) why: String,
    /// Set if the state was changed: the kept copy has to be restored.
    pub(super) unfinished: bool,
}

/// The reason why a revision was not prepared.
pub(super) enum PreparationError {
    /// Its agent was removed meanwhile.
    Cancelled,
    /// The component or its instances failed; the text is for a person.
    Failed(String),
}
