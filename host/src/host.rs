//! A host from its start to its end.
//!
//! ```text
//! read the file -> hold the data folder -> set up the engine -> listen -> build -> reconcile -> ready
//!   ... until a signal: stop listening -> drain -> save -> close the store
//! ```

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use caxton_control::{Desired, desired};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::{Revision, bury_orphans, forget_unwanted};
use crate::commons::Commons;
use crate::config::{ConfigErrors, Loaded};
use crate::control::{Control, Readiness, Wake};
use crate::reconcile::{Drained, Facts, Reconciler, Setup, Source};
use crate::shutdown::{Asked, Signals};
use crate::store::{Store, StoreError};
use crate::wasm::{Runtime, RuntimeOptions};
use crate::watch::Followed;
use crate::{admin, build, clock, figures, histogram, http, metrics, schedules, sweep, timers};

/// How a host is to be run.
#[derive(Debug, Clone)]
pub(crate) struct UpOptions {
    /// The file that declares the agents.
    pub(crate) file: PathBuf,
    /// Settings of the command line, such as `http.listen`, which go before those of the file.
    pub(crate) flags: Vec<(String, String)>,
    /// Whether components are built first.
    pub(crate) build: bool,
    /// Whether components are built again when their sources change.
    pub(crate) watch: bool,
    /// Where to write the ports once everything is ready.
    pub(crate) ports_file: Option<PathBuf>,
}

/// Where a host listens, as it is written for programs.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Ports {
    /// Where agents are called.
    pub(crate) http: SocketAddr,
    /// Where the management API is.
    pub(crate) admin: SocketAddr,
    /// Where probes and metrics alone are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) probes: Option<SocketAddr>,
}

/// The file in the data folder by which commands find a host.
pub(crate) const HOST_FILE: &str = "host.json";
/// How long a host that was killed may still have the data folder.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);
/// How often a stopping host looks whether everything is at rest, beside being told.
const LOOK: Duration = Duration::from_millis(20);

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
    commons: Arc<Commons>,
    control: Control,
    reconciler: tokio::task::JoinHandle<Drained>,
    settled: watch::Receiver<bool>,
    wakes: mpsc::Sender<Wake>,
    ports: Ports,
    /// Stops taking calls.
    closing: CancellationToken,
    /// Stops deciding.
    stop: CancellationToken,
    /// Stops answering probes, which go on while the host drains.
    probing: CancellationToken,
    listeners: Vec<tokio::task::JoinHandle<()>>,
}

async fn up(options: UpOptions, workers: Handle) -> Result<ExitCode, StartError> {
    let mut signals = Signals::listen().context("listening to signals")?;
    let source = Source { file: options.file.clone(), flags: options.flags.clone() };
    let loaded = source.load().map_err(StartError::Config)?;
    let starting = start(&options, source, loaded, workers);
    let host = tokio::select! {
        host = starting => host?,
        // Compiling and building may take long; nothing is running that would have to be drained.
        () = signals.stop() => return Ok(ExitCode::from(130)),
    };
    let data = host.commons.store.folder().to_owned();
    let settled = host.settled.clone();
    let mut announce = Box::pin(announce(&options, &host, settled));
    let mut announced = false;
    loop {
        tokio::select! {
            result = &mut announce, if !announced => {
                announced = true;
                result?;
            }
            signal = signals.next() => match signal {
                Asked::Reload => {
                    tracing::info!("SIGHUP: reading {} and all components again", options.file.display());
                    let _ = host.wakes.send(Wake::All).await;
                }
                Asked::Stop => break,
            },
        }
    }
    drop(announce);
    let code = tokio::select! {
        code = stop(host) => code,
        () = signals.stop() => {
            tracing::warn!("stopping now; what was in hand is given up");
            ExitCode::from(130)
        }
    };
    let _ = std::fs::remove_file(data.join(HOST_FILE));
    Ok(code)
}

/// Opens the store. A host that was killed a moment ago has it until the system has ended that process.
async fn open_store(data: &Path, settings: &desired::Store) -> Result<Arc<Store>, StoreError> {
    let until = Instant::now() + LEAVES_WITHIN;
    let mut told = false;
    loop {
        match Store::open(data, settings) {
            Err(StoreError::InUse { pid, .. }) if Instant::now() < until => {
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

async fn start(options: &UpOptions, source: Source, loaded: Loaded, workers: Handle) -> anyhow::Result<Host> {
    let desired = &loaded.desired;
    let data = loaded.dir.join(&desired.store.path);
    // First: whoever begins to count before is not heard.
    let metrics = metrics::install();
    let store = open_store(&data, &desired.store).await?;
    let runtime = Runtime::new(RuntimeOptions {
        cache: cache_folder(&data),
        // Not by its path: that may lead to another version by the time it is used.
        compiler: vec!["/proc/self/exe".into()],
        instances: desired.host.instances,
    })?;
    let http_listener = bind("http.listen", "--listen", desired.http.listen).await?;
    let admin_listener = bind("admin.listen", "--admin", desired.admin.listen).await?;
    let probes_listener = match desired.probes.listen {
        Some(address) => Some(bind("probes.listen", "--probes", address).await?),
        None => None,
    };
    let ports = Ports {
        http: http_listener.local_addr()?,
        admin: admin_listener.local_addr()?,
        probes: probes_listener.as_ref().map(TcpListener::local_addr).transpose()?,
    };
    let followed = Arc::new(Followed::new(&source.file, &loaded.dir, desired.agents.values()));
    if options.build {
        build::run_all(&followed.builds, &loaded.dir).await?;
    }
    let commons = share(store, workers, desired, &data)?;
    let (stop, closing, probing) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (command_sender, commands) = mpsc::channel(64);
    let (wake_sender, wakes) = mpsc::channel(64);
    let (ready_sender, ready) = watch::channel(Readiness::default());
    let (settled_sender, settled) = watch::channel(false);
    let (followed_sender, followed) = watch::channel(followed);
    let settings = Arc::new(ArcSwap::from_pointee(desired.http.clone()));
    let control = Control::new(command_sender, ready);
    let facts = Facts {
        started_at: clock::now_ms(),
        http: ports.http.to_string(),
        admin: ports.admin.to_string(),
        stopping: false,
    };
    commons.events.tell(
        None,
        "host.started",
        serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "file": source.file }),
    );
    let admin_state = admin::AdminState::new(control.clone(), Arc::clone(&commons), metrics, &data)?;
    let reconciler = Reconciler::new(Setup {
        commons: Arc::clone(&commons),
        runtime,
        source,
        declared: loaded,
        http: Arc::clone(&settings),
        commands,
        wakes,
        ready: ready_sender,
        settled: settled_sender,
        followed: followed_sender,
        facts,
    });
    let api = admin::Api::new(admin_state, stop.clone());
    let mut listeners = vec![
        tokio::spawn(http::serve(http_listener, Arc::clone(&settings), Arc::clone(&commons), closing.clone())),
        tokio::spawn(admin::serve(admin_listener, api.clone(), stop.clone())),
    ];
    listeners.extend(probes_listener.map(|one| tokio::spawn(admin::serve_probes(one, api, probing.clone()))));
    tokio::spawn(sweep::run(Arc::clone(&commons), stop.clone()));
    tokio::spawn(figures::run(Arc::clone(&commons.figures), stop.clone()));
    tokio::spawn(timers::run(Arc::clone(&commons), stop.clone()));
    tokio::spawn(schedules::run(Arc::clone(&commons), stop.clone()));
    tokio::spawn(crate::watch::run(followed, options.watch, wake_sender.clone(), stop.clone()));
    let reconciler = tokio::spawn(reconciler.run(stop.clone()));
    write_private(&data.join(HOST_FILE), &host_file(&ports)).context("writing where this host listens")?;
    Ok(Host { commons, control, reconciler, settled, wakes: wake_sender, ports, closing, stop, probing, listeners })
}

/// What all agents share, with what waited in the store for them.
fn share(store: Arc<Store>, workers: Handle, desired: &Desired, data: &Path) -> anyhow::Result<Arc<Commons>> {
    let commons = Commons::new(store, workers).map_err(|error| {
        anyhow::anyhow!("reading what waits in the store {}: {error}; `caxton store check` says whether it is damaged, and if it is, put a backup in its place or move it away", data.display())
    })?;
    commons.store.conversations.configure(desired.conversations.clone());
    let orphans = commons.backlog.lock().take_others(|name| desired.agents.contains_key(name));
    bury_orphans(&commons.store, orphans);
    forget_unwanted(&commons.store, desired);
    Ok(commons)
}

/// Compiled components may be shared by several hosts of one user.
fn cache_folder(data: &Path) -> PathBuf {
    std::env::var_os("CAXTON_CACHE").map_or_else(|| data.join("cache"), |cache| PathBuf::from(cache).join("compiled"))
}

async fn bind(key: &str, flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{key}: the port of {address} is in use by another program; stop that one, or choose another with `{flag} {}:0` or in the file",
            address.ip()
        ),
        _ => anyhow::anyhow!("{key}: listening on {address}: {error}; choose another with `{flag} ADDR` or in the file"),
    })
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
    let took = Duration::from_millis(clock::now_ms().saturating_sub(host.control.status().await?.started_at));
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

/// How long connections may take to end once nothing is in hand any more.
const LEAVE: Duration = Duration::from_millis(500);
/// Agents whose routes are told at the start.
const SHOWN: usize = 20;

/// Ends a host: takes no more calls, lets what is in hand finish within `host.drain`, saves, closes.
async fn stop(host: Host) -> ExitCode {
    host.closing.cancel();
    host.stop.cancel();
    let mut deadline = Instant::now();
    let left = match host.reconciler.await {
        Ok(drained) => {
            tracing::info!("stopping; what is in hand has {} s", drained.limit.as_secs());
            deadline += drained.limit;
            drain(&host.commons, &drained, deadline).await
        }
        Err(error) => {
            tracing::error!(%error, "the reconciler ended badly");
            0
        }
    };
    host.probing.cancel();
    // What was given up is answered at once. A client that does not take its answer is not waited for.
    let until = Instant::now().max(deadline) + LEAVE;
    for listener in host.listeners {
        let _ = tokio::time::timeout_at(until.into(), listener).await;
    }
    host.commons.events.tell(None, "host.stopped", serde_json::json!({ "given_up": left }));
    if let Err(error) = host.commons.store.flush().await {
        tracing::error!(%error, "the store did not take the last writes");
        return ExitCode::FAILURE;
    }
    if let Err(error) = host.commons.store.empty_log().await {
        // The next start finds it there.
        tracing::warn!(%error, "a part of the store is left in its log");
    }
    if left > 0 {
        tracing::warn!("{left} messages were given up; their senders were told");
    }
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Waits until nothing is in hand or the time is over; saves what stateful agents keep. Gives the number of
/// messages that were given up.
async fn drain(commons: &Commons, drained: &Drained, deadline: Instant) -> u32 {
    for (agent, revisions) in drained.agents() {
        // What the store has waits there for the next start.
        agent.leave_queue();
        for revision in revisions {
            revision.tell_when_idle(true);
        }
    }
    // A worker may have an instance in hand for a moment longer than its last message.
    let works = |revision: &Arc<Revision>| revision.in_flight() > 0 || revision.pool.is_in_hand();
    let busy = || drained.agents().any(|(agent, revisions)| agent.is_busy() || revisions.iter().any(works));
    while busy() && Instant::now() < deadline {
        let _ = tokio::time::timeout(LOOK, commons.woken()).await;
    }
    let mut left = 0;
    for (agent, revisions) in drained.agents() {
        left += agent.depth();
        agent.close("the host is stopping");
        for revision in revisions {
            left += revision.in_flight();
            if let Err(why) = agent.save_idle(&revision, Duration::ZERO).await {
                tracing::error!(agent = %agent.name(), why, "an agent's memory was not kept");
            }
            revision.stop();
        }
    }
    left
}
