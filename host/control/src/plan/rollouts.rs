//! The plan for agents that are declared and do not leave: declarations, rollouts, and the revisions to end.

use std::collections::{BTreeMap, BTreeSet};

use super::{ActualAgent, OpenRollouts, Plan, PresentAgents};
use crate::names::AgentName;
use crate::rollout::{self, Ledger, ObservedRevision, RolloutQueue, Status, collect_garbage};

/// The bound on rounds of one plan: rollouts that begin and end without pause would otherwise loop for ever.
const MAX_ROUNDS: usize = 10;

impl Plan {
    /// Advances each agent towards its declaration, and the open rollouts as far as it is their turn.
    pub(super) fn advance_rollouts(
        &mut self,
        present: &PresentAgents<'_>,
        ledgers: &mut BTreeMap<AgentName, Ledger>,
        open: &OpenRollouts<'_>,
        now: u64,
    ) {
        let mut names: Vec<&AgentName> = present.keys().copied().collect();
        // Replaced in each round; kept after the last one, to tell whose turn came up meanwhile.
        let mut queue = RolloutQueue::default();
        // Again for agents whose rollout ended, since the declaration may differ from its result.
        for _ in 0..MAX_ROUNDS {
            let mut again = Vec::new();
            for name in &names {
                let (wanted, agent) = &present[*name];
                let ledger = ledgers.entry((*name).clone()).or_insert_with(|| Ledger::new((*name).clone()));
                let (before, was_open) = (ledger.fingerprint(), ledger.open().is_some());
                self.follow(wanted, agent, ledger, now);
                self.note_change(ledger, &before);
                if was_open && ledger.open().is_none() {
                    again.push(*name);
                }
            }
            queue = open.queue(ledgers);
            again.extend(self.observe(&names, &queue, present, ledgers, now));
            again.sort();
            names = again;
            if names.is_empty() {
                break;
            }
        }
        for (name, (_, agent)) in present {
            // Without a current revision the first one is being brought up, and there is nothing to end.
            if let Some(ledger) = ledgers.get(*name).filter(|ledger| ledger.current().is_some()) {
                self.collect_garbage(agent, ledger, now);
            }
        }
        // Rollouts that began or ended here may have changed whose turn it is.
        let after = open.queue(ledgers);
        let seen = |name: &&AgentName| present.contains_key(name) && queue.may_begin().contains(name);
        self.ready_to_begin = after.may_begin().iter().filter(|name| !seen(name)).cloned().collect();
    }

    fn note_change(&mut self, ledger: &Ledger, before: &rollout::LedgerFingerprint) {
        if ledger.fingerprint() != *before {
            self.changed.insert(ledger.agent.clone());
        }
    }

    /// Advances the open rollouts whose turn it is, in the order in which they were requested. Returns the agents whose
    /// rollout ended.
    fn observe<'a>(
        &mut self,
        names: &[&'a AgentName],
        queue: &RolloutQueue,
        present: &PresentAgents<'a>,
        ledgers: &mut BTreeMap<AgentName, Ledger>,
        now: u64,
    ) -> Vec<&'a AgentName> {
        let mut ended = BTreeSet::new();
        let asked = |name: &&'a AgentName| ledgers.get(*name)?.open().map(|open| (rollout::queue_key(open).0, *name));
        let mut open: Vec<(u64, &AgentName)> = names.iter().filter_map(asked).collect();
        // Oldest first, so that none is overtaken when a place becomes free.
        open.sort();
        for (_, name) in open {
            let ((wanted, agent), Some(ledger)) = (&present[name], ledgers.get_mut(name)) else { continue };
            let waits = ledger.open().is_some_and(|open| open.status == Status::Pending);
            if waits && !queue.may_begin().contains(name) {
                // Until the rollout begins, the former revision is kept up, also right after the host's start.
                self.keep_running(wanted, agent, ledger, false, now);
                self.queued.insert(name.clone());
                continue;
            }
            let before = ledger.fingerprint();
            if let Some(rollout) = ledger.open_mut() {
                let seen = agent.observation(rollout.from.number, rollout.to.number);
                let decision = rollout.observe(&seen, now);
                self.add_decision(name, decision);
            }
            ledger.settle(now);
            self.note_change(ledger, &before);
            if ledger.open().is_none() {
                ended.insert(name);
            }
        }
        // The reasons given during the rollout no longer hold; the next round finds the new ones. Once for all that
        // ended: thousands may, and each has looked at all reasons otherwise.
        if !ended.is_empty() {
            self.waiting.retain(|waiting| !ended.contains(&waiting.agent));
        }
        ended.into_iter().collect()
    }

    /// Ends revisions that neither serve nor take part in a rollout.
    fn collect_garbage(&mut self, agent: &ActualAgent, ledger: &Ledger, now: u64) {
        let (name, open) = (&ledger.agent, ledger.open());
        let current = ledger.current().map(|side| side.number);
        // The usual state of a host at rest: spares the copies below for each agent.
        if open.is_none() && !agent.paused && agent.revisions.iter().all(|revision| Some(revision.number) == current) {
            return;
        }
        let mut in_use: Vec<u64> = current.into_iter().collect();
        in_use.extend(open.iter().flat_map(|rollout| [rollout.from.number, rollout.to.number]));
        let revisions: Vec<(u64, ObservedRevision)> =
            agent.revisions.iter().map(|r| (r.number, r.seen.clone())).collect();
        let drain = agent.applied.reload.drain;
        self.add_decision(
            name,
            collect_garbage(
                name,
                &revisions,
                &in_use,
                agent.paused && !agent.conversion.unfinished,
                open.is_none(),
                drain,
                now,
            ),
        );
    }
}
