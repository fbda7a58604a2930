//! The agents that are not as declared yet.

use caxton_control::plan;
use serde::{Deserialize, Serialize};

/// An agent that is not as declared yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Waiting)]
pub(crate) struct WaitingAgent {
    /// The agent's name.
    pub(crate) agent: String,
    /// The reason, for a person.
    pub(crate) why: String,
    /// `missing` (its component), `failed` (it never became ready) or `refused` (it was rolled back, or ended by hand)
    /// if it needs a person to go on; null if the host goes on by itself.
    #[serde(default)]
    pub(crate) obstacle: Option<String>,
}

impl From<&plan::Divergence> for WaitingAgent {
    fn from(waiting: &plan::Divergence) -> Self {
        let plan::Divergence { agent, why, obstacle } = waiting;
        let obstacle = obstacle.map(|obstacle| obstacle.as_str().to_owned());
        Self { agent: agent.to_string(), why: why.clone(), obstacle }
    }
}
