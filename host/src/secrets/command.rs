//! A command that prints a secret.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::shell;

/// The time for a command. Also the longest that a reload is held up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The bytes of its stderr that are read.
const MAX_WORDS: u64 = 4_096;
/// The characters of its last line on stderr that an error shows.
const MAX_SHOWN: usize = 200;

/// Runs a command line in `dir`. Returns its stdout, at most one byte more than `max`, or the reason of its failure. The
/// reason never has anything of stdout.
pub(super) async fn run(line: &str, dir: &Path, max: u64) -> Result<Vec<u8>, String> {
    // Dropped with the future, also at the end of the time: all that the command has started ends with it.
    let (mut child, mut group) =
        shell::start(line, dir).map_err(|error| format!("its command cannot be started: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        // Together: a command that fills one of the two pipes would wait for ever.
        let (value, words) = tokio::join!(read(stdout, max + 1), read(stderr, MAX_WORDS));
        (child.wait().await, value, words)
    };
    let ended = tokio::time::timeout(TIMEOUT, work).await;
    if ended.is_ok() {
        // Processes that it leaves behind, such as one that keeps a key open, are meant to stay.
        group.release();
    }
    match ended {
        Err(_) => Err(format!("its command took longer than {} s", TIMEOUT.as_secs())),
        Ok((Err(error), ..)) => Err(format!("its command cannot be waited for: {error}")),
        // A reader that stops ends its writer; the value is refused for its size then.
        Ok((Ok(status), value, _)) if status.success() || value.len() as u64 > max => Ok(value),
        Ok((Ok(status), _, words)) => {
            let words = String::from_utf8_lossy(&words);
            let last = words.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let last: String = last.trim().chars().take(MAX_SHOWN).collect();
            let said = if last.is_empty() { String::new() } else { format!(": {last}") };
            Err(format!("its command failed ({status}){said}"))
        }
    }
}

/// Reads at most `max` bytes.
async fn read(stream: Option<impl AsyncRead + Unpin>, max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is judged by the exit code.
        let _ = stream.take(max).read_to_end(&mut bytes).await;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, test_kill_process};

    use super::*;

    #[tokio::test]
    async fn all_processes_of_a_command_end_with_the_reading() {
        let folder = tempfile::tempdir().unwrap();
        let started = folder.path().join("pid");
        let read = run("sleep 60 & echo $! > new; mv new pid; wait", folder.path(), 10);
        let pid = async {
            while !started.exists() {
                tokio::task::yield_now().await;
            }
            std::fs::read_to_string(&started).unwrap().trim().parse::<i32>().unwrap()
        };
        let pid = tokio::select! {
            result = read => panic!("it waits for what it started: {result:?}"),
            pid = pid => Pid::from_raw(pid).unwrap(),
        };
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            test_kill_process(pid).is_err() || stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let bound = std::time::Instant::now() + Duration::from_secs(60);
        // The one that adopted it may take a moment to bury it.
        while !is_gone() {
            assert!(std::time::Instant::now() < bound, "a process of the command is left");
            tokio::task::yield_now().await;
        }
    }
}
