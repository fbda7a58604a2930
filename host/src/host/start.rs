//! The start of a host: everything is set up in the order in which it is needed.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use caxton_control::{Desired, desired};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::host_file::{HOST_FILE, Ports, write_host_file};
use super::no_room::open_when_room;
use super::ports::{Sockets, Stops};
use crate::access::{Access, log_unread_keys};
use crate::admin;
use crate::agent::forget_unwanted;
use crate::clock;
use crate::config::{Loaded, LoadedOperator};
use crate::context::HostContext;
use crate::conversation::Conversations;
use crate::directory::{HostDirectory, idle, memory_watch, schedules, wakeups};
use crate::memory_budget::{MemoryBudget, machine_budget};
use crate::reconcile::file_stamp::OpenWrites;
use crate::reconcile::handle::{Readiness, ReconcilerHandle, Wake};
use crate::reconcile::watcher::{self, SourceBaseline, WatchSet, WatcherSetup};
use crate::reconcile::{AgentsToDrain, DeclarationSource, HostFacts, Reconciler, ReconcilerSetup, build};
use crate::secrets::{self, Secrets};
use crate::store::{Store, StoreError};
use crate::tasks::{self, RECONCILER};
use crate::telemetry::{host_stats, metrics};
use crate::wasm::{Runtime, RuntimeOptions};

/// The options of `caxton up`.
#[derive(Debug, Clone)]
pub(crate) struct UpOptions {
    /// The declaration file.
    pub(crate) file: PathBuf,
    /// The operator's own file.
    pub(crate) policy: Option<PathBuf>,
    /// The data folder. Overrides `store.path`.
    pub(crate) data: Option<PathBuf>,
    /// Settings of the command line, such as `http.listen`. They override those of the file.
    pub(crate) flags: Vec<(String, String)>,
    /// Builds the components first.
    pub(crate) build: bool,
    /// Builds components again when their sources change.
    pub(crate) watch: bool,
    /// The file to write the ports to once everything is ready.
    pub(crate) ports_file: Option<PathBuf>,
}

/// The wait for a killed host to release the data folder: the system ends its process within that time.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// The wait for a host whose data folder was removed or replaced. It still answers its last callers.
const MOVED_FOLDER_TIMEOUT: Duration = Duration::from_secs(30);

/// A host that has started.
pub(super) struct Host {
    pub(super) context: Arc<HostContext>,
    pub(super) access: Arc<Access>,
    pub(super) directory: Arc<HostDirectory>,
    pub(super) reconciler: ReconcilerHandle,
    pub(super) reconciler_task: JoinHandle<Option<AgentsToDrain>>,
    pub(super) settled: watch::Receiver<bool>,
    pub(super) ports: Ports,
    /// The moment at which the start began.
    pub(super) began: Instant,
    pub(super) stops: Stops,
    pub(super) listeners: Vec<JoinHandle<Option<()>>>,
    /// The value of `host.drain` at the start, for a host whose reconciler dies.
    pub(super) drain: Duration,
}

/// The store with the judge of its commits.
type OpenedStore = (Arc<Store>, Arc<Conversations>);

/// Opens the store. Waits for a host that still has it: one that was killed a moment ago, or that is giving up a folder
/// which was moved away.
async fn open_store(data: &Path, settings: &desired::StoreSpec) -> Result<OpenedStore, StoreError> {
    let began = Instant::now();
    let mut logged = false;
    loop {
        match Store::open(data, settings, Conversations::load) {
            Err(StoreError::PathInUse { .. }) if began.elapsed() < MOVED_FOLDER_TIMEOUT => {
                if !std::mem::replace(&mut logged, true) {
                    tracing::info!("waits for another host to end, which had another folder at {}", data.display());
                }
                // Polled, because the release of a lock sends no event.
                tokio::time::sleep(LOCK_TIMEOUT / 100).await;
            }
            Err(StoreError::InUse { pid, .. }) if began.elapsed() < LOCK_TIMEOUT => {
                if !std::mem::replace(&mut logged, true) {
                    let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
                    tracing::info!("waits for another host{pid} to leave the data folder {}", data.display());
                }
                tokio::time::sleep(LOCK_TIMEOUT / 100).await;
            }
            opened => return opened,
        }
    }
}

/// Opens the store and binds the listeners. While there is no room for a store, the listeners say so.
async fn open_store_and_sockets(
    data: &Path,
    loaded: &Loaded,
    stop: &CancellationToken,
) -> anyhow::Result<(OpenedStore, Sockets)> {
    let open = || open_store(data, &loaded.desired.store);
    let opened = match open().await {
        Err(error) if !error.lacks_room() => return Err(error.into()),
        opened => opened,
    };
    // Before the builds: a port in use is reported at once and not after minutes.
    let sockets = Sockets::bind(loaded).await?;
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            sockets.ports.log();
            open_when_room(error, sockets.try_clone()?, &loaded.desired.http, open, stop).await?
        }
    };
    Ok((store, sockets))
}

pub(super) async fn start(
    options: &UpOptions,
    source: DeclarationSource,
    (operator, loaded): (Option<LoadedOperator>, Loaded),
    workers: Handle,
    building: &CancellationToken,
) -> anyhow::Result<Host> {
    let desired = &loaded.desired;
    let (began, drain) = (Instant::now(), desired.host.drain);
    let data = options.data.clone().unwrap_or_else(|| loaded.dir.join(&desired.store.path));
    // First, because values recorded before the recorder is installed are lost.
    let metrics = metrics::install();
    // Before anything writes into the folder, which may still belong to another host.
    let (store, sockets) = open_store_and_sockets(&data, &loaded, building).await?;
    let secrets = first_secrets(&loaded).await?;
    let memory = MemoryBudget::new(desired.host.memory_bytes.unwrap_or_else(machine_budget));
    let runtime = open_runtime(&data, desired, (&secrets, &memory))?;
    let ports = sockets.ports.clone();
    let (watch_set, sources) = first_builds(options, &source, &loaded, &data, building).await?;
    let directory = create_directory((store, memory), workers, desired, &data)?;
    configure_calls(&directory, &loaded, &secrets);
    let context = Arc::clone(&directory.context);
    let stops = Stops::default();
    let (request_sender, requests) = mpsc::channel(64);
    let (wake_sender, wakes) = mpsc::channel(64);
    let (ready_sender, ready) = watch::channel(Readiness::default());
    let (settled_sender, settled) = watch::channel(false);
    let (watch_set_sender, watch_set) = watch::channel(watch_set);
    let writing = OpenWrites::default();
    let watcher_setup = WatcherSetup { watch_set, sources, writing: writing.clone() };
    let settings = Arc::new(ArcSwap::from_pointee(desired.http.clone()));
    let handle = ReconcilerHandle::new(request_sender, ready);
    let facts = facts(&ports);
    emit_started(&context, &source.file);
    let access = open_access(&loaded, &data)?;
    let admin_state =
        admin::AdminState::new(handle.clone(), Arc::clone(&directory), metrics, Arc::clone(&access), &data);
    // Before the listeners accept: its first pass registers the agents, so that no early call finds an unknown name.
    let reconciler = Reconciler::new(ReconcilerSetup {
        directory: Arc::clone(&directory),
        runtime,
        source,
        declared: loaded,
        operator,
        http: Arc::clone(&settings),
        certificates: sockets.certificates(&data),
        secrets,
        requests,
        wakes,
        ready: ready_sender,
        settled: settled_sender,
        watch_set: watch_set_sender,
        writing,
        facts,
    });
    let host_file = sockets.host_file();
    let mut listeners = sockets.serve(&settings, &directory, &access, admin_state, &stops);
    // Awaited at the end like the listeners, because it ends a build that is under way.
    listeners.push(start_lasting_tasks(&directory, &access, &stops.stop, watcher_setup, wake_sender));
    let stop = &stops.stop;
    let reconciler_task = context.tasks.vital(RECONCILER, stop.clone(), reconciler.run(stop.clone()));
    // Last, so that commands find only a host that answers.
    write_host_file(data.join(HOST_FILE), host_file, stop.clone()).context("writing where this host listens")?;
    let reconciler = handle;
    Ok(Host { context, access, directory, reconciler, reconciler_task, settled, ports, stops, listeners, drain, began })
}

/// Opens the engine with its cache of compiled components.
fn open_runtime(
    data: &Path,
    desired: &Desired,
    (secrets, memory): (&Arc<Secrets>, &MemoryBudget),
) -> anyhow::Result<Arc<Runtime>> {
    let (cache, shared_cache) = cache_folder(data);
    Ok(Runtime::new(RuntimeOptions {
        cache,
        shared_cache,
        // Not by its path, which may lead to another version of the program by the time it is used.
        compiler: vec!["/proc/self/exe".into()],
        instances: desired.host.instances,
        secrets: Arc::clone(secrets),
        memory: memory.clone(),
    })?)
}

/// Opens the tokens and the audit log.
fn open_access(loaded: &Loaded, data: &Path) -> anyhow::Result<Arc<Access>> {
    log_unread_keys(&loaded.desired, &loaded.dir);
    Ok(Arc::new(Access::open(data, &loaded.dir, loaded.desired.admin.audit_max_bytes)?))
}

/// Reads the secrets for the first time.
async fn first_secrets(loaded: &Loaded) -> anyhow::Result<Arc<Secrets>> {
    let mut read = secrets::read(&loaded.desired, &loaded.dir);
    secrets::run_commands(&loaded.desired.secrets, &loaded.dir, &mut read).await;
    // Variables and files were checked with the declaration; what is left is mostly of commands.
    if let Some(error) = read.errors.first() {
        let (key, help) = (error.path.join("."), error.help);
        anyhow::bail!("{key}: the secret `{}` has no value: {}; {help}", error.name, error.reason);
    }
    let secrets = Arc::new(Secrets::default());
    secrets.take(read.values);
    Ok(secrets)
}

/// Returns the part of the host's status that is known by now.
fn facts(ports: &Ports) -> HostFacts {
    HostFacts {
        started_at: clock::now_ms(),
        http: ports.http.to_string(),
        admin: ports.admin.to_string(),
        stopping: false,
    }
}

/// Emits `host.started`.
fn emit_started(context: &HostContext, file: &Path) {
    let data = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "file": file.to_string_lossy() });
    context.events.emit(None, "host.started", data);
}

/// Runs the first builds if `--build` is set. Returns the files to follow, and the state of the sources before the
/// builds.
async fn first_builds(
    options: &UpOptions,
    source: &DeclarationSource,
    loaded: &Loaded,
    data: &Path,
    stop: &CancellationToken,
) -> anyhow::Result<(Arc<WatchSet>, Option<SourceBaseline>)> {
    let watch_set = Arc::new(
        WatchSet::new(&source.at, &loaded.dir, data, &loaded.desired)
            .with_policy(source.policy.as_ref().map(|policy| policy.at.as_path()), &loaded.desired.policy),
    );
    // Read before the builds, so that a source edited meanwhile is built again.
    let sources = options.watch.then(|| SourceBaseline::now(&watch_set, options.build));
    if options.build {
        build::run_all(&watch_set.builds, &loaded.dir, stop).await?;
    }
    Ok((watch_set, sources))
}

/// The future of a lasting task.
type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts the lasting tasks, which run until `stop`. Returns the handle of the one that follows files.
fn start_lasting_tasks(
    directory: &Arc<HostDirectory>,
    access: &Access,
    stop: &CancellationToken,
    watcher_setup: WatcherSetup,
    wakes: mpsc::Sender<Wake>,
) -> JoinHandle<Option<()>> {
    let tasks = &directory.context.tasks;
    let each = |name, run: fn(Arc<HostDirectory>, CancellationToken) -> TaskFuture| {
        let (directory, of_task) = (Arc::clone(directory), stop.clone());
        drop(tasks.lasting(name, stop.clone(), move || run(Arc::clone(&directory), of_task.clone())));
    };
    each("sweep", |directory, stop| Box::pin(idle::run(directory, stop)));
    each("figures", |directory, stop| Box::pin(host_stats::run(Arc::clone(&directory.context.host_stats), stop)));
    each(tasks::TIMERS, |directory, stop| Box::pin(wakeups::run(directory, stop)));
    each("memory", |directory, stop| Box::pin(memory_watch::run(directory, stop)));
    each("schedules", |directory, stop| Box::pin(schedules::run(directory, stop)));
    let (audit, of_task) = (access.audit.clone(), stop.clone());
    drop(tasks.lasting("audit", stop.clone(), move || audit.clone().log_heads(of_task.clone())));
    let of_task = stop.clone();
    let watch = move || watcher::run(watcher_setup.clone(), wakes.clone(), of_task.clone());
    tasks.lasting("watch", stop.clone(), watch)
}

/// Creates the directory of agents, with the messages that waited in the store for them.
fn create_directory(
    (store, memory): (OpenedStore, MemoryBudget),
    workers: Handle,
    desired: &Desired,
    data: &Path,
) -> anyhow::Result<Arc<HostDirectory>> {
    let context = HostContext::with_memory(store, workers, memory);
    let directory = HostDirectory::new(Arc::clone(&context)).map_err(|error| {
        anyhow::anyhow!("reading what waits in the store {}: {error}; `caxton store check` says whether it is damaged, and if it is, put a backup in its place or move it away", data.display())
    })?;
    context.conversations.configure(desired.conversations.clone());
    forget_unwanted(&context.store, desired);
    Ok(directory)
}

/// Gives the client for calls of agents its settings.
fn configure_calls(directory: &HostDirectory, loaded: &Loaded, secrets: &Arc<Secrets>) {
    directory.context.budgets.configure(&loaded.desired.budgets);
    let configured = directory.context.outgoing.configure(&loaded.desired.outgoing, &loaded.dir, secrets);
    for error in configured.err().into_iter().flatten() {
        // The files were checked with the declaration, and have changed since.
        tracing::error!("outgoing.ca: {error}; its issuers are not trusted until it can be read");
    }
}

/// Returns the folder of compiled components, and `true` if several hosts may share it.
fn cache_folder(data: &Path) -> (PathBuf, bool) {
    // An empty variable counts as not set.
    match std::env::var_os("CAXTON_CACHE").filter(|cache| !cache.is_empty()) {
        Some(cache) => (PathBuf::from(cache).join("compiled"), true),
        None => (data.join("cache"), false),
    }
}
