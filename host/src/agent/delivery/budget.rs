//! The budget of a tree at the messages and calls of agents: where it begins, what it admits, what a run uses of it.

use std::time::{Duration, Instant};

use caxton_control::AgentName;
use caxton_control::names::BudgetName;

use crate::agent::{AdmitError, Agent};
use crate::budgets::{MessageCharge, OverBudget, Tree, TreeLink, TreeRoot};
use crate::clock;
use crate::message::{Envelope, Fault, Outcome};

impl Agent {
    /// Begins the tree of a message or call that is part of none: with the budget that is named, or else that of the agent.
    pub(crate) fn begin_tree(
        &self,
        named: Option<&BudgetName>,
        id: &str,
        root: impl FnOnce() -> TreeRoot,
    ) -> Option<Tree> {
        let budgets = &self.context.budgets;
        // First: a host without budgets pays for no more than this.
        if !budgets.any() {
            return None;
        }
        match named {
            Some(name) => budgets.begin(name, id, root()),
            None => {
                let spec = self.spec.load();
                budgets.begin(spec.budget.as_ref()?, id, root())
            }
        }
    }

    /// Takes the tree of a message in hand into memory, and checks that its budget has time left for a handler.
    ///
    /// # Errors
    /// The budget has none, or the tree cannot be read now.
    pub(in crate::agent) fn take_tree(&self, envelope: &mut Envelope) -> Result<Option<Tree>, Outcome> {
        let Some(link) = &envelope.tree else { return Ok(None) };
        let found = self.context.find_tree(link);
        let tree = found.map_err(|why| Outcome::NotCommitted(format!("its budget cannot be read: {why}")))?;
        envelope.tree = tree.clone().map(TreeLink::Live);
        if let Some(tree) = &tree {
            tree.check_handler().map_err(|over| Outcome::Fault(Fault::OverBudget(over.to_string())))?;
        }
        Ok(tree)
    }

    /// Counts what a run was on a core, whether it ended well or not.
    pub(in crate::agent) fn charge_run(&self, envelope: &Envelope, cpu: Duration) {
        if let Some(tree) = envelope.tree() {
            tree.add_cpu(&self.name, cpu);
        }
    }
}

/// Attributes a fault for which the budget is the reason: then the agent is not to blame, and no further attempt is made.
pub(in crate::agent) fn explain(envelope: &Envelope, fault: Fault) -> Fault {
    match fault {
        Fault::Cpu { .. } | Fault::Time { .. } | Fault::CallerTimeout { .. } => match envelope.tree() {
            Some(tree) => tree.check_handler().err().map_or(fault, |over| Fault::OverBudget(over.to_string())),
            None => fault,
        },
        other => other,
    }
}

/// Holds a message of an agent from the budget of its tree.
///
/// # Errors
/// The limit that it would pass.
pub(crate) fn charge(
    tree: Option<&Tree>,
    agent: &AgentName,
    due: Option<u64>,
) -> Result<Option<Box<MessageCharge>>, AdmitError> {
    let Some(tree) = tree else { return Ok(None) };
    let wait = due.map_or(Duration::ZERO, |due| Duration::from_millis(due.saturating_sub(clock::steady_ms())));
    tree.admit_message(agent, wait).map(Some).map_err(AdmitError::from)
}

/// Returns what is left of a time until the end of a tree.
pub(in crate::agent) fn time_left(tree: Option<&Tree>, left: Duration) -> Duration {
    let end = tree.and_then(Tree::deadline);
    end.map_or(left, |end| end.saturating_duration_since(Instant::now()).min(left))
}

/// Returns the earlier of a deadline and the end of a tree.
pub(in crate::agent) fn within(tree: Option<&Tree>, deadline: Instant) -> Instant {
    tree.and_then(Tree::deadline).map_or(deadline, |end| end.min(deadline))
}

impl From<OverBudget> for AdmitError {
    fn from(over: OverBudget) -> Self {
        Self::OverBudget(over.to_string())
    }
}
