//! The operators' commands for rollouts, and the status of rollouts.

use std::ops::Bound;

use caxton_control::AgentName;
use caxton_control::rollout::Window;
use caxton_control::rollout::{self, InstanceCounts, Rollout, StateCopy, StepMeasurements};

use super::handle::AgentSelection;
use super::managed::ManagedRevision;
use super::reconciler::Reconciler;
use crate::api_types::{RolloutRequest, RolloutStatus, SideStatus};
use crate::store::Store;

impl Reconciler {
    /// Returns the rollouts of one agent, the newest first, or the newest of each of several agents, in order of name.
    pub(super) fn rollouts(&self, agents: &AgentSelection) -> Vec<RolloutStatus> {
        let now = self.now();
        let status = |rollout| status(rollout, self.windows(rollout), now);
        match agents {
            AgentSelection::Named(name) => self
                .ledgers
                .get(name.as_str())
                .into_iter()
                .flat_map(|ledger| ledger.rollouts.iter().rev())
                .map(status)
                .collect(),
            AgentSelection::After { name, count } => {
                let after = (name.as_deref().map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
                let newest = self.ledgers.range::<str, _>(after).filter_map(|(_, ledger)| ledger.rollouts.last());
                newest.take(*count).map(status).collect()
            }
        }
    }

    /// Returns the windows that a rollout under way is judged by; `None` once it has ended.
    fn windows(&self, rollout: &Rollout) -> Option<StepMeasurements> {
        let managed = self.managed.get(&rollout.agent).filter(|_| !rollout.status.is_terminal())?;
        Some(managed.measure(rollout).0)
    }

    /// Carries out a command for a rollout. Returns the status of the rollout after it; `None` if the agent has none.
    pub(super) fn command_rollout(&mut self, request: RolloutRequest) -> Result<Option<RolloutStatus>, String> {
        let RolloutRequest { agent, command, undo, who } = request;
        let now = self.now();
        let known = self.managed.iter_mut().find(|(name, _)| name.as_str() == agent);
        let (name, managed) = known.ok_or_else(|| format!("there is no agent `{agent}`"))?;
        let (Some(wanted), Some(ledger)) = (self.wanted.get(name), self.ledgers.get_mut(name)) else {
            return Err(format!("`{agent}` has no rollout"));
        };
        let (deploy, _) = wanted.spec.rollout.settings(wanted.spec.reload.drain);
        let current = ledger.current().and_then(|side| managed.revisions.iter().find(|r| r.number == side.number));
        let seen = current.map(ManagedRevision::observe);
        let running = seen.as_ref().map_or(0, |seen| seen.instances);
        let instances = InstanceCounts { running, min: wanted.spec.instances.min };
        let stateful = seen.is_some_and(|seen| seen.stateful);
        match command {
            rollout::RolloutCommand::Undo => {
                let kept = kept_states(&self.context.store, name)?;
                ledger.undo(undo, &who, &deploy, instances, stateful, &kept, now)
            }
            _ => ledger.command(command, &who, now),
        }
        .map_err(|why| why.to_string())?;
        if command == rollout::RolloutCommand::Undo
            && let Some(to) = ledger.open().map(|rollout| rollout.to.number)
        {
            // A revision that has ended is started anew, under the same number.
            managed.revisions.retain(|revision| revision.number != to || !revision.state.is_terminal());
        }
        let windows = ledger.open().map(|rollout| managed.measure(rollout).0);
        let result = ledger.rollouts.last().map(|rollout| status(rollout, windows, now));
        let name = name.clone();
        let data = serde_json::json!({ "command": command, "by": who });
        self.context.events.emit(Some(name.as_str()), "rollout.command", data);
        self.plans.mark(&name);
        // Handed to the store before the answer, so that an accepted command is not forgotten.
        self.persist([&name]);
        Ok(result)
    }
}

/// Returns the copies of an agent's state that are kept, the newest first. Blocks while it counts later writes.
fn kept_states(store: &Store, agent: &AgentName) -> Result<Vec<StateCopy>, String> {
    let copies = store.state().copies(agent.as_str())?;
    let kept = copies.into_iter().filter(|copy| !copy.unfinished).map(|copy| {
        let written_since = store.state().written_since(agent.as_str(), copy.revision)?;
        let (revision, keys) = (copy.revision, copy.keys);
        Ok(StateCopy { revision, state_versions: copy.holds.into_iter().collect(), keys, written_since })
    });
    kept.collect()
}

fn side(window: &Window) -> SideStatus {
    SideStatus {
        messages: window.messages,
        failed: window.faults,
        p95_us: window.p95.map(|p95| u64::try_from(p95.at.as_micros()).unwrap_or(u64::MAX)),
        memory_bytes: window.memory_bytes,
    }
}

fn status(rollout: &Rollout, windows: Option<StepMeasurements>, now: u64) -> RolloutStatus {
    let figures = &rollout.stats;
    RolloutStatus {
        agent: rollout.agent.to_string(),
        rollout: rollout.id,
        from: rollout.stable().to_string(),
        to: rollout.candidate().to_string(),
        strategy: rollout.settings.strategy.as_str().to_owned(),
        status: rollout.status.as_str().to_owned(),
        ended: rollout.status.is_terminal(),
        why: rollout.why.clone(),
        step: (rollout.step + 1).min(rollout.steps.len()),
        steps: rollout.steps.len(),
        moved: rollout.has_moved(),
        weight: rollout.weight,
        who: rollout.initiator.clone(),
        began_at: rollout.began,
        took_ms: u64::try_from(rollout.duration(now).as_millis()).unwrap_or(u64::MAX),
        stable_messages: figures.stable_messages,
        candidate_messages: figures.candidate_messages,
        started_instances: figures.started,
        failed_instances: figures.failed,
        peak_memory_bytes: figures.peak_memory_bytes,
        probes_passed: figures.probes_passed,
        probes_failed: figures.probes_failed,
        plan: rollout.steps.iter().map(ToString::to_string).collect(),
        held_conversations: windows.map_or(0, |windows| windows.held_conversations),
        measured: windows.map(|windows| [side(&windows.stable), side(&windows.candidate)]),
        longest_pause_ms: figures.longest_pause_ms,
        lost_messages: figures.lost,
        copies: figures.compared.copies,
        copies_alike: figures.compared.alike,
        copies_set_aside: figures.compared.set_aside,
        rehearsed: figures.rehearsed.copies,
        rehearsed_alike: figures.rehearsed.alike,
        rehearsed_not_compared: figures.rehearsed.set_aside,
    }
}
