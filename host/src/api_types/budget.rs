//! Shapes of budgets and their use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All that followed from one message or call, with what it has used of its budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct BudgetUse {
    /// The id of the message or call that it began with.
    pub(crate) id: String,
    /// The name of the budget.
    pub(crate) budget: String,
    /// The conversation of that message or call.
    pub(crate) conversation: String,
    /// The time at which it began, in milliseconds since 1970.
    pub(crate) began_at: u64,
    /// The time of the latest use that is stored, in milliseconds since 1970; null if none is yet.
    pub(crate) last_at: Option<u64>,
    /// Set once something was refused.
    pub(crate) exceeded: bool,
    /// The limits. What is not limited is null.
    pub(crate) limits: BudgetLimits,
    /// The use of all agents.
    pub(crate) used: AgentUse,
    /// The units that are reserved for calls under way, by name.
    pub(crate) reserved: BTreeMap<String, u64>,
    /// The use by agent.
    pub(crate) agents: BTreeMap<String, AgentUse>,
}

/// The limits of a budget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct BudgetLimits {
    pub(crate) messages: Option<u64>,
    pub(crate) calls: Option<u64>,
    pub(crate) bytes: Option<u64>,
    /// The time of handlers on a core, in microseconds.
    pub(crate) cpu_us: Option<u64>,
    /// The time since the beginning, in microseconds.
    pub(crate) time_us: Option<u64>,
    /// The units by name.
    pub(crate) units: BTreeMap<String, u64>,
}

/// The use of one agent, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct AgentUse {
    /// Messages sent.
    pub(crate) messages: u64,
    /// Calls over HTTP.
    pub(crate) calls: u64,
    /// Bytes of the bodies of calls, in both directions.
    pub(crate) bytes: u64,
    /// The time of handlers on a core, in microseconds.
    pub(crate) cpu_us: u64,
    /// The units by name.
    pub(crate) units: BTreeMap<String, u64>,
}
