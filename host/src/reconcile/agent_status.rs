//! The status of the host and its agents, as the API returns it.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caxton_control::AgentName;
use caxton_control::desired::RouteSpec;
use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::{Ledger, Status};

use super::managed::ManagedAgent;
use super::reconciler::Reconciler;
use crate::agent::Counts;
use crate::api_types::{AgentStatus, HostStatus, RevisionStatus};
use crate::clock;
use crate::wasm::Kind;

impl Reconciler {
    /// Returns `true` if an agent only waits for the end of a rollout whose candidate has all traffic already.
    fn only_finishes(&self, name: &str) -> bool {
        let open = self.ledgers.get(name).and_then(Ledger::open);
        let reasons = self.plans.waiting().get(name).map_or(0, Vec::len);
        // Any second reason is a difference of its own.
        reasons == 1 && open.is_some_and(|rollout| rollout.status == Status::InProgress && rollout.has_moved())
    }

    /// Returns `true` if the running state matches the declaration.
    pub(super) fn is_in_sync(&self) -> bool {
        let waiting = self.plans.waiting().keys().chain(self.plans.queued());
        self.file_errors.is_empty()
            && self.policy.errors.is_empty()
            && self.restart_for.is_empty()
            && waiting.map(AgentName::as_str).all(|name| self.only_finishes(name))
            && self.summary.unusable.is_empty()
    }

    /// Returns the status of the host.
    pub(super) fn status(&self) -> HostStatus {
        let (waiting, in_sync) = (self.waiting(), self.is_in_sync());
        HostStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            file: self.source.file.display().to_string(),
            started_at: self.facts.started_at,
            http: self.facts.http.clone(),
            admin: self.facts.admin.clone(),
            // The published value, so that the status never contradicts the probe.
            ready: self.ready.borrow().ready,
            in_sync,
            file_errors: self.policy.errors.iter().chain(&self.file_errors).cloned().collect(),
            waiting,
            instances: self.runtime.live(),
            max_instances: self.runtime.instances(),
            engines: self.runtime.engines().into_iter().map(|kind| kind.name().to_owned()).collect(),
            stopping: self.facts.stopping,
            memory: self.context.memory_status(),
        }
    }

    /// Returns the status of agents after a name, in order of name, and at most `count` of them.
    pub(super) fn agents_after(&self, name: Option<&str>, count: usize) -> Vec<AgentStatus> {
        let turn = self.turn();
        let after = (name.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let wanted = self.wanted.range::<str, _>(after).map(|(name, _)| name).take(count);
        let leaving = self.managed.range::<str, _>(after).map(|(name, _)| name);
        let leaving = leaving.filter(|name| !self.wanted.contains_key(*name)).take(count);
        let mut names: Vec<&AgentName> = wanted.chain(leaving).collect();
        // Two sorted lists were chained: declared agents, and those that are being removed.
        names.sort_unstable();
        names.into_iter().take(count).filter_map(|name| self.agent_status(name.as_str(), &turn)).collect()
    }

    /// Returns the status of an agent that is declared or still drains. `turn` is the reason given for a rollout that
    /// is queued behind others.
    pub(super) fn agent_status(&self, name: &str, turn: &str) -> Option<AgentStatus> {
        let managed = self.managed.get(name);
        let spec = self.wanted.get(name).map(|wanted| Arc::clone(&wanted.spec));
        // An agent that is being removed is not wanted any more and still has its last settings.
        let spec = spec.or_else(|| managed.map(|managed| managed.agent.spec()))?;
        let mut why: Vec<String> =
            self.plans.waiting().get(name).into_iter().flatten().map(|w| w.why.clone()).collect();
        if self.plans.queued().contains(name) {
            why.push(turn.to_owned());
        }
        why.extend(managed.and_then(|managed| managed.settings_error.clone()));
        why.extend(managed.and_then(|managed| managed.policy_error.clone()));
        let current = managed.and_then(|managed| managed.agent.current());
        let counts = managed.map(|managed| managed.agent.stats().counts());
        let sum = |get: fn(&Counts) -> u64| counts.as_ref().map_or(0, get);
        let mailbox = managed.map(|managed| managed.agent.mailbox_figures());
        Some(AgentStatus {
            name: name.to_owned(),
            state: state(managed, current.is_some()).to_owned(),
            revision: current.as_ref().map(|current| current.id.to_string()),
            digest: current.as_ref().map(|current| current.digest.to_string()),
            kind: current.as_ref().map(|current| current.kind().to_string()),
            component: spec.component.clone(),
            instances: managed.map_or(0, |managed| managed.live_revisions().map(|live| live.pool.live()).sum()),
            max_instances: current.as_ref().map_or(spec.instances.max, |current| current.pool.max()),
            started_instances: current.as_ref().map_or(0, |current| current.pool.started()),
            reuse: current.as_ref().and_then(|current| current.pool.reuse()),
            restarts_in_ms: current
                .as_ref()
                .and_then(|current| current.pool.pausing())
                .map(|until| until.saturating_sub(clock::steady_ms())),
            in_flight: managed.map_or(0, |managed| managed.live_revisions().map(|live| live.in_flight()).sum()),
            mailbox_depth: mailbox.map_or(0, |mailbox| mailbox.depth),
            mailbox_bound: mailbox.map_or(spec.mailbox.depth, |mailbox| mailbox.bound),
            accepted: sum(|counts| counts.accepted),
            handled: sum(|counts| counts.handled),
            failed: sum(|counts| counts.failed),
            refused: sum(|counts| counts.refused),
            retries: sum(|counts| counts.retries),
            runs: sum(|counts| counts.runs),
            conflicts: sum(|counts| counts.conflicts),
            later: mailbox.map_or(0, |mailbox| mailbox.deferred),
            timers: mailbox.map_or(0, |mailbox| mailbox.timers),
            held: mailbox.is_some_and(|mailbox| mailbox.operator_paused),
            breaker: mailbox.map_or("closed", |mailbox| mailbox.breaker).to_owned(),
            opening: managed.and_then(|managed| managed.agent.opening()),
            // Counted in the store, which must not hold up this task: the API adds the number.
            dead_letters: 0,
            state_bytes: managed.map_or(0, |managed| managed.agent.state_bytes().load(Ordering::Relaxed)),
            memory: managed
                .filter(|_| current.as_ref().is_some_and(|current| current.kind() == Kind::Stateful))
                .map(|managed| managed.agent.memory_status()),
            routes: spec.http.iter().map(route_text).collect(),
            capabilities: spec.capabilities.iter().map(ToString::to_string).collect(),
            revisions: managed.map(|managed| managed.revision_statuses(self.now())).unwrap_or_default(),
            waiting: (!why.is_empty()).then(|| why.join("; ")),
            obstacle: managed
                .and_then(|managed| self.plans.obstacle(managed.agent.name()))
                .map(|obstacle| obstacle.as_str().to_owned()),
        })
    }
}

/// Returns the text of a route, such as `POST /tickets`.
pub(crate) fn route_text(route: &RouteSpec) -> String {
    let methods: Vec<&str> = route.methods.iter().map(String::as_str).collect();
    let methods = if methods.is_empty() { "*".to_owned() } else { methods.join(",") };
    format!("{methods} {}", route.pattern.as_str())
}

fn state(managed: Option<&ManagedAgent>, runs: bool) -> &'static str {
    match managed {
        Some(managed) if managed.retired.is_some() => "leaving",
        Some(_) if runs => "running",
        Some(managed) if managed.revisions.last().is_some_and(|r| matches!(r.state, RevisionState::Failed { .. })) => {
            "failed"
        }
        // Its component is missing or was refused before there was a revision.
        Some(managed) if managed.revisions.is_empty() => "failed",
        Some(_) => "starting",
        None => "failed",
    }
}

impl ManagedAgent {
    fn revision_statuses(&self, now: u64) -> Vec<RevisionStatus> {
        self.revisions
            .iter()
            .map(|revision| RevisionStatus {
                number: revision.number,
                state: revision.state.to_string(),
                reason: match &revision.state {
                    RevisionState::Failed { reason } => Some(reason.clone()),
                    _ => None,
                },
                digest: revision.digest.to_string(),
                in_flight: revision.live.as_ref().map_or(0, |live| live.in_flight()),
                since_ms: now.saturating_sub(revision.since),
            })
            .collect()
    }
}
