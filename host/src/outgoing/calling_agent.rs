//! The agent that makes a call over HTTP.

use std::sync::Arc;

use caxton_control::place::CallPlace;
use caxton_control::{AgentName, AgentSpec};

use super::report::OnNote;
use crate::budgets::{CallCharge, ChargeRefusal, Tree};
use crate::message::{CallJournal, HttpCallError};
use crate::telemetry::trace::Trace;

/// The agent that makes a call, and its message.
pub(crate) struct CallingAgent {
    /// The name.
    pub(crate) name: AgentName,
    /// The settings, with the grants.
    pub(crate) spec: Arc<AgentSpec>,
    /// The time by which the message has to end.
    pub(crate) deadline: std::time::Instant,
    /// The trace of the message.
    pub(crate) trace: Option<Trace>,
    /// The journal of the message's calls.
    pub(crate) calls: Option<Arc<CallJournal>>,
    /// Gets what the journal has to tell of a call.
    pub(crate) on_note: OnNote,
    /// The tree of the message, if that has a budget.
    pub(crate) tree: Option<Tree>,
}

impl CallingAgent {
    /// Takes a call from the budget.
    pub(super) async fn charge(&self, place: &CallPlace) -> Result<Option<Arc<CallCharge>>, HttpCallError> {
        let Some(tree) = &self.tree else { return Ok(None) };
        match tree.begin_call(&self.name, place.meter()).await {
            Ok(charge) => Ok(Some(charge)),
            Err(ChargeRefusal::Over(over)) => Err(HttpCallError::OverBudget(over.to_string())),
            Err(failed @ ChargeRefusal::NotReserved(_)) => Err(HttpCallError::Configuration(failed.to_string())),
        }
    }
}
