//! What the reconciler tells of what runs.

use std::sync::Arc;

use caxton_control::lifecycle::State;
use caxton_control::rollout::{Ledger, Status};

use super::declaration::Asked;
use super::{Entry, Reconciler};
use crate::config::ConfigErrors;
use crate::reconcile::handle::{Command, Wake};
use crate::status::{AgentStatus, FileError, HostStatus, RevisionStatus, Waiting};

/// What the status tells and what does not change while the host runs.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// When the host started, in milliseconds since 1970.
    pub(crate) started_at: u64,
    /// Where agents are called.
    pub(crate) http: String,
    /// Where the management API is.
    pub(crate) admin: String,
    /// Whether the host is stopping.
    pub(crate) stopping: bool,
}

impl Reconciler {
    /// Answers a wish.
    pub(super) fn command(&mut self, command: Command) {
        // Whoever asked may be gone by the time of the answer.
        match command {
            // It is of the whole file, and is answered when that is whole.
            Command::Apply(_) | Command::Diff(_) if !self.is_whole() => self.declaration.defer(Asked::Command(command)),
            Command::Apply(answer) => {
                let loaded = self.source.load();
                let misfits = loaded.as_ref().map_or_else(|_| Vec::new(), |loaded| self.misfits(loaded));
                if !misfits.is_empty() {
                    let _ = answer.send(Err(misfits));
                    return;
                }
                // Against what runs: the file may have been taken up a moment ago.
                let changes = loaded.as_ref().map_or_else(|_| Vec::new(), |loaded| self.changes_with(&loaded.desired));
                self.take_file(loaded);
                if self.file_errors.is_empty() {
                    self.retry();
                    self.look_at_components(true);
                    self.settling.push((answer, changes));
                } else {
                    let _ = answer.send(Err(self.file_errors.clone()));
                }
            }
            Command::Reload(answer) => {
                self.wake(Wake::All);
                self.settling.push((answer, Vec::new()));
            }
            Command::Diff(answer) => {
                let found = self.source.load().map_err(|errors| file_errors(&errors));
                let _ = answer.send(found.map(|loaded| self.changes_with(&loaded.desired)));
            }
            Command::Status(answer) => {
                self.look_at_timed();
                let _ = answer.send(self.status());
            }
            Command::Agents(None, answer) => {
                self.look_at_timed();
                let turn = self.turns().waits();
                let agents =
                    self.wanted.keys().chain(self.entries.keys().filter(|name| !self.wanted.contains_key(*name)));
                let mut agents: Vec<AgentStatus> =
                    agents.filter_map(|name| self.agent_status(name.as_str(), &turn)).collect();
                agents.sort_by(|a, b| a.name.cmp(&b.name));
                let _ = answer.send(agents);
            }
            Command::Rollouts(agent, answer) => {
                // With the figures of this moment.
                match &agent {
                    Some(name) => self.mark(name),
                    None => self.mark_measured(),
                }
                self.reconcile();
                let _ = answer.send(self.rollouts(agent.as_deref()));
            }
            Command::Rollout(wish, answer) => {
                let _ = answer.send(self.wish(wish));
            }
            Command::Rehearse(wish, answer) => self.rehearse_by_hand(wish, answer),
            Command::Agents(Some(name), answer) => {
                self.mark(&name);
                self.reconcile();
                let _ = answer.send(self.agent_status(&name, &self.turns().waits()).into_iter().collect());
            }
        }
    }

    /// Whether what an agent waits for is only the end of a rollout to what is declared, which has all the traffic.
    fn only_ends(&self, name: &str) -> bool {
        let open = self.ledgers.get(name).and_then(Ledger::open);
        let reasons = self.standing.waiting().get(name).map_or(0, Vec::len);
        reasons == 1 && open.is_some_and(|rollout| rollout.status == Status::InProgress && rollout.has_moved())
    }

    /// Whether what runs is what the file says.
    pub(super) fn is_in_sync(&self, waiting: &[Waiting]) -> bool {
        self.file_errors.is_empty() && waiting.iter().all(|waiting| self.only_ends(&waiting.agent))
    }

    fn status(&self) -> HostStatus {
        let waiting = self.waiting();
        let in_sync = self.is_in_sync(&waiting);
        HostStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            file: self.source.file.display().to_string(),
            started_at: self.facts.started_at,
            http: self.facts.http.clone(),
            admin: self.facts.admin.clone(),
            ready: self.ready.borrow().ready,
            in_sync,
            file_errors: self.file_errors.clone(),
            waiting,
            instances: self.runtime.live(),
            max_instances: self.runtime.instances(),
            stopping: self.facts.stopping,
        }
    }

    /// One agent; also one that is declared and has not come to be. `turn` is what those wait for whose turn has not
    /// come.
    fn agent_status(&self, name: &str, turn: &str) -> Option<AgentStatus> {
        let entry = self.entries.get(name);
        let spec = self.wanted.get(name).map(|wanted| Arc::clone(&wanted.spec));
        let spec = spec.or_else(|| entry.map(|entry| entry.agent.spec()))?;
        let mut why: Vec<String> =
            self.standing.waiting().get(name).into_iter().flatten().map(|w| w.why.clone()).collect();
        if self.standing.queued().contains(name) {
            why.push(turn.to_owned());
        }
        why.extend(entry.and_then(|entry| entry.misfit.clone()));
        let current = entry.and_then(|entry| entry.agent.current());
        let counts = entry.map(|entry| entry.agent.stats().counts());
        let sum = |get: fn(&crate::agent::Counts) -> u64| counts.as_ref().map_or(0, get);
        let mailbox = entry.map(|entry| entry.agent.mailbox_figures());
        Some(AgentStatus {
            name: name.to_owned(),
            state: state(entry, current.is_some()).to_owned(),
            revision: current.as_ref().map(|current| current.id.to_string()),
            digest: current.as_ref().map(|current| current.digest.to_string()),
            kind: current.as_ref().map(|current| current.kind().to_string()),
            component: spec.component.clone(),
            instances: entry.map_or(0, |entry| entry.lives().map(|live| live.pool.live()).sum()),
            max_instances: current.as_ref().map_or(spec.instances.max, |current| current.pool.max()),
            started_instances: current.as_ref().map_or(0, |current| current.pool.started()),
            reuse: current.as_ref().and_then(|current| current.pool.reuse()),
            in_flight: entry.map_or(0, |entry| entry.lives().map(|live| live.in_flight()).sum()),
            mailbox_depth: mailbox.map_or(0, |mailbox| mailbox.depth),
            mailbox_bound: mailbox.map_or(spec.mailbox.depth, |mailbox| mailbox.bound),
            accepted: sum(|counts| counts.accepted),
            handled: sum(|counts| counts.handled),
            failed: sum(|counts| counts.failed),
            refused: sum(|counts| counts.refused),
            retries: sum(|counts| counts.retries),
            runs: sum(|counts| counts.runs),
            conflicts: sum(|counts| counts.conflicts),
            later: mailbox.map_or(0, |mailbox| mailbox.later),
            timers: mailbox.map_or(0, |mailbox| mailbox.timers),
            held: mailbox.is_some_and(|mailbox| mailbox.held),
            breaker: mailbox.map_or("closed", |mailbox| mailbox.breaker).to_owned(),
            opening: entry.and_then(|entry| entry.agent.opening()),
            // The store knows, and is asked by whoever tells of it.
            dead_letters: 0,
            state_bytes: entry.map_or(0, |entry| entry.agent.state_bytes().load(std::sync::atomic::Ordering::Relaxed)),
            routes: spec.http.iter().map(route).collect(),
            capabilities: spec.capabilities.iter().map(ToString::to_string).collect(),
            revisions: entry.map(|entry| entry.revisions(self.now())).unwrap_or_default(),
            waiting: (!why.is_empty()).then(|| why.join("; ")),
            obstacle: entry
                .and_then(|entry| self.standing.obstacle(entry.agent.name()))
                .map(|obstacle| obstacle.as_str().to_owned()),
        })
    }
}

/// A route as it is told, such as `POST /tickets`.
pub(crate) fn route(route: &caxton_control::desired::Route) -> String {
    let methods: Vec<&str> = route.methods.iter().map(String::as_str).collect();
    let methods = if methods.is_empty() { "*".to_owned() } else { methods.join(",") };
    format!("{methods} {}", route.pattern.as_str())
}

fn state(entry: Option<&Entry>, runs: bool) -> &'static str {
    match entry {
        Some(entry) if entry.retired.is_some() => "leaving",
        Some(_) if runs => "running",
        Some(entry) if entry.revisions.last().is_some_and(|r| matches!(r.state, State::Failed { .. })) => "failed",
        Some(entry) if entry.revisions.is_empty() => "failed",
        Some(_) => "starting",
        None => "failed",
    }
}

impl Entry {
    pub(super) fn lives(&self) -> impl Iterator<Item = &Arc<crate::agent::Revision>> {
        self.revisions.iter().filter_map(|record| record.live.as_ref())
    }

    /// Gives what runs the settings that apply in place, as they are declared now.
    pub(super) fn fit(&mut self) {
        self.bound_instances();
        self.judge();
    }

    /// Notes whether a setting that applies in place cannot act on what runs: one that needs a new revision is judged
    /// with it.
    pub(super) fn judge(&mut self) {
        let (spec, current) = (self.agent.spec(), self.agent.current());
        let judged = current.map_or(Ok(()), |current| super::judge(&spec, &current.pool.program.summary));
        let misfit = judged.err();
        if let Some(why) = misfit.as_ref().filter(|why| self.misfit.as_ref() != Some(why)) {
            tracing::error!(agent = %self.agent.name(), "a changed setting cannot act: {why}");
        }
        self.misfit = misfit;
    }

    fn revisions(&self, now: u64) -> Vec<RevisionStatus> {
        self.revisions
            .iter()
            .map(|record| RevisionStatus {
                number: record.number,
                state: record.state.to_string(),
                reason: match &record.state {
                    State::Failed { reason } => Some(reason.clone()),
                    _ => None,
                },
                digest: record.digest.to_string(),
                in_flight: record.live.as_ref().map_or(0, |live| live.in_flight()),
                since_ms: now.saturating_sub(record.since),
            })
            .collect()
    }
}

/// The errors of a file, in the shape that is told.
pub(super) fn file_errors(errors: &ConfigErrors) -> Vec<FileError> {
    let list = errors.to_json();
    let text = |error: &serde_json::Value, key: &str| error.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let place = |error: &serde_json::Value| {
        let number = |key: &str| error.get(key).and_then(serde_json::Value::as_u64);
        match (text(error, "file"), number("line"), number("column")) {
            (Some(file), Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            (Some(file), ..) => file,
            (None, ..) => text(error, "variable").or_else(|| text(error, "flag")).unwrap_or_default(),
        }
    };
    list.as_array()
        .into_iter()
        .flatten()
        .map(|error| FileError {
            code: text(error, "code").unwrap_or_default(),
            place: place(error),
            key: text(error, "key").unwrap_or_default(),
            message: text(error, "message").unwrap_or_default(),
            help: text(error, "help"),
        })
        .collect()
}
