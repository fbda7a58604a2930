//! Building components with the commands that the declaration names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::control::Wake;
use crate::systemd;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The shell did not start.
    #[error("`{command}` did not start: {source}")]
    Start {
        /// The command.
        command: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The command said that it failed.
    #[error("`{command}` ended with {status}; what it said is above")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
}

/// Runs one build command in the folder of the declaration, and shows what it says.
pub(crate) async fn run(command: &str, dir: &Path) -> Result<(), BuildError> {
    let began = Instant::now();
    tracing::info!("building: {command}");
    let start = |source| BuildError::Start { command: command.to_owned(), source };
    let mut shell = Command::new("sh");
    // It is not the service that a manager waits to hear of.
    for name in systemd::VARIABLES {
        shell.env_remove(name);
    }
    let mut child = shell
        .args(["-c", command])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, ..) = tokio::join!(child.wait(), show(stdout), show(stderr));
    let status = status.map_err(start)?;
    if !status.success() {
        return Err(BuildError::Failed { command: command.to_owned(), status });
    }
    tracing::info!("built in {:.1} s: {command}", began.elapsed().as_secs_f64());
    Ok(())
}

async fn show(stream: Option<impl AsyncRead + Unpin>) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::info!("  {line}");
    }
}

/// Runs builds that are asked for, one after another; one that is asked for while it runs is run again.
pub(crate) struct Builder {
    asked: mpsc::UnboundedSender<(String, PathBuf)>,
}

impl Builder {
    /// A builder that tells the reconciler of each build that succeeded.
    pub(crate) fn start(wakes: mpsc::Sender<Wake>, stop: CancellationToken) -> Self {
        let (asked, mut queue) = mpsc::unbounded_channel::<(String, PathBuf)>();
        tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let mut builds = BTreeSet::from([first]);
                while let Ok(next) = queue.try_recv() {
                    builds.insert(next);
                }
                for (command, dir) in builds {
                    let result = tokio::select! {
                        () = stop.cancelled() => return,
                        result = run(&command, &dir) => result,
                    };
                    match result {
                        // Its file may have the same bytes as before; then nothing follows from this.
                        Ok(()) => drop(wakes.send(Wake::Components).await),
                        Err(error) => tracing::error!("{error}; what runs stays as it was"),
                    }
                }
            }
        });
        Self { asked }
    }

    /// Asks for a build.
    pub(crate) fn ask(&self, command: String, dir: PathBuf) {
        // The task ends only with the host.
        let _ = self.asked.send((command, dir));
    }
}

/// Runs all builds of a declaration once, each command once however many agents name it.
pub(crate) async fn run_all(builds: &BTreeMap<String, BTreeSet<String>>, dir: &Path) -> Result<(), BuildError> {
    for command in builds.keys() {
        run(command, dir).await?;
    }
    Ok(())
}
