//! The reason why an agent is not as declared.

use serde::Serialize;

use crate::names::AgentName;
use crate::rollout::Obstacle;

/// An agent that is not as declared yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Divergence {
    /// The agent.
    pub agent: AgentName,
    /// The reason, for people to read.
    pub why: String,
    /// The obstacle to remove first; `None` if the host will get there on its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
}
