//! The state of the reconciler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use caxton_control::desired::HttpSpec;
use caxton_control::lifecycle::RevisionState;
use caxton_control::plan::{ComponentFile, DesiredAgent, IncrementalPlan};
use caxton_control::rollout::Ledger;
use caxton_control::{AgentName, Desired};
use tokio::sync::{mpsc, oneshot, watch};

use super::certificates::ListenerCertificate;
use super::component_archive::ComponentArchive;
use super::component_files::ComponentFiles;
use super::declaration_file::{DeclarationFile, DeclarationSource};
use super::file_stamp::OpenWrites;
use super::handle::{Readiness, Request, Wake};
use super::managed::ManagedAgent;
use super::policy_state::PolicyInForce;
use super::preparation_queue::PreparationQueue;
use super::stored_ledgers;
use super::summary::ReconcileSummary;
use super::task_report::TaskReport;
use super::watcher::WatchSet;
use crate::agent::{Agent, Revision};
use crate::api_types::{ApplyResult, FileError, PlannedChange};
use crate::clock;
use crate::config::{Loaded, LoadedOperator};
use crate::context::HostContext;
use crate::directory::HostDirectory;
use crate::directory::routes::Routes;
use crate::net::CaError;
use crate::secrets::{SecretError, Secrets};
use crate::wasm::Runtime;

/// The capacity of the channel of task reports: several passes of a host that starts ten thousand agents at once.
const REPORT_CAPACITY: usize = 4_096;

/// The part of the host's status that is known at its start.
#[derive(Debug, Clone)]
pub(crate) struct HostFacts {
    /// The start of the host, in milliseconds since 1970.
    pub(crate) started_at: u64,
    /// The address where agents are called.
    pub(crate) http: String,
    /// The address of the management API.
    pub(crate) admin: String,
    /// Set once the host is stopping.
    pub(crate) stopping: bool,
}

/// A request to apply the declaration that is answered once nothing more can be done, with the changes it made.
type PendingApply = (oneshot::Sender<Result<ApplyResult, Vec<FileError>>>, Vec<PlannedChange>);

/// The state of the one task that changes what runs.
pub(crate) struct Reconciler {
    pub(super) context: Arc<HostContext>,
    pub(super) directory: Arc<HostDirectory>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) source: DeclarationSource,
    pub(super) declared: Loaded,
    /// The declaration at the start of the host: settings of listeners and the store stay as they were then.
    // Kept beside the declaration in force, to tell which changes need a restart.
    pub(super) started_with: Desired,
    pub(super) http: Arc<ArcSwap<HttpSpec>>,
    pub(super) certificates: Vec<ListenerCertificate>,
    pub(super) secrets: Arc<Secrets>,
    /// The rules for components, and the operator's own file.
    pub(super) policy: PolicyInForce,
    /// The secrets that could not be read at the last look.
    pub(super) refused_secrets: Vec<SecretError>,
    /// The files of `outgoing.ca` that could not be used at the last look.
    pub(super) refused_issuers: Vec<CaError>,
    pub(super) file_errors: Vec<FileError>,
    pub(super) files: ComponentFiles,
    pub(super) declaration: DeclarationFile,
    pub(super) wanted: BTreeMap<AgentName, DesiredAgent>,
    pub(super) managed: BTreeMap<AgentName, ManagedAgent>,
    pub(super) ledgers: BTreeMap<AgentName, Ledger>,
    pub(super) preparations: PreparationQueue,
    /// Agents whose state was being converted when the last host ended. Each is removed when the agent is registered.
    pub(super) unfinished_conversions: BTreeSet<AgentName>,
    pub(super) archive: ComponentArchive,
    /// Set when bytes or compiled code of a revision may have become unused.
    pub(super) has_garbage: bool,
    pub(super) garbage_collected_at: Instant,
    /// The marked agents, and the outcome of the last plan for all others.
    pub(super) plans: IncrementalPlan,
    /// The time at which all agents were marked last.
    pub(super) full_pass_at: Instant,
    pub(super) summary: ReconcileSummary,
    /// The time at which the failures of all running revisions were recorded last.
    pub(super) failures_recorded_at: Option<Instant>,
    /// The last agent whose ledger was persisted for that: the next turn begins after it.
    pub(super) failures_persisted_to: Option<AgentName>,
    /// The changed settings of the host that need a restart.
    pub(super) restart_for: Vec<String>,
    pub(super) reports: (mpsc::Sender<TaskReport>, mpsc::Receiver<TaskReport>),
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) wakes: mpsc::Receiver<Wake>,
    pub(super) ready: watch::Sender<Readiness>,
    pub(super) settled: watch::Sender<bool>,
    pub(super) pending_applies: Vec<PendingApply>,
    pub(super) watch_set: watch::Sender<Arc<WatchSet>>,
    pub(super) facts: HostFacts,
    /// The time at which messages for undeclared agents become dead letters, if there were any at the start.
    pub(super) orphans_until: Option<Instant>,
}

/// The input of [`Reconciler::new`].
pub(crate) struct ReconcilerSetup {
    pub(crate) directory: Arc<HostDirectory>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) source: DeclarationSource,
    /// The declaration as it was first read.
    pub(crate) declared: Loaded,
    /// The operator's own file as it was first read.
    pub(crate) operator: Option<LoadedOperator>,
    /// The settings of the agents' listener that apply in place. The reconciler stores changed ones here.
    pub(crate) http: Arc<ArcSwap<HttpSpec>>,
    /// The certificates of the listeners with TLS.
    pub(crate) certificates: Vec<ListenerCertificate>,
    /// The secrets, read for the first time.
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) wakes: mpsc::Receiver<Wake>,
    /// Receives the host's readiness.
    pub(crate) ready: watch::Sender<Readiness>,
    /// Receives `true` once everything that can be done was done.
    pub(crate) settled: watch::Sender<bool>,
    /// Receives the files to follow.
    pub(crate) watch_set: watch::Sender<Arc<WatchSet>>,
    /// The files that are being written.
    pub(crate) writing: OpenWrites,
    pub(crate) facts: HostFacts,
}

impl Reconciler {
    /// Creates a reconciler and makes its first pass: the declared agents can be called and are being prepared.
    pub(crate) fn new(setup: ReconcilerSetup) -> Self {
        let started = clock::steady_ms();
        let ledgers = stored_ledgers::load(&setup.directory.context.store, started);
        let mut reconciler = Self {
            unfinished_conversions: stored_ledgers::unfinished_conversions(
                &setup.directory.context.store,
                &ledgers,
                &setup.declared.desired,
            ),
            ledgers,
            archive: ComponentArchive::new(setup.directory.context.store.folder()),
            has_garbage: false,
            garbage_collected_at: Instant::now(),
            context: Arc::clone(&setup.directory.context),
            directory: setup.directory,
            runtime: setup.runtime,
            policy: PolicyInForce::new(setup.operator, &setup.declared.desired.policy),
            source: setup.source,
            // Without the agents: their settings would be kept for as long as the host runs.
            started_with: Desired { agents: BTreeMap::new(), ..setup.declared.desired.clone() },
            declared: setup.declared,
            http: setup.http,
            certificates: setup.certificates,
            secrets: setup.secrets,
            refused_secrets: Vec::new(),
            refused_issuers: Vec::new(),
            file_errors: Vec::new(),
            files: ComponentFiles::new(setup.writing),
            declaration: DeclarationFile::default(),
            wanted: BTreeMap::new(),
            managed: BTreeMap::new(),
            preparations: PreparationQueue::default(),
            plans: IncrementalPlan::default(),
            full_pass_at: Instant::now(),
            summary: ReconcileSummary::default(),
            failures_recorded_at: None,
            failures_persisted_to: None,
            restart_for: Vec::new(),
            reports: mpsc::channel(REPORT_CAPACITY),
            requests: setup.requests,
            wakes: setup.wakes,
            ready: setup.ready,
            settled: setup.settled,
            pending_applies: Vec::new(),
            watch_set: setup.watch_set,
            facts: setup.facts,
            orphans_until: None,
        };
        // The first pass plans from the components, so that they are read before it.
        reconciler.scan_components(true);
        // After the declared agents are known: all other receivers in the store are orphans.
        reconciler.announce_orphans();
        reconciler.mark_all();
        // Before the first pass, which starts to load components: then nothing that is being written can be removed.
        reconciler.collect_garbage(true);
        reconciler.reconcile();
        reconciler
    }

    /// Returns the time of the steady clock in milliseconds since 1970. Setting the wall clock does not change it.
    pub(super) fn now(&self) -> u64 {
        clock::steady_ms()
    }

    /// Publishes the agents that can be called.
    pub(super) fn publish(&self) {
        let agents = |retired: bool| {
            let selected = self.managed.iter().filter(move |(_, managed)| managed.retired.is_some() == retired);
            selected.map(|(name, managed)| (name, &managed.agent))
        };
        // Retiring agents have no routes any more, and still receive messages of open conversations.
        let retiring = agents(true).map(|(name, agent)| (name.clone(), Arc::clone(agent))).collect();
        let routes = Routes::after(&self.directory.routes.load(), agents(false)).with_retiring(retiring);
        // Replaced as a whole, so that calls read the routes without a lock.
        self.directory.routes.store(Arc::new(routes));
    }

    /// Forgets failed revisions and refused rollouts, so that they are tried again.
    pub(super) fn retry(&mut self) {
        for managed in self.managed.values_mut() {
            managed.revisions.retain(|revision| !matches!(revision.state, RevisionState::Failed { .. }));
        }
        self.mark_all();
        // Otherwise the ledger would refuse the same component and settings for good.
        self.ledgers.values_mut().for_each(Ledger::forget_failures);
    }

    /// Returns `true` if the revisions that take messages are the declared ones. Old revisions may still drain.
    pub(super) fn is_as_declared(&self) -> bool {
        let runs = |(name, wanted): (&AgentName, &DesiredAgent)| {
            self.managed.get(name).is_some_and(|managed| {
                managed.agent.current().is_some_and(|current| {
                    current.spec.same_settings(&wanted.spec) && wanted.component == ComponentFile::Found(current.digest)
                })
            })
        };
        self.file_errors.is_empty() && self.policy.errors.is_empty() && self.wanted.iter().all(runs)
    }
}

/// The agents that are left to be drained when the reconciler has stopped.
pub(crate) struct AgentsToDrain {
    pub(super) managed: BTreeMap<AgentName, ManagedAgent>,
    /// The time limit of the drain.
    pub(crate) limit: Duration,
}

impl AgentsToDrain {
    /// Returns the agents, each with its live revisions.
    pub(crate) fn agents(&self) -> impl Iterator<Item = (&Arc<Agent>, Vec<Arc<Revision>>)> {
        self.managed.values().map(|managed| {
            (&managed.agent, managed.revisions.iter().filter_map(|revision| revision.live.clone()).collect())
        })
    }
}
