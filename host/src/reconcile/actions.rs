//! The actions of a plan, and the reports of the tasks that carry them out.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::lifecycle::RevisionState;
use caxton_control::plan::Action;
use caxton_control::rollout::{Ledger, ProbeResults};
use caxton_control::{AgentName, AgentSpec, Digest, RevisionId, revision_settings};

use super::managed::ManagedRevision;
use super::reconciler::Reconciler;
use super::task_report::{PreparationError, TaskReport};
use crate::agent::{Revision, Traffic};
use crate::wasm::Kind;

impl Reconciler {
    /// Carries out one action. Returns `true` if the routes have changed.
    pub(super) fn apply(&mut self, action: Action) -> bool {
        match action {
            Action::Create { agent, digest, spec } => {
                self.create(&agent, digest, spec);
                false
            }
            Action::Configure { agent, spec } => {
                if let Some(managed) = self.managed.get_mut(&agent) {
                    managed.agent.configure(spec);
                    managed.apply_settings();
                }
                true
            }
            Action::Switch { revision } => self.move_all_traffic(&revision),
            Action::Roll(action) => self.apply_rollout_action(action),
            Action::Retire { agent } => self.retire(&agent),
            Action::Restore { agent } => self.restore(&agent),
            Action::Forget { agent } => {
                self.forget(&agent);
                true
            }
        }
    }

    fn create(&mut self, name: &AgentName, digest: Digest, spec: Arc<AgentSpec>) {
        let now = self.now();
        let known = self.ledgers.get(name).map_or(0, Ledger::last_number);
        let Some(managed) = self.managed.get_mut(name) else { return };
        let mut is_stored = false;
        let next = managed.next_number.unwrap_or_else(|| {
            let last = self.context.store.rollouts().last_revision(name.as_str()).unwrap_or_else(|error| {
                tracing::error!(agent = %name, error, "an agent's last revision cannot be read; its numbers start at 1 again");
                is_stored = true;
                None
            });
            // The same bytes and settings as before a restart of the host are the same revision.
            last.map_or(1, |(number, kept, before)| {
                let same = kept == digest.to_string() && revision_settings::normalize(&before) == spec.revision_settings();
                is_stored = same;
                if same { number } else { number + 1 }
            })
        });
        // The store has just been asked, and need not be once more when the revision is prepared.
        let is_new = managed.next_number.is_none() && !is_stored;
        // A number in the ledger belongs to a revision that has ended and is not used again.
        let number = next.max(known + 1);
        managed.next_number = Some(number + 1);
        // Of the revisions that have ended only the newest is shown, and that is no longer any of these.
        managed.revisions.retain(|revision| !revision.state.is_terminal());
        // Most agents have one, and room for four takes more than all else of it.
        managed.revisions.reserve_exact(1);
        managed.revisions.push(ManagedRevision { is_new, ..ManagedRevision::new(number, spec, digest, now) });
    }

    pub(super) fn pause(&mut self, name: &AgentName, paused: bool) {
        if let Some(managed) = self.managed.get_mut(name) {
            if paused {
                managed.paused_since.get_or_insert_with(Instant::now);
            } else if let Some(since) = managed.paused_since.take() {
                let pause = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                managed.longest_pause_ms = managed.longest_pause_ms.max(pause);
            }
            managed.paused = paused;
            if !paused {
                // Dropping it resumes the checkpoints, which only the paused mailbox had to be spared.
                managed.checkpoint_pause = None;
            }
            // A handoff waits until the revision is idle, which wakes nothing unless it is asked to.
            if let Some(current) = managed.agent.current() {
                current.wake_when_idle(paused);
            }
            managed.agent.set_handoff_paused(paused);
        }
    }

    pub(super) fn stop(&mut self, revision: &RevisionId) -> bool {
        let Some(managed) = self.managed.get_mut(&revision.agent) else { return false };
        let (agent, agent_current) = (Arc::clone(&managed.agent), managed.agent.current());
        let Some(managed_revision) = managed.revision_mut(revision.number) else { return false };
        let Some(live) = managed_revision.live.clone() else {
            // It was never started, so that there is nothing to stop.
            let to = if managed_revision.state.can_stop() {
                RevisionState::Stopped
            } else {
                RevisionState::failed("superseded")
            };
            // A state that cannot stop has to fail, since the states allow no other end.
            self.transition(revision, to, Some("superseded"));
            self.forget_revision(revision);
            return false;
        };
        // It is idle, or its time limit has passed: then its remaining work is broken off.
        live.interrupt();
        let current = agent_current.filter(|current| current.id.number != revision.number);
        let taken_over = current.is_some_and(|current| current.kind() == Kind::Stateful);
        if live.kind() == Kind::Stateful && !taken_over {
            // Its memory is saved for a later revision, or for the agent if it is declared again. After a handoff there
            // is no instance of it any more, and nothing to save.
            managed_revision.busy = true;
            let (name, number, reports) = (revision.agent.clone(), revision.number, self.reports.0.clone());
            let guard = self.context.tasks.guard("save");
            tokio::spawn(async move {
                let _guard = guard;
                if let Err(why) = agent.save_last(&live).await {
                    tracing::error!(agent = %name, why, "an agent's memory was not saved");
                }
                live.stop();
                let _ = reports.send(TaskReport::Stopped { agent: name, number }).await;
            });
            return false;
        }
        live.stop();
        self.transition(revision, RevisionState::Stopped, None);
        self.forget_revision(revision);
        false
    }

    /// Removes the record of a revision that has ended. As the newest one it would count as the latest attempt, and a
    /// declaration that returns to its settings would wait for ever.
    fn forget_revision(&mut self, revision: &RevisionId) {
        if let Some(managed) = self.managed.get_mut(&revision.agent) {
            managed.revisions.retain(|managed_revision| managed_revision.number != revision.number);
        }
    }

    /// Takes a revision to another state and emits `revision.state`.
    pub(super) fn transition(&mut self, revision: &RevisionId, to: RevisionState, reason: Option<&str>) {
        let now = self.now();
        let Some(managed_revision) =
            self.managed.get_mut(&revision.agent).and_then(|managed| managed.revision_mut(revision.number))
        else {
            return;
        };
        match managed_revision.state.transition(to) {
            Ok(to) => {
                let from = std::mem::replace(&mut managed_revision.state, to);
                managed_revision.since = now;
                if let Some(live) = &managed_revision.live {
                    live.wake_when_idle(managed_revision.state == RevisionState::Draining);
                }
                let reason = match &managed_revision.state {
                    RevisionState::Failed { reason } => Some(reason.as_str()),
                    _ => reason,
                };
                let (from, to) = (from.to_string(), managed_revision.state.to_string());
                let runs = managed_revision.state == RevisionState::Running;
                self.context.emit_state(revision.agent.as_str(), revision.number, &from, &to, reason);
                if let (true, Some(managed)) = (runs, self.managed.get_mut(&revision.agent)) {
                    managed.recheck_settings();
                    // The rules may have changed since it was prepared.
                    self.recheck_policy(&revision.agent);
                }
            }
            // A defect in the plan. The state stays as it is, so that what runs goes on.
            Err(error) => tracing::error!(%revision, %error, "a step was not taken"),
        }
    }

    /// Takes in the report of a task.
    pub(super) fn take_report(&mut self, report: TaskReport) {
        self.plans.mark(report.agent());
        match report {
            TaskReport::Loaded { agent, number } => {
                self.transition(&RevisionId { agent, number }, RevisionState::Loaded, None);
            }
            TaskReport::Prepared { agent, number, result } => self.take_prepared(&RevisionId { agent, number }, result),
            TaskReport::InstancesStarted { agent, number, instances, result } => {
                let id = RevisionId { agent, number };
                if let Some(managed_revision) =
                    self.managed.get_mut(&id.agent).and_then(|managed| managed.revision_mut(number))
                {
                    managed_revision.busy = false;
                    // Never lowered: idle instances that ended since were started nevertheless.
                    managed_revision.started = managed_revision.started.max(instances);
                    managed_revision.failures += u64::from(result.is_err());
                }
                if let Err(why) = result {
                    self.fail(&id, &why);
                }
            }
            TaskReport::Probed { agent, number, passed } => {
                let now = self.now();
                if let Some(managed_revision) =
                    self.managed.get_mut(&agent).and_then(|managed| managed.revision_mut(number))
                {
                    managed_revision.busy = false;
                    // Counted even if no instance was free, so that the next probe keeps its interval.
                    managed_revision.count_probe(passed, now);
                }
            }
            TaskReport::Rehearsed { agent, number, rollout, result } => {
                self.take_rehearsal(&agent, number, rollout, result);
            }
            TaskReport::CheckpointsPaused { agent, number, rest } => self.take_checkpoint_pause(&agent, number, rest),
            TaskReport::DataMoved { agent, number, result } => {
                self.take_data_move(&RevisionId { agent, number }, result);
            }
            TaskReport::StateSaved { agent, number, rollout, result } => {
                self.take_saved_state(&RevisionId { agent, number }, rollout, result);
            }
            TaskReport::StateRestored { agent, number, result } => {
                self.take_restored_state(&RevisionId { agent, number }, result);
            }
            TaskReport::LossChecked { agent, rollout, lost } => self.take_loss_check(&agent, rollout, lost),
            TaskReport::Stopped { agent, number } => {
                let id = RevisionId { agent, number };
                self.transition(&id, RevisionState::Stopped, None);
                if let Some(managed_revision) =
                    self.managed.get_mut(&id.agent).and_then(|managed| managed.revision_mut(number))
                {
                    managed_revision.busy = false;
                    // Kept until the report, because the task saves the memory of its instance.
                    managed_revision.live = None;
                }
            }
        }
    }

    /// Takes in that a revision is ready with a number of instances, or has failed.
    fn take_prepared(&mut self, id: &RevisionId, result: Result<(Arc<Revision>, u32), PreparationError>) {
        self.preparations.ended();
        let Some(managed_revision) =
            self.managed.get_mut(&id.agent).and_then(|managed| managed.revision_mut(id.number))
        else {
            return;
        };
        (managed_revision.busy, managed_revision.preparing) = (false, None);
        match result {
            // As if it had not begun: an agent that is declared again meanwhile begins another.
            Err(PreparationError::Cancelled) => {
                self.transition(id, RevisionState::failed("its agent was removed"), None);
                self.forget_revision(id);
            }
            Ok((live, started)) => {
                managed_revision.probes = live.pool.program.summary.health.then(ProbeResults::default);
                (managed_revision.live, managed_revision.started) = (Some(live), started);
                if let Some(managed) = self.managed.get_mut(&id.agent) {
                    // The declaration may have changed since the preparation began.
                    managed.apply_settings();
                }
                self.transition(id, RevisionState::Ready, None);
            }
            Err(PreparationError::Failed(why)) => {
                // Compiled already, so that an instance has failed and not the component.
                managed_revision.failures += u64::from(managed_revision.state == RevisionState::Loaded);
                self.fail(id, &why);
            }
        }
    }

    /// Fails revisions whose instances repeatedly failed to start (SPEC §7, supervision).
    pub(super) fn fail_given_up(&mut self) {
        // Of marked agents only: a pool that gives up marks its agent, and a look at all of them at each pass would make
        // the start of many agents quadratic.
        let given_up: Vec<(RevisionId, String)> = self
            .plans
            .marked()
            .iter()
            .filter_map(|name| Some((name, self.managed.get(name)?)))
            .flat_map(|(name, managed)| managed.revisions.iter().map(move |revision| (name, revision)))
            .filter(|(_, revision)| !revision.state.is_terminal())
            .filter_map(|(name, revision)| {
                let why = revision.live.as_ref()?.pool.given_up()?;
                Some((RevisionId { agent: name.clone(), number: revision.number }, why.to_owned()))
            })
            .collect();
        let any = !given_up.is_empty();
        for (id, why) in given_up {
            self.plans.mark(&id.agent);
            // Before the failure ends the revision, so that no message is routed to it in between.
            self.withdraw_traffic(&id);
            self.fail(&id, &why);
        }
        if any {
            // At once: a failed revision must not receive any more messages.
            self.publish();
        }
    }

    /// Withdraws all traffic from a failed revision. Another one with traffic gets all of it; otherwise messages wait.
    pub(super) fn withdraw_traffic(&mut self, id: &RevisionId) {
        let Some(managed) = self.managed.get_mut(&id.agent) else { return };
        let other = managed.agent.serving().into_iter().find(|serving| serving.id.number != id.number);
        if managed.shares.iter().any(|(number, _)| *number == id.number) {
            managed.shares = other.iter().map(|other| (other.id.number, 100)).collect();
            managed.agent.set_traffic(other.map(Traffic::single));
        }
    }

    pub(super) fn fail(&mut self, id: &RevisionId, why: &str) {
        let runs = self.managed.get(&id.agent).and_then(|managed| managed.agent.current());
        match runs {
            Some(running) => tracing::error!(agent = %id.agent, "{id} failed: {why}; {} goes on", running.id),
            None => tracing::error!(agent = %id.agent, "{id} failed: {why}"),
        }
        if let Some(managed_revision) =
            self.managed.get_mut(&id.agent).and_then(|managed| managed.revision_mut(id.number))
            && let Some(live) = managed_revision.live.take()
        {
            live.stop();
        }
        self.transition(id, RevisionState::failed(why), None);
    }
}
