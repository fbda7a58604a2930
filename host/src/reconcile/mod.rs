//! The one task that changes what runs.
//!
//! ```text
//! file, builds, signals, API, ends of work --> wake
//!   wake: mark whom it is about
//!   the marked: observe --> caxton_control::plan --> apply each action, mark --> again, until nobody is marked
//! ```
//! A look costs what changed and not what there is: all other agents are as their last plan left them. Now and then
//! all are marked, for what nobody told of.
//!
//! The agents' ledgers of rollouts are this task's own; what the plan changed in them is persisted before its actions
//! are done. Long work (compiling, starting, saving) runs in tasks of its own, which report here when they end; a
//! revision that is worked on is `busy` and left alone until then. What runs is published as an immutable
//! [`Routes`] snapshot.

mod apply;
pub(crate) mod build;
mod bytes;
mod changes;
mod convert;
mod declaration;
mod entry;
mod files;
pub(crate) mod handle;
mod history;
mod lately;
mod look;
mod lost;
mod misfits;
mod prepare;
mod removal;
mod report;
mod roll;
pub(crate) mod stamp;
mod told;
mod trial;
mod unused;
pub(crate) mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use caxton_control::desired::Http;
use caxton_control::lifecycle::State;
use caxton_control::plan::{Component, Standing, Wanted};
use caxton_control::rollout::Ledger;
use caxton_control::{AgentName, Desired};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Revision};
use crate::clock;
use crate::config::{self, Loaded};
use crate::context::HostContext;
use crate::directory::HostDirectory;
use crate::directory::routes::Routes;
use crate::reconcile::handle::{Command, Readiness, Wake};
use crate::reconcile::stamp::Writing;
use crate::reconcile::watcher::Followed;
use crate::status::{Applied, FileError};
use crate::tasks::{BEAT, RECONCILER};
use crate::wasm::Runtime;

use entry::{Entry, Record, Report};
pub(crate) use files::Files;

/// Where the declaration comes from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The file, as it was named.
    pub(crate) file: PathBuf,
    /// Where it is: the same name leads there whatever becomes of the folder that the host was started in.
    pub(crate) at: PathBuf,
    /// Settings of the command line, which go before those of the file.
    pub(crate) flags: Vec<(String, String)>,
}

impl Source {
    /// Reads the declaration as it is now.
    pub(crate) fn load(&self) -> Result<Loaded, config::ConfigErrors> {
        let flags: Vec<(&str, String)> = self.flags.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        config::load(&self.at, std::env::vars_os(), &flags).map_err(|errors| errors.named(&self.file))
    }
}

/// Someone who waits until all is as declared.
type Settling = (oneshot::Sender<Result<Applied, Vec<FileError>>>, Vec<crate::status::Change>);

/// The task's state.
pub(crate) struct Reconciler {
    context: Arc<HostContext>,
    directory: Arc<HostDirectory>,
    runtime: Arc<Runtime>,
    source: Source,
    declared: Loaded,
    /// What the host was started with: listeners and store stay as they were.
    started_with: Desired,
    http: Arc<ArcSwap<Http>>,
    file_errors: Vec<FileError>,
    files: Files,
    declaration: declaration::Declaration,
    wanted: BTreeMap<AgentName, Wanted>,
    entries: BTreeMap<AgentName, Entry>,
    ledgers: BTreeMap<AgentName, Ledger>,
    /// The states that were being converted when the host ended, until their agents are there.
    unfinished: BTreeSet<AgentName>,
    bytes: bytes::Bytes,
    /// Whether bytes may be kept that nobody asks for any more.
    unused: bool,
    /// When what is not used was looked for last.
    tidied: Instant,
    /// Whom to look at, and what was planned for the others.
    standing: Standing,
    /// When all were looked at last.
    all_seen: Instant,
    /// What is told of all, as it follows from each.
    sums: look::Sums,
    /// When what runs was looked at for its failures.
    looks: lately::Looks,
    /// The host's settings that apply when it starts again.
    restart_for: Vec<String>,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    commands: mpsc::Receiver<Command>,
    wakes: mpsc::Receiver<Wake>,
    ready: watch::Sender<Readiness>,
    settled: watch::Sender<bool>,
    settling: Vec<Settling>,
    followed: watch::Sender<Arc<Followed>>,
    facts: report::Facts,
    /// When what waits for agents that were not declared at the start becomes dead letters.
    orphans_until: Option<Instant>,
}

/// What a reconciler is made of.
pub(crate) struct Setup {
    /// What all agents share.
    pub(crate) directory: Arc<HostDirectory>,
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
    /// Which files are being written.
    pub(crate) writing: Writing,
    /// What the status tells and does not change.
    pub(crate) facts: report::Facts,
}

pub(crate) use prepare::judge;
pub(crate) use report::{Facts, route};

impl Reconciler {
    /// A reconciler that has looked once: who is declared can be called, and is being prepared.
    pub(crate) fn new(setup: Setup) -> Self {
        let started = clock::steady_ms();
        let ledgers = roll::load(&setup.directory.context.store, started);
        let mut reconciler = Self {
            unfinished: convert::unfinished(&setup.directory.context.store, &ledgers, &setup.declared.desired),
            ledgers,
            bytes: bytes::Bytes::new(setup.directory.context.store.folder()),
            unused: false,
            tidied: Instant::now(),
            context: Arc::clone(&setup.directory.context),
            directory: setup.directory,
            runtime: setup.runtime,
            source: setup.source,
            started_with: setup.declared.desired.clone(),
            declared: setup.declared,
            http: setup.http,
            file_errors: Vec::new(),
            files: Files::new(setup.writing),
            declaration: declaration::Declaration::default(),
            wanted: BTreeMap::new(),
            entries: BTreeMap::new(),
            standing: Standing::default(),
            all_seen: Instant::now(),
            sums: look::Sums::default(),
            looks: lately::Looks::default(),
            restart_for: Vec::new(),
            reports: mpsc::channel(4_096),
            commands: setup.commands,
            wakes: setup.wakes,
            ready: setup.ready,
            settled: setup.settled,
            settling: Vec::new(),
            followed: setup.followed,
            facts: setup.facts,
            orphans_until: None,
        };
        reconciler.look_at_components(true);
        reconciler.announce_orphans();
        reconciler.mark_all();
        reconciler.tidy(true);
        reconciler.reconcile();
        reconciler
    }

    /// The time in milliseconds since 1970, which goes on evenly whatever is done to the clock.
    fn now(&self) -> u64 {
        clock::steady_ms()
    }

    /// Keeps what runs as it is declared, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Drained {
        let mut reports = Vec::new();
        loop {
            self.look_at_unsettled();
            self.reconcile();
            self.context.tasks.beat(RECONCILER);
            let look_again = self.look_again_in();
            tokio::select! {
                // By chance, so that whoever asks all the time keeps nothing else from being seen.
                () = stop.cancelled() => break,
                Some(command) = self.commands.recv() => self.command(command),
                Some(wake) = self.wakes.recv() => self.wake(wake),
                _ = self.reports.1.recv_many(&mut reports, 4_096) => {
                    // Of ten thousand agents that start at once many end together: one look, and one snapshot of the
                    // routes, serves them all.
                    if self.sums.unserved() > 256 {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        while let Ok(report) = self.reports.1.try_recv() {
                            reports.push(report);
                        }
                    }
                    for report in reports.drain(..) {
                        self.report(report);
                    }
                }
                () = self.context.woken() => {}
                // Not for longer: it is watched whether this goes round.
                () = tokio::time::sleep(look_again.min(BEAT)) => {}
            }
        }
        self.keep_figures();
        self.facts.stopping = true;
        Drained { entries: self.entries, limit: self.declared.desired.host.drain }
    }

    /// Publishes who is called by what.
    fn publish(&self) {
        let agents = |retired: bool| {
            let those = self.entries.iter().filter(move |(_, entry)| entry.retired.is_some() == retired);
            those.map(|(name, entry)| (name.clone(), Arc::clone(&entry.agent)))
        };
        let routes = Routes::new(&agents(false).collect()).with_retiring(agents(true).collect());
        self.directory.routes.store(Arc::new(routes));
    }

    fn wake(&mut self, wake: Wake) {
        match wake {
            Wake::File => self.follow_file(),
            Wake::Components => self.look_at_components(false),
            Wake::All => {
                if self.is_whole_or_defers(declaration::Asked::All) {
                    self.read_file();
                    self.retry();
                    self.look_at_components(true);
                }
            }
        }
    }

    /// Takes up the declaration's file, if it has no errors.
    fn read_file(&mut self) {
        let loaded = self.source.load();
        self.take_file(loaded);
    }

    /// Takes up what the file says, if it has no errors.
    fn take_file(&mut self, loaded: Result<Loaded, config::ConfigErrors>) {
        self.declaration.took();
        match loaded {
            Ok(loaded) => {
                let recovered = !self.file_errors.is_empty();
                self.file_errors.clear();
                if recovered {
                    tracing::info!(file = %self.source.file.display(), "the file has no errors any more");
                }
                if loaded.desired != self.declared.desired {
                    self.context.events.tell(None, "config.taken", serde_json::json!({ "digest": loaded.text_digest }));
                }
                self.declared = loaded;
                self.compare_host();
                self.http.store(Arc::new(self.declared.desired.http.clone()));
                self.context.store.conversations.configure(self.declared.desired.conversations.clone());
                self.follow();
                self.look_at_components(false);
            }
            Err(errors) => {
                let found = report::file_errors(&errors);
                if found != self.file_errors {
                    tracing::error!(
                        "{} has errors; what runs stays as it was:\n{}",
                        self.source.file.display(),
                        errors.plain()
                    );
                    self.context.events.tell(None, "config.refused", serde_json::json!({ "errors": found }));
                }
                self.file_errors = found;
                self.retell();
            }
        }
    }

    /// Forgets failures, so that they are tried again.
    fn retry(&mut self) {
        for entry in self.entries.values_mut() {
            entry.revisions.retain(|record| !matches!(record.state, State::Failed { .. }));
        }
        self.mark_all();
        self.ledgers.values_mut().for_each(Ledger::forgive);
    }

    /// Whether what takes messages is what is declared. Old revisions may still drain.
    fn is_as_declared(&self) -> bool {
        let runs = |(name, wanted): (&AgentName, &Wanted)| {
            self.entries.get(name).is_some_and(|entry| {
                entry.agent.current().is_some_and(|current| {
                    current.spec.same_settings(&wanted.spec) && wanted.component == Component::Found(current.digest)
                })
            })
        };
        self.file_errors.is_empty() && self.wanted.iter().all(runs)
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
