//! The check of a file agent by agent, for a file of which only a few agents have changed.
//!
//! Makes of the parts what `check_within` makes of the whole tree, or nothing at all. Errors are those of the whole tree,
//! which has their order, their places and the names for suggestions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ceilings::Ceilings;
use super::consistency::Consistency;
use super::desired::{SharedTables, agent, shared};
use super::error::Location;
use super::findings::Findings;
use super::host_rules::HostRules;
use super::node::{Entry, Node, Source, Table};
use super::policy::Operator;
use crate::desired::{AgentSpec, Desired};
use crate::names::AgentName;

/// The tables that all agents share, checked.
#[derive(Debug)]
pub struct CheckedShared {
    tables: SharedTables,
    ceilings: Ceilings,
    rules: HostRules,
}

impl CheckedShared {
    /// Checks the tree of a file without its agents, like [`check_within`](super::check_within). Returns `None` if it has
    /// errors.
    pub fn check(root: &Node, operator: &Operator) -> Option<Self> {
        let mut findings = Findings::default();
        let (_, tables) = shared(root, operator, &mut findings)?;
        findings.errors.is_empty().then_some(Self { tables, ceilings: findings.ceilings, rules: findings.rules })
    }

    /// Returns `true` if the table of an agent means the same beside these tables as beside the others.
    pub fn is_same(&self, other: &Self) -> bool {
        // All tables and not only those that agents depend on today: a change of the others is rare, and costs a second
        // with a hundred thousand agents.
        self.ceilings == other.ceilings
            && self.rules.files.0 == other.rules.files.0
            && self.rules.tcp.0 == other.rules.tcp.0
            && self.tables.desired == other.tables.desired
            && self.tables.base.has_values_of(&other.tables.base)
    }

    /// Checks the table of one agent, by itself. Returns `None` if it has errors.
    pub fn agent(&self, name: &str, entry: &Entry) -> Option<AgentSpec> {
        let mut findings = Findings {
            ceilings: self.ceilings.clone(),
            rules: self.rules.clone(),
            budgets: self.tables.desired.budgets.keys().cloned().collect(),
            ..Findings::default()
        };
        // What agents say of each other is checked by `desired`, once all are known.
        let mut alone = Consistency::default();
        let spec = agent(name, entry, &Table::new(), &self.tables, &mut alone, &mut findings)?;
        findings.errors.is_empty().then_some(spec)
    }

    /// Returns the declaration with these agents; `None` if they contradict each other. `before` is one that was valid:
    /// with the same names and routes no comparison is made.
    pub fn desired(&self, agents: BTreeMap<AgentName, Arc<AgentSpec>>, before: Option<&Desired>) -> Option<Desired> {
        let is_known = before.is_some_and(|before| has_same_names(&before.agents, &agents));
        if !is_known && !is_consistent(&agents) {
            return None;
        }
        Some(Desired { agents, ..self.tables.desired.clone() })
    }
}

/// Returns `true` if two sets of agents have the same names, capabilities, grants to send and routes.
fn has_same_names(before: &BTreeMap<AgentName, Arc<AgentSpec>>, now: &BTreeMap<AgentName, Arc<AgentSpec>>) -> bool {
    let has_same_routes = |before: &AgentSpec, now: &AgentSpec| {
        before.http.len() == now.http.len()
            && before
                .http
                .iter()
                .zip(&now.http)
                .all(|(one, other)| one.pattern == other.pattern && one.methods == other.methods)
    };
    before.len() == now.len()
        && before.values().zip(now.values()).all(|(before, now)| {
            Arc::ptr_eq(before, now)
                || before.name == now.name
                    && before.capabilities == now.capabilities
                    && before.allow.send == now.allow.send
                    && has_same_routes(before, now)
        })
}

/// Returns `true` if no routes clash, and every grant has its receiver.
fn is_consistent(agents: &BTreeMap<AgentName, Arc<AgentSpec>>) -> bool {
    let mut findings = Findings::default();
    let mut consistency = Consistency::default();
    // Never shown: with an error the whole tree is checked.
    let at = || Location { key: String::new(), source: Source::Default };
    for (name, spec) in agents {
        consistency.agent(name.clone());
        consistency.capabilities(&spec.capabilities);
        spec.allow.send.iter().for_each(|receiver| consistency.grant(receiver.clone(), at()));
        spec.http.iter().for_each(|route| consistency.route(name.as_str(), route, at(), &mut findings));
    }
    consistency.check(&mut findings);
    findings.errors.is_empty()
}
