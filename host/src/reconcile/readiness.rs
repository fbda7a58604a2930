//! The readiness of the host, as it follows from its agents.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::{Ledger, Obstacle, RolloutQueue};
use caxton_control::{AgentName, diff};

use super::handle::Readiness;
use super::managed::ManagedAgent;
use super::reconciler::Reconciler;
use crate::api_types::{ApplyResult, WaitingAgent};
use crate::config;

/// The least time between two updates of the published reasons while work is under way: with thousands of waiting
/// agents, writing them takes longer than a pass.
pub(super) const REASONS_INTERVAL: Duration = Duration::from_millis(100);

/// The most agents that are listed as not being as declared. A host at its start has as many as are declared, and writing
/// them all each time takes longer than starting them.
const MAX_WAITING: usize = 1_000;

impl Reconciler {
    /// Updates the summary for agents that were planned for.
    pub(super) fn update_summary(&mut self, names: &BTreeSet<AgentName>) {
        for name in names {
            let managed = self.managed.get(name);
            let settled = managed.is_none_or(|managed| managed.is_settled(self.ledgers.get(name)));
            set_member(&mut self.summary.unsettled, name, !settled);
            let served = managed.is_some_and(|managed| managed.agent.current().is_some());
            set_member(&mut self.summary.unserved, name, self.wanted.contains_key(name) && !served);
            let obstacle = self.plans.obstacle(name).filter(|_| self.wanted.contains_key(name));
            self.set_obstacle(name, obstacle);
            let open = self.ledgers.get(name).and_then(Ledger::open).is_some();
            set_member(&mut self.summary.rolling_out, name, open);
            self.note_unusable(name);
        }
        self.mark_readiness_stale();
    }

    /// Sets or removes the obstacle of an agent. Emits `agent.obstructed` for a new one.
    fn set_obstacle(&mut self, name: &AgentName, obstacle: Option<Obstacle>) {
        let before = match obstacle {
            Some(obstacle) => self.summary.obstructed.insert(name.clone(), obstacle),
            None => self.summary.obstructed.remove(name),
        };
        let Some(obstacle) = obstacle.filter(|now| before != Some(*now)) else { return };
        let whys = self.plans.waiting().get(name).into_iter().flatten().filter(|w| w.obstacle == Some(obstacle));
        let why = whys.map(|waiting| waiting.why.as_str()).collect::<Vec<_>>().join("; ");
        // A rollout that failed was logged when it did. A declaration that is refused before it begins is logged here.
        if matches!(obstacle, Obstacle::Missing | Obstacle::Refused) {
            tracing::warn!(agent = %name, "{why}");
        }
        let data = serde_json::json!({ "obstacle": obstacle.as_str(), "why": why });
        self.context.events.emit(Some(name.as_str()), "agent.obstructed", data);
    }

    /// Compares the host's own settings with those that it was started with.
    pub(super) fn compare_host_settings(&mut self) {
        let host = diff::host(&self.started_with, &self.declared.desired);
        let late = host.into_iter().filter(|change| change.kind == diff::ChangeKind::RestartNeeded);
        self.restart_for = late.map(|change| change.details.join(", ")).collect();
        self.mark_readiness_stale();
    }

    /// Notes whether an agent is unusable, after that has changed outside of a pass.
    pub(super) fn note_unusable(&mut self, name: &AgentName) {
        let is_unusable = self.managed.get(name).is_some_and(ManagedAgent::is_unusable);
        set_member(&mut self.summary.unusable, name, is_unusable);
    }

    /// Requests an update of the published readiness.
    pub(super) fn mark_readiness_stale(&mut self) {
        self.summary.stale_since.get_or_insert_with(Instant::now);
    }

    /// Returns the agents that are not as declared yet, with the reasons: the first [`MAX_WAITING`] by name, and how many
    /// others there are.
    pub(super) fn waiting(&self) -> Vec<WaitingAgent> {
        let reasons = self.plans.waiting().values().flatten();
        let mut all: Vec<WaitingAgent> = reasons.take(MAX_WAITING).map(WaitingAgent::from).collect();
        if !self.plans.queued().is_empty() {
            let turn = self.turn();
            let waits = |name: &AgentName| WaitingAgent { agent: name.to_string(), why: turn.clone(), obstacle: None };
            all.extend(self.plans.queued().iter().take(MAX_WAITING).map(waits));
            // Two sorted lists were joined; a status is read by name.
            all.sort_by(|one, other| one.agent.cmp(&other.agent));
        }
        all.extend(self.summary.unusable.iter().filter_map(|name| {
            let why = self.managed.get(name)?.settings_error.clone()?;
            Some(WaitingAgent { agent: name.to_string(), why, obstacle: None })
        }));
        let count = self.plans.waiting().len() + self.plans.queued().len();
        if all.len() > MAX_WAITING {
            all.truncate(MAX_WAITING);
            let why = format!("{count} agents are not as declared, of which the first {MAX_WAITING} are listed");
            all.push(WaitingAgent { agent: String::new(), why, obstacle: None });
        }
        all.extend(self.restart_for.iter().map(|keys| WaitingAgent {
            agent: String::new(),
            why: format!("the host has to start again for {keys}"),
            obstacle: None,
        }));
        all
    }

    /// Returns the reason for waiting of agents whose rollout is queued; empty if there are none.
    pub(super) fn turn(&self) -> String {
        if self.plans.queued().is_empty() { String::new() } else { self.rollout_queue().waits() }
    }

    /// Returns the rollouts under way, which bound how many more may begin.
    pub(super) fn rollout_queue(&self) -> RolloutQueue {
        // Of those that the last pass has found: a look at the ledgers of all agents takes a part of a second.
        RolloutQueue::of(self.summary.rolling_out.iter().filter_map(|name| self.ledgers.get(name)?.open()))
    }

    /// Publishes the readiness if it may have changed, and answers pending applies once nothing more can be done.
    pub(super) fn publish_readiness(&mut self) {
        let settled = self.summary.unsettled.is_empty() && self.files.again().is_none();
        // Neither a file with errors nor a rollout under way makes the host unready: it still serves, so that it must
        // not be taken out of rotation. Both are among the reasons.
        let ready = self.summary.unserved.is_empty() && self.summary.obstructed.is_empty() && !self.file_is_gone();
        // Only the reasons are held back: a change of `ready` itself is published at once.
        let recent = self.summary.published_at.is_some_and(|at| at.elapsed() < REASONS_INTERVAL);
        if self.summary.stale_since.is_some() && (!recent || settled || ready != self.ready.borrow().ready) {
            (self.summary.stale_since, self.summary.published_at) = (None, Some(Instant::now()));
            let waiting = self.waiting();
            let now = Readiness { ready, in_sync: self.is_in_sync(), reasons: self.reasons(waiting) };
            // Probes and followers must not wake up for an equal value.
            self.ready.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
        }
        // Applies are answered only when nothing more will happen by itself.
        if !settled {
            return;
        }
        self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
        if self.pending_applies.is_empty() {
            return;
        }
        let (waiting, settled) = (self.waiting(), self.is_as_declared());
        for (answer, changes) in std::mem::take(&mut self.pending_applies) {
            let applied = ApplyResult { changes, settled, waiting: waiting.clone() };
            // The caller may have gone away.
            let _ = answer.send(Ok(applied));
        }
    }

    /// Returns `true` if the declaration file cannot be read at all.
    fn file_is_gone(&self) -> bool {
        self.file_errors.iter().any(|error| config::is_unreadable(&error.code))
    }

    fn reasons(&self, waiting: Vec<WaitingAgent>) -> Vec<String> {
        let mut reasons: Vec<String> =
            self.file_errors.iter().map(|e| format!("{}: {}: {}", e.place, e.key, e.message)).collect();
        if !reasons.is_empty() {
            // First, because it explains all others.
            reasons.insert(0, format!("{} has errors, so what runs differs from it", self.source.file.display()));
        }
        reasons.extend(
            waiting.into_iter().map(|w| if w.agent.is_empty() { w.why } else { format!("{}: {}", w.agent, w.why) }),
        );
        reasons
    }
}

/// Adds a name to a set or removes it. Most are there already, so that a copy is saved.
fn set_member(names: &mut BTreeSet<AgentName>, name: &AgentName, belongs: bool) {
    if !belongs {
        names.remove(name);
    } else if !names.contains(name) {
        names.insert(name.clone());
    }
}

impl ManagedAgent {
    /// Returns `true` if a setting cannot act on what runs, or what runs violates the policy.
    fn is_unusable(&self) -> bool {
        self.settings_error.is_some() || self.policy_error.is_some()
    }

    /// Returns `true` if no work is under way that will end by itself soon. Drains do not count, nor do rollouts that
    /// wait for time, messages or people.
    fn is_settled(&self, ledger: Option<&Ledger>) -> bool {
        if let Some(rollout) = ledger.and_then(Ledger::open) {
            return !rollout.is_working();
        }
        !self.paused
            && self.revisions.iter().all(|revision| match revision.state {
                RevisionState::Unloaded | RevisionState::Loaded | RevisionState::Ready => false,
                RevisionState::Running
                | RevisionState::Draining
                | RevisionState::Stopped
                | RevisionState::Failed { .. } => true,
            })
    }
}
