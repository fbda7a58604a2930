//! Whom to look at, and what came of it: so that a look costs what changed, and not what there is.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, Waiting};
use crate::names::AgentName;
use crate::rollout::Obstacle;

/// What stands of the plans that were made for some agents each.
///
/// Whoever observes marks an agent when something of it changed that a plan goes by; what a plan itself needs to look
/// at later it says. All other agents are as their last plan left them.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    marked: BTreeSet<AgentName>,
    /// Whom to look at when, in milliseconds since 1970: in order of time, and by agent.
    due: BTreeSet<(u64, AgentName)>,
    due_of: BTreeMap<AgentName, u64>,
    /// What is not as declared, and why.
    waiting: BTreeMap<AgentName, Vec<Waiting>>,
    /// Who waits for their turn.
    queued: BTreeSet<AgentName>,
}

impl Standing {
    /// Something of an agent changed.
    pub fn mark(&mut self, name: &AgentName) {
        if !self.marked.contains(name) {
            self.marked.insert(name.clone());
        }
    }

    /// Marks whom time alone changes: what is said of them is of when they were looked at.
    pub fn mark_timed(&mut self) {
        self.marked.extend(self.due_of.keys().cloned());
    }

    /// Whom to look at now. They are not marked any more.
    pub fn take(&mut self, now: u64) -> BTreeSet<AgentName> {
        while let Some((at, name)) = self.due.first()
            && *at <= now
        {
            let name = name.clone();
            self.due.pop_first();
            self.due_of.remove(&name);
            self.marked.insert(name);
        }
        std::mem::take(&mut self.marked)
    }

    /// Takes in the plan that was made for `names` at `now`. Whoever is to act is looked at again.
    pub fn planned(&mut self, names: &BTreeSet<AgentName>, plan: &Plan, now: u64) {
        for name in names {
            self.waiting.remove(name);
            self.queued.remove(name);
            if let Some(at) = self.due_of.remove(name) {
                self.due.remove(&(at, name.clone()));
            }
        }
        for waiting in &plan.waiting {
            self.waiting.entry(waiting.agent.clone()).or_default().push(waiting.clone());
        }
        self.queued.extend(plan.queued.iter().cloned());
        for (name, after) in &plan.look_again {
            // Never before the time that was asked for.
            let after = u64::try_from(after.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
            let at = now.saturating_add(after);
            self.due.insert((at, name.clone()));
            self.due_of.insert(name.clone(), at);
        }
        self.marked.extend(plan.actions.iter().map(|action| action.agent().clone()));
        self.marked.extend(plan.turn_of.iter().cloned());
    }

    /// When to look again although nothing happened, in milliseconds since 1970.
    pub fn look_again_at(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The same of one agent.
    pub fn due_of(&self, name: &AgentName) -> Option<u64> {
        self.due_of.get(name).copied()
    }

    /// Why agents are not as declared, in order of name; of those that wait for their turn only what else there is.
    pub fn waiting(&self) -> &BTreeMap<AgentName, Vec<Waiting>> {
        &self.waiting
    }

    /// What has to be mended before an agent can be as declared; none if nothing has.
    pub fn obstacle(&self, name: &AgentName) -> Option<Obstacle> {
        self.waiting.get(name)?.iter().filter_map(|waiting| waiting.obstacle).min()
    }

    /// Who waits for their turn.
    pub fn queued(&self) -> &BTreeSet<AgentName> {
        &self.queued
    }
}
