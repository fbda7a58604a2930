//! The one task that changes what runs.
//!
//! ```text
//! file, builds, signals, API, ends of work --> wake
//!   wake: observe --> caxton_control::plan --> apply each action --> observe again, until nothing is safe to do
//! ```
//! Long work (compiling, starting, saving) runs in tasks of its own, which report here when they end; a
//! revision that is worked on is `busy` and left alone until then. What runs is published as an immutable
//! [`Routes`] snapshot.

mod apply;
mod files;
mod prepare;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use caxton_control::desired::Http;
use caxton_control::lifecycle::State;
use caxton_control::plan::{self, Actual, ActualAgent, Component, Plan, Wanted};
use caxton_control::{AgentName, AgentSpec, Desired, Digest};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Revision};
use crate::commons::Commons;
use crate::config::{self, Loaded};
use crate::control::{Command, Readiness, Wake};
use crate::routes::Routes;
use crate::status::{Applied, FileError, Waiting};
use crate::wasm::Runtime;
use crate::watch::Followed;

pub(crate) use files::Files;

/// Where the declaration comes from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The file.
    pub(crate) file: PathBuf,
    /// Settings of the command line, which go before those of the file.
    pub(crate) flags: Vec<(String, String)>,
}

impl Source {
    /// Reads the declaration as it is now.
    pub(crate) fn load(&self) -> Result<Loaded, config::ConfigErrors> {
        let flags: Vec<(&str, String)> = self.flags.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        config::load(&self.file, std::env::vars(), &flags)
    }
}

/// What a task reports when it ends.
enum Report {
    /// A revision's component is compiled.
    Loaded { agent: AgentName, number: u64 },
    /// A revision is ready, or failed.
    Prepared { agent: AgentName, number: u64, result: Result<Arc<Revision>, String> },
    /// A stateful agent's memory is with the new revision, or stays with the old.
    HandedOff { agent: AgentName, number: u64, result: Result<(), String> },
    /// A revision that had to be saved first has ended.
    Stopped { agent: AgentName, number: u64 },
}

/// An agent with its revisions.
struct Entry {
    agent: Arc<Agent>,
    revisions: Vec<Record>,
    /// The number of the next revision; none until the store was asked.
    next_number: Option<u64>,
    paused: bool,
    retired: bool,
}

/// A revision with its place in its life.
struct Record {
    number: u64,
    spec: Arc<AgentSpec>,
    digest: Digest,
    state: State,
    since: Instant,
    busy: bool,
    live: Option<Arc<Revision>>,
}

/// Someone who waits until all is as declared.
type Settling = (oneshot::Sender<Result<Applied, Vec<FileError>>>, Vec<crate::status::Change>);

/// The task's state.
pub(crate) struct Reconciler {
    commons: Arc<Commons>,
    runtime: Arc<Runtime>,
    source: Source,
    declared: Loaded,
    /// What the host was started with: listeners and store stay as they were.
    started_with: Desired,
    http: Arc<ArcSwap<Http>>,
    file_errors: Vec<FileError>,
    files: Files,
    wanted: BTreeMap<AgentName, Wanted>,
    entries: BTreeMap<AgentName, Entry>,
    plan: Plan,
    origin: Instant,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    commands: mpsc::Receiver<Command>,
    wakes: mpsc::Receiver<Wake>,
    ready: watch::Sender<Readiness>,
    settled: watch::Sender<bool>,
    settling: Vec<Settling>,
    followed: watch::Sender<Arc<Followed>>,
    facts: report::Facts,
}

/// What a reconciler is made of.
pub(crate) struct Setup {
    /// What all agents share.
    pub(crate) commons: Arc<Commons>,
    /// What runs components.
    pub(crate) runtime: Arc<Runtime>,
    /// Where the declaration comes from.
    pub(crate) source: Source,
    /// The declaration, read for the first time.
    pub(crate) declared: Loaded,
    /// The settings of the listener for agents, which can change in place.
    pub(crate) http: Arc<ArcSwap<Http>>,
    /// What others ask.
    pub(crate) commands: mpsc::Receiver<Command>,
    /// What changed.
    pub(crate) wakes: mpsc::Receiver<Wake>,
    /// Told whether the host is ready.
    pub(crate) ready: watch::Sender<Readiness>,
    /// Told once everything that can be done was done.
    pub(crate) settled: watch::Sender<bool>,
    /// Told which files matter.
    pub(crate) followed: watch::Sender<Arc<Followed>>,
    /// What the status tells and does not change.
    pub(crate) facts: report::Facts,
}

pub(crate) use prepare::judge;
pub(crate) use report::{Facts, route};

impl Reconciler {
    /// A reconciler that has done nothing yet.
    pub(crate) fn new(setup: Setup) -> Self {
        let mut reconciler = Self {
            commons: setup.commons,
            runtime: setup.runtime,
            source: setup.source,
            started_with: setup.declared.desired.clone(),
            declared: setup.declared,
            http: setup.http,
            file_errors: Vec::new(),
            files: Files::default(),
            wanted: BTreeMap::new(),
            entries: BTreeMap::new(),
            plan: Plan::default(),
            origin: Instant::now(),
            reports: mpsc::channel(4_096),
            commands: setup.commands,
            wakes: setup.wakes,
            ready: setup.ready,
            settled: setup.settled,
            settling: Vec::new(),
            followed: setup.followed,
            facts: setup.facts,
        };
        reconciler.look_at_components(true);
        reconciler
    }

    /// Keeps what runs as it is declared, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Drained {
        let mut reports = Vec::new();
        loop {
            self.reconcile();
            let look_again = self.plan.look_again_in.unwrap_or(Duration::from_secs(3_600));
            tokio::select! {
                // By chance, so that whoever asks all the time keeps nothing else from being seen.
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                Some(wake) = self.wakes.recv() => self.wake(wake),
                _ = self.reports.1.recv_many(&mut reports, 4_096) => {
                    // Of ten thousand agents that start at once many end together: one look serves them all.
                    if self.plan.waiting.len() > 256 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        while let Ok(report) = self.reports.1.try_recv() {
                            reports.push(report);
                        }
                    }
                    for report in reports.drain(..) {
                        self.report(report);
                    }
                }
                () = self.commons.woken() => {}
                () = tokio::time::sleep(look_again) => {}
            }
        }
        self.facts.stopping = true;
        Drained { entries: self.entries, limit: self.declared.desired.host.drain }
    }

    /// Observes, plans and acts until nothing more is safe to do at this moment.
    fn reconcile(&mut self) {
        self.end_given_up();
        loop {
            if self.welcome() {
                self.publish();
            }
            let actual = self.observe();
            let plan = plan::plan(&self.wanted, &actual, self.origin.elapsed());
            let actions = plan.actions.clone();
            self.plan = plan;
            if actions.is_empty() {
                break;
            }
            let mut routes_changed = false;
            for action in actions {
                routes_changed |= self.apply(action);
            }
            if routes_changed {
                self.publish();
            }
        }
        self.tell_readiness();
    }

    fn observe(&self) -> Actual {
        let agents = self.entries.iter().map(|(name, entry)| {
            let revisions = entry.revisions.iter().map(|record| {
                let live = record.live.as_ref();
                let mut in_flight = live.map_or(0, |live| live.in_flight());
                // An agent that leaves first handles what it has accepted.
                if entry.retired && entry.agent.is_busy() {
                    in_flight = in_flight.max(1);
                }
                plan::Revision {
                    number: record.number,
                    spec: Arc::clone(&record.spec),
                    digest: record.digest,
                    state: record.state.clone(),
                    since: record.since.saturating_duration_since(self.origin),
                    busy: record.busy,
                    stateful: live.is_some_and(|live| live.kind() == crate::wasm::Kind::Stateful),
                    in_flight,
                }
            });
            let actual = ActualAgent {
                applied: entry.agent.spec(),
                paused: entry.paused,
                retired: entry.retired,
                revisions: revisions.collect(),
            };
            (name.clone(), actual)
        });
        Actual { agents: agents.collect() }
    }

    /// Publishes who is called by what.
    fn publish(&self) {
        let agents = |retired: bool| {
            let those = self.entries.iter().filter(move |(_, entry)| entry.retired == retired);
            those.map(|(name, entry)| (name.clone(), Arc::clone(&entry.agent)))
        };
        let routes = Routes::new(&agents(false).collect()).with_leaving(agents(true).collect());
        self.commons.routes.store(Arc::new(routes));
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::File => {
                self.read_file();
            }
            Wake::Components => self.look_at_components(false),
            Wake::All => {
                self.read_file();
                self.retry();
                self.look_at_components(true);
            }
        }
    }

    /// Takes up the declaration's file, if it has no errors.
    fn read_file(&mut self) -> Vec<crate::status::Change> {
        match self.source.load() {
            Ok(loaded) => {
                let recovered = !self.file_errors.is_empty();
                self.file_errors.clear();
                if recovered {
                    tracing::info!(file = %self.source.file.display(), "the file has no errors any more");
                }
                let changes = report::changes(&self.declared.desired, &loaded.desired);
                if loaded.desired != self.declared.desired {
                    self.commons.events.tell(None, "config.taken", serde_json::json!({ "digest": loaded.text_digest }));
                }
                self.declared = loaded;
                self.http.store(Arc::new(self.declared.desired.http.clone()));
                self.commons.store.conversations.configure(self.declared.desired.conversations.clone());
                self.follow();
                self.look_at_components(false);
                changes
            }
            Err(errors) => {
                let found = report::file_errors(&errors);
                if found != self.file_errors {
                    tracing::error!(
                        "{} has errors; what runs stays as it was:\n{}",
                        self.source.file.display(),
                        errors.plain()
                    );
                    self.commons.events.tell(None, "config.refused", serde_json::json!({ "errors": found }));
                }
                self.file_errors = found;
                Vec::new()
            }
        }
    }

    /// Forgets failures, so that they are tried again.
    fn retry(&mut self) {
        for entry in self.entries.values_mut() {
            entry.revisions.retain(|record| !matches!(record.state, State::Failed { .. }));
        }
    }

    /// Whether nothing is under way that will end by itself soon; drains may be.
    fn is_settled(&self) -> bool {
        self.plan.actions.is_empty()
            && self.entries.values().all(|entry| {
                !entry.paused
                    && entry.revisions.iter().all(|record| match record.state {
                        State::Unloaded | State::Loaded | State::Ready => false,
                        State::Running | State::Draining | State::Stopped | State::Failed { .. } => true,
                    })
            })
    }

    /// Whether what takes messages is what is declared. Old revisions may still drain.
    fn is_as_declared(&self) -> bool {
        let runs = |(name, wanted): (&AgentName, &Wanted)| {
            self.entries.get(name).is_some_and(|entry| {
                entry.revisions.iter().any(|record| {
                    record.state == State::Running
                        && record.spec.same_revision(&wanted.spec)
                        && wanted.component == Component::Found(record.digest)
                })
            })
        };
        self.file_errors.is_empty() && self.wanted.iter().all(runs)
    }

    fn waiting(&self) -> Vec<Waiting> {
        let mut waiting: Vec<Waiting> =
            self.plan.waiting.iter().map(|w| Waiting { agent: w.agent.to_string(), why: w.why.clone() }).collect();
        let host = report::changes(&self.started_with, &self.declared.desired);
        waiting.extend(host.into_iter().filter(|change| change.change == "restart-needed").map(|change| Waiting {
            agent: String::new(),
            why: format!("the host has to start again for {}", change.details.join(", ")),
        }));
        waiting
    }

    fn tell_readiness(&mut self) {
        let mut reasons: Vec<String> =
            self.file_errors.iter().map(|e| format!("{}: {}: {}", e.place, e.key, e.message)).collect();
        if !reasons.is_empty() {
            reasons.insert(0, format!("{} has errors, so what runs differs from it", self.source.file.display()));
        }
        reasons.extend(
            self.waiting()
                .into_iter()
                .map(|w| if w.agent.is_empty() { w.why } else { format!("{}: {}", w.agent, w.why) }),
        );
        // A file with errors or a candidate that failed keeps nobody from being served: they are told as
        // reasons, but must not take a host that serves out of rotation.
        let served = |name| self.entries.get(name).is_some_and(|entry: &Entry| entry.agent.current().is_some());
        let ready = self.declared.desired.agents.keys().all(served);
        self.ready.send_if_modified(|before| {
            let now = Readiness { ready, reasons };
            let changed = *before != now;
            *before = now;
            changed
        });
        if !self.is_settled() {
            return;
        }
        self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
        if self.settling.is_empty() {
            return;
        }
        let (waiting, settled) = (self.waiting(), self.is_as_declared());
        for (answer, changes) in std::mem::take(&mut self.settling) {
            let applied = Applied { changes, settled, waiting: waiting.clone() };
            // Who asked may be gone.
            let _ = answer.send(Ok(applied));
        }
    }
}

/// What is left when the reconciler has stopped: agents to be drained.
pub(crate) struct Drained {
    entries: BTreeMap<AgentName, Entry>,
    /// How long that may take.
    pub(crate) limit: Duration,
}

impl Drained {
    /// The agents, with the revisions that are live.
    pub(crate) fn agents(&self) -> impl Iterator<Item = (&Arc<Agent>, Vec<Arc<Revision>>)> {
        self.entries
            .values()
            .map(|entry| (&entry.agent, entry.revisions.iter().filter_map(|record| record.live.clone()).collect()))
    }
}
