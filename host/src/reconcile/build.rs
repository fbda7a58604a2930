//! The build commands of components.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio_util::sync::CancellationToken;

use crate::shell;

/// The time for reading the output after the end of a build: a process that it leaves behind, such as a compiler's
/// server, may hold the pipe open.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// The failure of a build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The shell did not start.
    #[error("`{command}` did not start: {source}")]
    Start { command: String, source: std::io::Error },
    /// The command returned an error.
    #[error("`{command}` ended with {status}; what it said is above")]
    Failed { command: String, status: std::process::ExitStatus },
    /// The host is stopping.
    #[error("`{command}` was ended, because the host stops")]
    Stopped { command: String },
}

/// Runs a build command in the folder of the declaration and logs its output. All its processes are ended when `stop`
/// is cancelled or the future is dropped.
pub(crate) async fn run(command: &str, dir: &Path, stop: &CancellationToken) -> Result<(), BuildError> {
    let began = Instant::now();
    tracing::info!("building: {command}");
    let start = |source| BuildError::Start { command: command.to_owned(), source };
    let (mut child, mut group) = shell::start(command, dir).map_err(start)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut words = std::pin::pin!(async { tokio::join!(show(stdout), show(stderr)) });
    let mut silent = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status.map_err(start)?,
            // Read while it runs: a full pipe would block the build.
            _ = &mut words, if !silent => silent = true,
            () = stop.cancelled() => {
                group.end(&mut child).await;
                return Err(BuildError::Stopped { command: command.to_owned() });
            }
        }
    };
    // Processes that it leaves behind are meant to stay.
    group.release();
    if !silent {
        let _ = tokio::time::timeout(OUTPUT_TIMEOUT, words).await;
    }
    if !status.success() {
        return Err(BuildError::Failed { command: command.to_owned(), status });
    }
    tracing::info!("built in {:.1} s: {command}", began.elapsed().as_secs_f64());
    Ok(())
}

/// Logs an output stream line by line. Bytes that are not UTF-8 are replaced.
async fn show(stream: Option<impl AsyncRead + Unpin>) {
    let Some(stream) = stream else { return };
    let (mut lines, mut line) = (BufReader::new(stream), Vec::new());
    while matches!(lines.read_until(b'\n', &mut line).await, Ok(1..)) {
        tracing::info!("  {}", String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// Runs the build commands of a declaration one after another. A command that several agents name runs once.
pub(crate) async fn run_all(
    builds: &BTreeMap<String, BTreeSet<String>>,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<(), BuildError> {
    for command in builds.keys() {
        run(command, dir, stop).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, Signal};

    use super::*;

    #[tokio::test]
    async fn a_build_that_leaves_a_process_behind_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        // The process holds the output open.
        let command = "sleep 60 & echo $! > pid";
        run(command, folder.path(), &CancellationToken::new()).await.unwrap();
        let pid: i32 = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn words_that_are_no_text_end_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let command = r"printf '\377\n'; head -c 200000 /dev/zero; echo done > done";
        run(command, folder.path(), &CancellationToken::new()).await.unwrap();
        assert!(folder.path().join("done").exists());
        let failed = run("exit 3", folder.path(), &CancellationToken::new()).await.unwrap_err();
        assert!(failed.to_string().contains("exit status: 3"), "{failed}");
    }

    #[tokio::test]
    async fn all_processes_of_a_build_end_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        // A shell that starts another, which ignores the polite signal, and a child of that.
        let command = "sh -c 'trap \"\" TERM; sleep 100 & echo $! > inner; wait; wait' & echo $! > outer; wait";
        let stop = CancellationToken::new();
        let build = run(command, path, &stop);
        let ends = async {
            let pid = |name: &str| {
                std::fs::read_to_string(path.join(name)).ok().and_then(|text| text.trim().parse::<i32>().ok())
            };
            let pids = loop {
                if let (Some(inner), Some(outer)) = (pid("inner"), pid("outer")) {
                    break [inner, outer];
                }
                tokio::task::yield_now().await;
            };
            stop.cancel();
            pids
        };
        let (ended, pids) = tokio::join!(build, ends);
        assert!(matches!(ended, Err(BuildError::Stopped { .. })), "{ended:?}");
        let began = Instant::now();
        for pid in pids {
            let pid = Pid::from_raw(pid).unwrap();
            // The one that adopted it may take a moment to bury it.
            while rustix::process::test_kill_process(pid).is_ok() && !is_dead(pid) {
                assert!(began.elapsed() < Duration::from_secs(60), "a process of the build is left");
                tokio::task::yield_now().await;
            }
        }
    }

    fn is_dead(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }
}
