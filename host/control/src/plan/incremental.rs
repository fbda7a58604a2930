//! The bookkeeping of incremental plans, so that a reconcile cycle costs what changed and not the number of agents.

use std::collections::{BTreeMap, BTreeSet};

use super::{Divergence, Plan};
use crate::names::AgentName;
use crate::rollout::Obstacle;

/// The combined results of plans that each cover some agents, with the agents to plan next.
///
/// The observer marks an agent when something that a plan depends on has changed; a plan itself says what it has to see
/// again later. Every other agent is as its last plan left it.
#[derive(Debug, Clone, Default)]
pub struct IncrementalPlan {
    /// Agents to plan in the next cycle.
    marked: BTreeSet<AgentName>,
    /// Agents to plan at a time in milliseconds since 1970, ordered by time.
    due: BTreeSet<(u64, AgentName)>,
    /// The same entries by agent: each agent has at most one.
    due_of: BTreeMap<AgentName, u64>,
    /// The reasons why agents are not as declared.
    waiting: BTreeMap<AgentName, Vec<Divergence>>,
    /// Agents whose rollout waits for others to end.
    queued: BTreeSet<AgentName>,
}

impl IncrementalPlan {
    /// Marks an agent whose observed state or declaration changed.
    pub fn mark(&mut self, name: &AgentName) {
        // Marks come with every observation, and most are there already: only a new one needs a copy of the name.
        if !self.marked.contains(name) {
            self.marked.insert(name.clone());
        }
    }

    /// Marks the agents whose plan depends on the time, so that the reasons shown to an operator are fresh.
    pub fn mark_timed(&mut self) {
        self.marked.extend(self.due_of.keys().cloned());
    }

    /// Returns the agents to plan in the next cycle.
    pub fn marked(&self) -> &BTreeSet<AgentName> {
        &self.marked
    }

    /// Returns agents to plan at `now`, the first by name and `most` at most, and clears their marks.
    pub fn take_marked(&mut self, now: u64, most: usize) -> BTreeSet<AgentName> {
        while let Some((at, name)) = self.due.first()
            && *at <= now
        {
            let name = name.clone();
            self.due.pop_first();
            self.due_of.remove(&name);
            self.marked.insert(name);
        }
        // Cleared before the plan is made: a change that arrives meanwhile marks the agent again.
        let rest = self.marked.iter().nth(most).cloned().map(|next| self.marked.split_off(&next));
        std::mem::replace(&mut self.marked, rest.unwrap_or_default())
    }

    /// Replaces the results for `names` by a plan made at `now`. Agents with actions are marked again, since their
    /// state is about to change.
    pub fn update(&mut self, names: &BTreeSet<AgentName>, plan: &Plan, now: u64) {
        // Former results are dropped even if the new plan has none for the agent.
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
        // Kept apart from the reasons: the text for it changes with every rollout of the host.
        self.queued.extend(plan.queued.iter().cloned());
        for (name, after) in &plan.recheck {
            // Rounded up: an early plan would find nothing to do and ask for another one at once.
            let after = u64::try_from(after.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
            let at = now.saturating_add(after);
            self.due.insert((at, name.clone()));
            self.due_of.insert(name.clone(), at);
        }
        self.marked.extend(plan.actions.iter().map(|action| action.agent().clone()));
        // The plan did not cover them, and no observation will mark them.
        self.marked.extend(plan.ready_to_begin.iter().cloned());
    }

    /// Returns the time of the next cycle although nothing changed, in milliseconds since 1970.
    pub fn recheck_at(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns that time for one agent.
    pub fn due_of(&self, name: &AgentName) -> Option<u64> {
        self.due_of.get(name).copied()
    }

    /// Returns the reasons why agents are not as declared, by name. Does not cover the wait for other rollouts; see
    /// [`queued`](Self::queued).
    pub fn waiting(&self) -> &BTreeMap<AgentName, Vec<Divergence>> {
        &self.waiting
    }

    /// Returns the obstacle that has to be removed before an agent can be as declared, the most basic one if there are
    /// several.
    pub fn obstacle(&self, name: &AgentName) -> Option<Obstacle> {
        self.waiting.get(name)?.iter().filter_map(|waiting| waiting.obstacle).min()
    }

    /// Returns the agents whose rollout waits for others to end.
    pub fn queued(&self) -> &BTreeSet<AgentName> {
        &self.queued
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_agents_are_taken_in_parts() {
        let names: Vec<AgentName> = ["a", "b", "c", "d", "e"].map(|name| name.parse().unwrap()).to_vec();
        let mut plans = IncrementalPlan::default();
        names.iter().for_each(|name| plans.mark(name));
        let mut taken = Vec::new();
        loop {
            let some = plans.take_marked(0, 2);
            assert!(some.len() <= 2);
            if some.is_empty() {
                break;
            }
            taken.extend(some);
        }
        assert_eq!(taken, names);
        // Marked meanwhile, it is taken again.
        plans.mark(&names[3]);
        assert_eq!(plans.take_marked(0, 5), BTreeSet::from([names[3].clone()]));
    }
}
