//! A host from its start to its end.
//!
//! ```text
//! read the file -> hold the data folder -> set up the engine -> listen -> build -> reconcile -> ready
//!   ... until a signal, or it cannot go on: stop listening -> drain -> save -> close the store
//! ```

mod ports;
pub(crate) mod signals;
mod stop;

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use caxton_control::{Desired, desired};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::ports::{Ports, Sockets, Stops};
use self::stop::{End, stop};
use crate::admin;
use crate::agent::forget_unwanted;
use crate::clock;
use crate::config::{ConfigErrors, Loaded};
use crate::context::HostContext;
use crate::directory::schedules;
use crate::directory::wakeups;
use crate::directory::{HostDirectory, idle};
use crate::host::signals::{Asked, Signals};
use crate::reconcile::build;
use crate::reconcile::handle::{Control, Readiness, Wake};
use crate::reconcile::stamp::Writing;
use crate::reconcile::watcher::{Before, Followed, Following};
use crate::reconcile::{Drained, Facts, Reconciler, Setup, Source};
use crate::store::{Store, StoreError};
use crate::systemd::{self, Supervisor};
use crate::tasks;
use crate::tasks::RECONCILER;
use crate::telemetry::histogram;
use crate::telemetry::host_stats;
use crate::telemetry::metrics;
use crate::wasm::{Runtime, RuntimeOptions};

/// How a host is to be run.
#[derive(Debug, Clone)]
pub(crate) struct UpOptions {
    /// The file that declares the agents.
    pub(crate) file: PathBuf,
    /// The data folder, in place of `store.path`.
    pub(crate) data: Option<PathBuf>,
    /// Settings of the command line, such as `http.listen`, which go before those of the file.
    pub(crate) flags: Vec<(String, String)>,
    /// Whether components are built first.
    pub(crate) build: bool,
    /// Whether components are built again when their sources change.
    pub(crate) watch: bool,
    /// Where to write the ports once everything is ready.
    pub(crate) ports_file: Option<PathBuf>,
}

/// The file in the data folder by which commands find a host.
pub(crate) const HOST_FILE: &str = "host.json";
/// How long a host that was killed may still have the data folder.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);
/// The longest wait for a host to end whose data folder was removed or exchanged.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Why a host did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The declaration has errors.
    Config(ConfigErrors),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Runs a host until it is told to stop.
pub(crate) fn run(options: UpOptions) -> Result<ExitCode, StartError> {
    // Calls and what the host does itself have threads of their own: they never wait until thousands of mailboxes had
    // their turn. Both have a thread for each core, which the system shares out.
    // They count most: each has a place of its own for it, taken before others take any.
    let workers = threads("caxton-work", histogram::take_shard)?;
    let runtime = threads("caxton", || ())?;
    let code = runtime.block_on(up(options, workers.handle().clone()));
    // What still runs was given its time.
    for threads in [workers, runtime] {
        threads.shutdown_timeout(Duration::from_secs(1));
    }
    code
}

/// A thread for each core.
fn threads(name: &str, start: fn()) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.enable_all().thread_name(name).on_thread_start(start).build().context("starting the threads of the host")
}

/// Everything of a host that listens.
struct Host {
    context: Arc<HostContext>,
    directory: Arc<HostDirectory>,
    control: Control,
    reconciler: JoinHandle<Option<Drained>>,
    settled: watch::Receiver<bool>,
    ports: Ports,
    /// The moment at which it began to start.
    began: Instant,
    stops: Stops,
    listeners: Vec<JoinHandle<Option<()>>>,
    /// The value of `host.drain` at the start: the time for work in hand at the end.
    drain: Duration,
}

async fn up(options: UpOptions, workers: Handle) -> Result<ExitCode, StartError> {
    let supervisor = Supervisor::of_process();
    let mut signals = Signals::listen().context("listening to signals")?;
    let at = std::path::absolute(&options.file).unwrap_or_else(|_| options.file.clone());
    let source = Source { file: options.file.clone(), at, flags: options.flags.clone() };
    tokio::select! {
        () = source.until_whole() => {}
        () = signals.stop() => return Ok(ExitCode::from(130)),
    }
    let loaded = source.load().map_err(StartError::Config)?;
    let building = CancellationToken::new();
    loaded.tell_warnings();
    let mut starting = std::pin::pin!(start(&options, source, loaded, workers, &building));
    let host = tokio::select! {
        host = &mut starting => host?,
        never = supervisor.extend_start() => match never {},
        // Compiling and building may take long; nothing is running that would have to be drained.
        () = signals.stop() => {
            building.cancel();
            let _ = tokio::time::timeout(build::LEAVES_WITHIN * 2, starting).await;
            return Ok(ExitCode::from(130));
        }
    };
    let data = host.context.store.folder().to_owned();
    let end = serve(&options, &host, &supervisor, &mut signals).await?;
    supervisor.tell(&systemd::stopping(&end_words(&end)));
    let context = Arc::clone(&host.context);
    let code = tokio::select! {
        code = stop(host, &end) => code,
        never = supervisor.watch(&context.tasks) => match never {},
        () = signals.stop() => {
            tracing::warn!("stopping now; what was in hand is given up");
            ExitCode::from(130)
        }
    };
    // It may have been lost meanwhile.
    let end = context.store.lost().map_or(end, End::StoreLost);
    match end {
        End::Asked | End::TaskDied(_) => drop(std::fs::remove_file(data.join(HOST_FILE))),
        // The file that is there now is another host's.
        End::StoreLost(_) => {}
    }
    match end {
        End::Asked => Ok(code),
        End::TaskDied(why) | End::StoreLost(why) => {
            Err(StartError::Other(anyhow::anyhow!("the host could not go on and has ended: {why}")))
        }
    }
}

fn end_words(end: &End) -> String {
    match end {
        End::Asked => "stopping".to_owned(),
        End::TaskDied(why) | End::StoreLost(why) => format!("cannot go on: {why}"),
    }
}

/// Runs a host that has started until it ends, and says why it does.
async fn serve(
    options: &UpOptions,
    host: &Host,
    supervisor: &Supervisor,
    signals: &mut Signals,
) -> Result<End, StartError> {
    let context = &host.context;
    let mut announce = Box::pin(announce(options, host, host.settled.clone()));
    let mut announced = false;
    let mut reload = None;
    loop {
        tokio::select! {
            result = &mut announce, if !announced => {
                announced = true;
                if let Err(error) = result {
                    // Who is asked may have died meanwhile.
                    return context.tasks.failed().map(End::TaskDied).ok_or(error.into());
                }
                supervisor.tell(&systemd::ready());
            }
            why = context.tasks.until_failed() => return Ok(End::TaskDied(why)),
            why = context.store.until_lost() => return Ok(End::StoreLost(why)),
            never = supervisor.extend_start(), if !announced => match never {},
            never = supervisor.watch(&context.tasks) => match never {},
            // A file with errors is told as always; what runs goes on, so the host is ready again.
            _ = async { match &mut reload { Some(reload) => Pin::new(reload).await, None => std::future::pending().await } } => {
                reload = None;
                supervisor.tell(&systemd::ready());
            }
            signal = signals.next() => match signal {
                Asked::Reload => {
                    tracing::info!("SIGHUP: reading {} and all components again", options.file.display());
                    supervisor.tell(&systemd::reloading());
                    let control = host.control.clone();
                    reload = Some(Box::pin(async move { control.reload().await }));
                }
                Asked::Stop => return Ok(End::Asked),
            },
        }
    }
}

/// Opens the store. A host that was killed a moment ago has it until the system has ended that process.
async fn open_store(data: &Path, settings: &desired::Store) -> Result<Arc<Store>, StoreError> {
    let began = Instant::now();
    let mut told = false;
    loop {
        match Store::open(data, settings) {
            Err(StoreError::PathInUse { .. }) if began.elapsed() < ENDS_WITHIN => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("waits for another host to end, which had another folder at {}", data.display());
                }
                tokio::time::sleep(LEAVES_WITHIN / 100).await;
            }
            Err(StoreError::InUse { pid, .. }) if began.elapsed() < LEAVES_WITHIN => {
                if !std::mem::replace(&mut told, true) {
                    let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
                    tracing::info!("waits for another host{pid} to leave the data folder {}", data.display());
                }
                tokio::time::sleep(LEAVES_WITHIN / 100).await;
            }
            opened => return opened,
        }
    }
}

async fn start(
    options: &UpOptions,
    source: Source,
    loaded: Loaded,
    workers: Handle,
    building: &CancellationToken,
) -> anyhow::Result<Host> {
    let desired = &loaded.desired;
    let (began, drain) = (Instant::now(), desired.host.drain);
    let data = options.data.clone().unwrap_or_else(|| loaded.dir.join(&desired.store.path));
    // First: whoever begins to count before is not heard.
    let metrics = metrics::install();
    let store = open_store(&data, &desired.store).await?;
    let (cache, shared_cache) = cache_folder(&data);
    let runtime = Runtime::new(RuntimeOptions {
        cache,
        shared_cache,
        // Not by its path: that may lead to another version by the time it is used.
        compiler: vec!["/proc/self/exe".into()],
        instances: desired.host.instances,
    })?;
    let sockets = Sockets::bind(desired).await?;
    let ports = sockets.ports.clone();
    let (followed, sources) = first_builds(options, &source, &loaded, &data, building).await?;
    let directory = share(store, workers, desired, &data)?;
    let context = Arc::clone(&directory.context);
    let stops = Stops::default();
    let (command_sender, commands) = mpsc::channel(64);
    let (wake_sender, wakes) = mpsc::channel(64);
    let (ready_sender, ready) = watch::channel(Readiness::default());
    let (settled_sender, settled) = watch::channel(false);
    let (followed_sender, followed) = watch::channel(followed);
    let writing = Writing::default();
    let following = Following { followed, sources, writing: writing.clone() };
    let settings = Arc::new(ArcSwap::from_pointee(desired.http.clone()));
    let control = Control::new(command_sender, ready);
    let facts = Facts {
        started_at: clock::now_ms(),
        http: ports.http.to_string(),
        admin: ports.admin.to_string(),
        stopping: false,
    };
    context.events.tell(
        None,
        "host.started",
        serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "file": source.file.to_string_lossy() }),
    );
    let admin_state = admin::AdminState::new(control.clone(), Arc::clone(&directory), metrics, &data)?;
    let reconciler = Reconciler::new(Setup {
        directory: Arc::clone(&directory),
        runtime,
        source,
        declared: loaded,
        http: Arc::clone(&settings),
        commands,
        wakes,
        ready: ready_sender,
        settled: settled_sender,
        followed: followed_sender,
        writing,
        facts,
    });
    let mut listeners = sockets.serve(&settings, &directory, admin_state, &stops);
    // Waited for at the end, like the listeners: it ends a build that is under way.
    listeners.push(keep_going(&directory, &stops.stop, following, wake_sender));
    let stop = &stops.stop;
    let reconciler = context.tasks.vital(RECONCILER, stop.clone(), reconciler.run(stop.clone()));
    write_private(&data.join(HOST_FILE), &host_file(&ports)).context("writing where this host listens")?;
    Ok(Host { context, directory, control, reconciler, settled, ports, stops, listeners, drain, began })
}

/// Runs the first builds, if they are asked for. Returns what is followed, with the sources as they were before.
async fn first_builds(
    options: &UpOptions,
    source: &Source,
    loaded: &Loaded,
    data: &Path,
    stop: &CancellationToken,
) -> anyhow::Result<(Arc<Followed>, Option<Before>)> {
    let followed = Arc::new(Followed::new(&source.at, &loaded.dir, data, &loaded.desired));
    // Before the builds: who edits a source meanwhile wants it built.
    let sources = options.watch.then(|| Before::now(&followed, options.build));
    if options.build {
        build::run_all(&followed.builds, &loaded.dir, stop).await?;
    }
    Ok((followed, sources))
}

/// The work of a task that goes on beside.
type Lasting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts what goes on beside, until `stop`. Returns the task that follows files.
fn keep_going(
    directory: &Arc<HostDirectory>,
    stop: &CancellationToken,
    following: Following,
    wakes: mpsc::Sender<Wake>,
) -> JoinHandle<Option<()>> {
    let tasks = &directory.context.tasks;
    let each = |name, run: fn(Arc<HostDirectory>, CancellationToken) -> Lasting| {
        let (directory, of_task) = (Arc::clone(directory), stop.clone());
        drop(tasks.lasting(name, stop.clone(), move || run(Arc::clone(&directory), of_task.clone())));
    };
    each("sweep", |directory, stop| Box::pin(idle::run(directory, stop)));
    each("figures", |directory, stop| Box::pin(host_stats::run(Arc::clone(&directory.context.figures), stop)));
    each(tasks::TIMERS, |directory, stop| Box::pin(wakeups::run(directory, stop)));
    each("schedules", |directory, stop| Box::pin(schedules::run(directory, stop)));
    let of_task = stop.clone();
    let watch = move || crate::reconcile::watcher::run(following.clone(), wakes.clone(), of_task.clone());
    tasks.lasting("watch", stop.clone(), watch)
}

/// Creates the directory of agents, with the messages that waited in the store for them.
fn share(store: Arc<Store>, workers: Handle, desired: &Desired, data: &Path) -> anyhow::Result<Arc<HostDirectory>> {
    let context = HostContext::new(store, workers);
    let directory = HostDirectory::new(Arc::clone(&context)).map_err(|error| {
        anyhow::anyhow!("reading what waits in the store {}: {error}; `caxton store check` says whether it is damaged, and if it is, put a backup in its place or move it away", data.display())
    })?;
    context.store.conversations.configure(desired.conversations.clone());
    forget_unwanted(&context.store, desired);
    Ok(directory)
}

/// The folder of compiled components, and whether several hosts of one user may share it.
fn cache_folder(data: &Path) -> (PathBuf, bool) {
    // An empty variable is one that is not set.
    match std::env::var_os("CAXTON_CACHE").filter(|cache| !cache.is_empty()) {
        Some(cache) => (PathBuf::from(cache).join("compiled"), true),
        None => (data.join("cache"), false),
    }
}

fn host_file(ports: &Ports) -> String {
    let mut host = serde_json::json!({ "http": ports.http, "admin": ports.admin, "pid": std::process::id() });
    if let Some(probes) = ports.probes {
        host["probes"] = probes.to_string().into();
    }
    host.to_string()
}

/// Writes a file whole or not at all, readable by its owner only.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(temporary, path)
}

/// Says that the host is up, once everything that can be done was done.
async fn announce(options: &UpOptions, host: &Host, mut settled: watch::Receiver<bool>) -> anyhow::Result<()> {
    let probes = host.ports.probes.map_or_else(String::new, |probes| format!("   probes: http://{probes}"));
    tracing::info!("calls: http://{}   management: http://{}{probes}", host.ports.http, host.ports.admin);
    if settled.wait_for(|settled| *settled).await.is_err() {
        return Ok(());
    }
    let agents = host.control.agents().await?;
    let running = agents.iter().filter(|agent| agent.state == "running").count();
    let took = host.began.elapsed();
    tracing::info!("{running} of {} agents run, {:.1} s after the start", agents.len(), took.as_secs_f64());
    for agent in agents.iter().take(SHOWN) {
        for route in &agent.routes {
            tracing::info!("  {route} -> {}", agent.name);
        }
    }
    if let Some(path) = &options.ports_file {
        let text = serde_json::to_string(&host.ports)?;
        write_private(path, &text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Agents whose routes are told at the start.
const SHOWN: usize = 20;
