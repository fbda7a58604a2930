//! The composition root: a host from its start to its end.
//!
//! ```text
//! read the file -> lock the data folder -> set up the engine -> listen -> build -> reconcile -> ready
//!   ... until a signal or a fatal failure: stop listening -> drain -> save -> close the store
//! ```

mod host_file;
mod no_room;
mod ports;
pub(crate) mod signals;
mod start;
mod stop;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use self::host_file::HOST_FILE;
use self::host_file::{ROOM_RETRY, write_private};
use self::signals::{SignalRequest, Signals};
pub(crate) use self::start::UpOptions;
use self::start::{Host, start};
use self::stop::{EndReason, stop};
use crate::config::ConfigErrors;
use crate::net;
use crate::reconcile::{DeclarationSource, OperatorSource};
use crate::shell;
use crate::store::lacks_room;
use crate::systemd::{self, Supervisor};
use crate::telemetry::histogram;

/// Agents whose routes are logged at the start.
// A host may have thousands, whose routes would fill the log.
const MAX_LOGGED_AGENTS: usize = 20;
/// The exit code of a program that was ended by SIGINT, as shells report it.
const INTERRUPTED: u8 = 130;

/// The reason why a host did not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The declaration has errors.
    Config(ConfigErrors),
    /// A failure of another kind.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for StartError {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

/// Runs a host until it is asked to stop.
pub(crate) fn run(options: UpOptions) -> Result<ExitCode, StartError> {
    // Before anything opens files. Each connection is one, and common soft limits are for programs that use `select`.
    let (inherited, raised) = net::raise_limit();
    if inherited != raised {
        let number = |limit: Option<u64>| limit.map_or_else(|| "no".to_owned(), |limit| limit.to_string());
        tracing::debug!("the limit of open files is raised from {} to {}", number(inherited), number(raised));
    }
    // Two runtimes: HTTP calls and the host's own tasks never queue behind the handlers of thousands of mailboxes. Each
    // has a thread for each core, and the system shares the cores out. The workers record most statistics, so that they
    // take the first shards and rarely share one.
    let workers = threads("caxton-work", histogram::take_shard)?;
    let runtime = threads("caxton", || ())?;
    let code = runtime.block_on(up(options, workers.handle().clone()));
    // Tasks that still run have had their time limit.
    for threads in [workers, runtime] {
        threads.shutdown_timeout(Duration::from_secs(1));
    }
    code
}

/// Builds a runtime with a thread for each core.
fn threads(name: &str, start: fn()) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.enable_all().thread_name(name).on_thread_start(start).build().context("starting the threads of the host")
}

async fn up(options: UpOptions, workers: Handle) -> Result<ExitCode, StartError> {
    let supervisor = Supervisor::of_process();
    let mut signals = Signals::listen().context("listening to signals")?;
    // Absolute, because the watcher follows the path from the root.
    let at = std::path::absolute(&options.file).unwrap_or_else(|_| options.file.clone());
    let source = DeclarationSource {
        file: options.file.clone(),
        at,
        flags: options.flags.clone(),
        policy: options.policy.as_deref().map(OperatorSource::new),
    };
    tokio::select! {
        // An editor or a deployment may be writing the file at this moment.
        () = source.until_complete() => {}
        () = signals.stop() => return Ok(ExitCode::from(INTERRUPTED)),
    }
    let operator = source.policy.as_ref().map(OperatorSource::load).transpose().map_err(StartError::Config)?;
    let bounds = operator.as_ref().map_or_else(Default::default, |loaded| loaded.operator.clone());
    let mut loaded = source.load(&bounds, None).map_err(StartError::Config)?;
    if let Some(errors) = loaded.file_errors.take() {
        return Err(StartError::Config(errors));
    }
    let building = CancellationToken::new();
    loaded.log_warnings();
    let mut starting = std::pin::pin!(start(&options, source, (operator, loaded), workers, &building));
    let host = tokio::select! {
        host = &mut starting => host?,
        // Compiling many components may take longer than the service manager allows for a start.
        never = supervisor.extend_start() => match never {},
        // Nothing runs yet that would have to be drained.
        () = signals.stop() => {
            building.cancel();
            // Polled on, so that a build under way ends its processes. Twice their time, as a margin.
            let _ = tokio::time::timeout(shell::TERMINATION_TIMEOUT * 2, starting).await;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    let data = host.context.store.folder().to_owned();
    let end = serve(&options, &host, &supervisor, &mut signals).await?;
    supervisor.notify(&systemd::stopping(&end_text(&end)));
    let context = Arc::clone(&host.context);
    let code = tokio::select! {
        code = stop(host, &end) => code,
        never = supervisor.watch(&context.tasks) => match never {},
        // A second signal asks not to wait for the drain.
        () = signals.stop() => {
            tracing::warn!("stopping now; what was in hand is given up");
            ExitCode::from(INTERRUPTED)
        }
    };
    // Before the runtimes end, to which timers of guests belong.
    context.guests.close();
    // The store may have been lost during the drain.
    let end = context.store.lost().map_or(end, EndReason::StoreLost);
    match end {
        EndReason::Asked | EndReason::TaskDied(_) => drop(std::fs::remove_file(data.join(HOST_FILE))),
        // The folder belongs to another host now, and so does the file.
        EndReason::StoreLost(_) => {}
    }
    match end {
        EndReason::Asked => Ok(code),
        EndReason::TaskDied(why) | EndReason::StoreLost(why) => {
            Err(StartError::Other(anyhow::anyhow!("the host could not go on and has ended: {why}")))
        }
    }
}

/// Returns the reason of the end for the service manager.
fn end_text(end: &EndReason) -> String {
    match end {
        EndReason::Asked => "stopping".to_owned(),
        EndReason::TaskDied(why) | EndReason::StoreLost(why) => format!("cannot go on: {why}"),
    }
}

/// Runs a started host until it has to end. Returns the reason.
async fn serve(
    options: &UpOptions,
    host: &Host,
    supervisor: &Supervisor,
    signals: &mut Signals,
) -> Result<EndReason, StartError> {
    let context = &host.context;
    let mut announce = Box::pin(announce(options, host, host.settled.clone()));
    let mut announced = false;
    let mut reload = None;
    loop {
        tokio::select! {
            result = &mut announce, if !announced => {
                announced = true;
                if let Err(error) = result {
                    // The cause may be a dead task, whose reason says more.
                    return context.tasks.failed().map(EndReason::TaskDied).ok_or(error.into());
                }
                supervisor.notify(&systemd::ready());
            }
            why = context.tasks.until_failed() => return Ok(EndReason::TaskDied(why)),
            why = context.store.until_lost() => return Ok(EndReason::StoreLost(why)),
            never = supervisor.extend_start(), if !announced => match never {},
            never = supervisor.watch(&context.tasks) => match never {},
            // Ready again even if the file has errors: what runs goes on, and the errors are reported as always.
            _ = async { match &mut reload { Some(reload) => Pin::new(reload).await, None => std::future::pending().await } } => {
                reload = None;
                supervisor.notify(&systemd::ready());
            }
            signal = signals.next() => match signal {
                SignalRequest::Reload => {
                    tracing::info!("SIGHUP: reading {} and all components again", options.file.display());
                    supervisor.notify(&systemd::reloading());
                    let reconciler = host.reconciler.clone();
                    reload = Some(Box::pin(async move { reconciler.reload().await }));
                }
                SignalRequest::Stop => return Ok(EndReason::Asked),
            },
        }
    }
}

/// Writes the ports file. On a full disk that is tried again until there is room, as the host runs.
async fn write_ports(path: &Path, text: &str) -> std::io::Result<()> {
    let mut is_logged = false;
    loop {
        match write_private(path, text) {
            Err(error) if lacks_room(&error) => {
                if !std::mem::replace(&mut is_logged, true) {
                    tracing::error!(%error, "{} is written once there is room on the disk", path.display());
                }
                tokio::time::sleep(ROOM_RETRY).await;
            }
            written => return written,
        }
    }
}

/// Logs that the host is up and writes the ports file, once everything that can be done was done.
async fn announce(options: &UpOptions, host: &Host, mut settled: watch::Receiver<bool>) -> anyhow::Result<()> {
    host.ports.log();
    // The reconciler has ended; the failure of its task says why.
    if settled.wait_for(|settled| *settled).await.is_err() {
        return Ok(());
    }
    let (running, all) = {
        // Counted in the snapshot: the statuses of a hundred thousand agents take as much memory as the agents.
        let routes = host.directory.routes.load();
        (routes.agents().filter(|agent| agent.current().is_some()).count(), routes.agents().count())
    };
    let took = host.began.elapsed();
    tracing::info!("{running} of {all} agents run, {:.1} s after the start", took.as_secs_f64());
    for agent in host.reconciler.agents(None, MAX_LOGGED_AGENTS).await? {
        for route in &agent.routes {
            tracing::info!("  {route} -> {}", agent.name);
        }
    }
    // Last: a script that waits for this file may call the agents at once.
    if let Some(path) = &options.ports_file {
        let text = serde_json::to_string(&host.ports)?;
        write_ports(path, &text).await.with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
