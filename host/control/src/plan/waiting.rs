//! Why something is not as declared.

use serde::Serialize;

use crate::names::AgentName;
use crate::rollout::Obstacle;

/// Something that is not as declared yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Whose.
    pub agent: AgentName,
    /// For what, for a person to read.
    pub why: String,
    /// What has to be mended first; none where the host goes on by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<Obstacle>,
}
