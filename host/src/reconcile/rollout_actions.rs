//! The actions of a rollout.

use std::sync::Arc;
use std::time::Duration;

use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::split::Split;
use caxton_control::rollout::{Ledger, Rollout, RolloutAction};
use caxton_control::{AgentName, RevisionId};

use super::managed::ManagedRevision;
use super::preparation::start_instances;
use super::reconciler::Reconciler;
use super::state_conversion::MovedData;
use super::task_report::TaskReport;
use crate::agent::{Revision, Traffic};
use crate::store::Rest;

impl Reconciler {
    /// Carries out one action of a rollout. Returns `true` if the routes have changed.
    pub(super) fn apply_rollout_action(&mut self, action: RolloutAction) -> bool {
        match action {
            RolloutAction::Revive { revision } => self.revive(&revision),
            RolloutAction::Prepare { revision, instances } => self.prepare(&revision, instances),
            RolloutAction::Start { revision, instances } => self.start_more(&revision, instances),
            RolloutAction::Cap { revision, instances } => self.limit_instances(&revision, instances),
            RolloutAction::Probe { revision } => self.probe(&revision),
            RolloutAction::Weigh { stable, candidate, percent } => return self.set_split(&stable, &candidate, percent),
            RolloutAction::Pause { agent } => self.pause_for_handoff(&agent),
            RolloutAction::Resume { agent } => self.pause(&agent, false),
            RolloutAction::Handoff { revision, memory, conversion } => {
                self.move_data(&revision, MovedData::Memory(memory), conversion);
            }
            RolloutAction::Convert { revision, conversion } => {
                self.move_data(&revision, MovedData::State, Some(conversion));
            }
            RolloutAction::TakeBack { revision, conversion } => {
                self.move_data(&revision, MovedData::Earlier, conversion);
            }
            RolloutAction::KeepState { revision } => self.keep_state(&revision),
            RolloutAction::RestoreState { revision } => self.restore_state(&revision),
            RolloutAction::Stop { revision } => return self.stop(&revision),
            RolloutAction::Rehearse { revision, messages } => self.rehearse(&revision, messages),
            RolloutAction::Shadow { revision, on } => self.shadow(&revision, on),
        }
        false
    }

    /// Creates the record of an earlier revision again, for an undo.
    fn revive(&mut self, revision: &RevisionId) {
        let now = self.now();
        let Some(wanted) = self.wanted.get(&revision.agent) else { return };
        let side = self.ledgers.get(&revision.agent).and_then(|ledger| ledger.revision(revision.number));
        let (Some(side), Some(managed)) = (side, self.managed.get_mut(&revision.agent)) else { return };
        let kept = wanted.spec.with_settings(&side.settings);
        let (spec, state) = match kept {
            Some(kept) if kept.same_settings(&wanted.spec) => (Arc::clone(&wanted.spec), RevisionState::Unloaded),
            Some(kept) => (Arc::new(kept), RevisionState::Unloaded),
            // Failed and not left out, so that the undo ends with a reason.
            None => (Arc::clone(&wanted.spec), RevisionState::failed("its settings cannot be read by this version")),
        };
        let mut managed_revision = ManagedRevision::new(side.number, spec, side.digest, now);
        managed_revision.state = state;
        managed.revisions.retain(|managed_revision| managed_revision.number != revision.number);
        managed.revisions.push(managed_revision);
        // The last record counts as the newest attempt.
        managed.revisions.sort_by_key(|revision| revision.number);
    }

    /// Starts more instances.
    fn start_more(&mut self, revision: &RevisionId, instances: u32) {
        self.spawn_work(revision, move |live, id| async move {
            let result = start_instances(&live, instances).await;
            TaskReport::InstancesStarted { agent: id.agent, number: id.number, instances, result }
        });
    }

    /// Calls the `health` of a revision once.
    fn probe(&mut self, revision: &RevisionId) {
        let Some(ledger) = self.ledgers.get(&revision.agent) else { return };
        // The rollout may have ended since the plan; the probe then only needs some bound.
        let time = ledger.open().map_or(Duration::from_secs(5), |rollout| rollout.settings.probe.timeout);
        self.spawn_work(revision, move |live, id| async move {
            let answer = live.pool.probe(time).await;
            if let Some(Err(why)) = &answer {
                tracing::warn!(agent = %id.agent, "a probe of {id} failed: {why}");
            }
            TaskReport::Probed { agent: id.agent, number: id.number, passed: answer.map(|answer| answer.is_ok()) }
        });
    }

    /// Pauses the mailbox of an agent for a handoff, once the store has paused its checkpoints.
    fn pause_for_handoff(&mut self, name: &AgentName) {
        let Some(candidate) = self.ledgers.get(name).and_then(Ledger::open).map(Rollout::candidate) else { return };
        let context = Arc::clone(&self.context);
        self.spawn_work(&candidate, move |_, id| async move {
            // Awaited in a task: a checkpoint under way may take long, and messages are handled meanwhile.
            let rest = context.store.rest().await;
            TaskReport::CheckpointsPaused { agent: id.agent, number: id.number, rest }
        });
    }

    /// Takes in that the store has paused its checkpoints for a handoff.
    pub(super) fn take_checkpoint_pause(&mut self, name: &AgentName, number: u64, rest: Rest) {
        let Some(managed) = self.managed.get_mut(name) else { return };
        if let Some(managed_revision) = managed.revision_mut(number) {
            managed_revision.busy = false;
        }
        let open = self.ledgers.get(name).and_then(Ledger::open);
        // The rollout may have ended or changed meanwhile: then messages go on being handled.
        if managed.retired.is_none()
            && open.is_some_and(|rollout| rollout.to.number == number && rollout.needs_paused_mailbox())
        {
            managed.checkpoint_pause = Some(rest);
            self.pause(name, true);
        }
    }

    /// Starts a task that works on a revision. The plan leaves the revision alone until the task reports.
    pub(super) fn spawn_work<F>(
        &mut self,
        revision: &RevisionId,
        work: impl FnOnce(Arc<Revision>, RevisionId) -> F + Send + 'static,
    ) where
        F: Future<Output = TaskReport> + Send,
    {
        let Some(managed_revision) =
            self.managed.get_mut(&revision.agent).and_then(|managed| managed.revision_mut(revision.number))
        else {
            return;
        };
        let Some(live) = managed_revision.live.clone() else { return };
        managed_revision.busy = true;
        let (id, reports) = (revision.clone(), self.reports.0.clone());
        // A task that panicked would never report, and its revision would stay busy: the guard ends the host instead.
        let guard = self.context.tasks.guard("rollout");
        tokio::spawn(async move {
            let _guard = guard;
            let report = work(live, id).await;
            // The reconciler is gone only when the host stops.
            let _ = reports.send(report).await;
        });
    }

    /// Sets the bound that a rollout puts on the instances of a revision.
    fn limit_instances(&mut self, revision: &RevisionId, instances: Option<u32>) {
        let Some(managed) = self.managed.get_mut(&revision.agent) else { return };
        if let Some(managed_revision) = managed.revision_mut(revision.number) {
            managed_revision.instance_limit = instances;
        }
        managed.bound_instances();
    }

    /// Sends all traffic to a revision.
    pub(super) fn move_all_traffic(&mut self, revision: &RevisionId) -> bool {
        self.set_split(revision, revision, 100)
    }

    /// Splits the traffic and takes the revisions to the states that follow. Returns `true` if the routes have changed.
    fn set_split(&mut self, stable: &RevisionId, candidate: &RevisionId, percent: u8) -> bool {
        let Some(managed) = self.managed.get_mut(&stable.agent) else { return false };
        let live = |number: u64| managed.revisions.iter().find(|r| r.number == number).and_then(|r| r.live.clone());
        let all = |id: &RevisionId| live(id.number).map(Traffic::single);
        let traffic = match percent {
            0 => all(stable),
            100.. => all(candidate),
            _ => live(stable.number).zip(live(candidate.number)).map(|(stable, candidate)| {
                let rollout = self.ledgers.get(&stable.id.agent).and_then(Ledger::open);
                let split = rollout.map(|rollout| Split::new(rollout.id, &rollout.weight_history)).unwrap_or_default();
                Traffic::divided(stable, candidate, split)
            }),
        };
        // A side has ended since the plan. The next pass sees that and plans anew.
        let Some(traffic) = traffic else { return false };
        let before = std::mem::take(&mut managed.shares);
        managed.shares = [(stable.number, 100 - percent), (candidate.number, percent)]
            .into_iter()
            .filter(|(_, share)| *share > 0)
            .collect();
        let (agent, serving) = (Arc::clone(&managed.agent), managed.shares.clone());
        managed.bound_instances();
        // Read before the traffic is set, which makes a revision the current one.
        let (ran, has_capabilities) = (agent.current().is_some(), !agent.spec().capabilities.is_empty());
        agent.set_traffic(Some(traffic));
        let running: Vec<u64> = managed
            .revisions
            .iter()
            .filter(|r| r.state == RevisionState::Running)
            .map(|revision| revision.number)
            .collect();
        let id = |number| RevisionId { agent: stable.agent.clone(), number };
        for (number, _) in serving.iter().filter(|(number, _)| !running.contains(number)) {
            self.transition(&id(*number), RevisionState::Running, None);
        }
        let over = |number: &&u64| !serving.iter().any(|(serves, _)| serves == *number);
        let drained: Vec<u64> = running.iter().filter(over).copied().collect();
        for number in &drained {
            self.transition(&id(*number), RevisionState::Draining, None);
        }
        if before != serving {
            let share = |(number, share): &(u64, u8)| match share {
                100 => format!("{} runs", id(*number)),
                part => format!("{} has {part}%", id(*number)),
            };
            let drains = drained.iter().map(|number| format!("{} drains", id(*number)));
            let changes: Vec<String> = serving.iter().map(share).chain(drains).collect();
            // The first traffic of each agent is logged at a lower level, since a host may start ten thousand.
            if before.is_empty() {
                tracing::debug!(agent = %stable.agent, "{}", changes.join("; "));
            } else {
                tracing::info!(agent = %stable.agent, "{}", changes.join("; "));
            }
        }
        // The routes list the capabilities of running agents only, so that they change with the first revision.
        !ran && has_capabilities
    }
}
