//! A command that prints a secret.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// The time for a command. Also the longest that a reload is held up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The bytes of its stderr that are read.
const MAX_WORDS: u64 = 4_096;
/// The characters of its last line on stderr that an error shows.
const MAX_SHOWN: usize = 200;

/// Runs a command line in `dir`. Returns its stdout, at most one byte more than `max`, or the reason of its failure. The
/// reason never has anything of stdout.
pub(super) async fn run(line: &str, dir: &Path, max: u64) -> Result<Vec<u8>, String> {
    let mut child = Command::new("sh")
        .args(["-c", line])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Of its own, so that all it has started can be ended with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("its command cannot be started: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        // Together: a command that fills one of the two pipes would wait for ever.
        let (value, words) = tokio::join!(read(stdout, max + 1), read(stderr, MAX_WORDS));
        (child.wait().await, value, words)
    };
    let ended = tokio::time::timeout(TIMEOUT, work).await;
    if ended.is_err()
        && let Some(group) = group
    {
        // It may have ended by itself at this moment.
        let _ = kill_process_group(group, Signal::KILL);
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
