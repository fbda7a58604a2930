//! Commands that the declaration names, each run by a shell in a process group of its own.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};

use crate::net::restore_limit;
use crate::systemd;

/// The time between `SIGTERM` and `SIGKILL` for a command that is ended.
pub(crate) const TERMINATION_TIMEOUT: Duration = Duration::from_secs(1);

/// Starts a command line in a folder, with pipes for its output and nothing to read.
pub(crate) fn start(line: &str, dir: &Path) -> io::Result<(Child, ProcessGroup)> {
    let child = command(line, dir).spawn()?;
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    id.into_iter().for_each(restore_limit);
    Ok((child, ProcessGroup(id)))
}

fn command(line: &str, dir: &Path) -> Command {
    let mut shell = Command::new("sh");
    // The service manager expects notifications of the host only.
    for name in systemd::VARIABLES {
        shell.env_remove(name);
    }
    shell
        .args(["-c", line])
        .current_dir(dir)
        // A command that asks a question would otherwise wait for ever, or read from the host's terminal.
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that the processes started by the shell can be ended with it.
        .process_group(0)
        // In addition to the group, whose id may be unknown.
        .kill_on_drop(true);
    shell
}

/// The processes of a command. They are killed on drop, unless they were released.
pub(crate) struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // An error means that the group has ended already.
            let _ = kill_process_group(group, signal);
        }
    }

    fn is_there(&self) -> bool {
        self.0.is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    /// Lets the processes go on that the command leaves behind.
    pub(crate) fn release(&mut self) {
        self.0 = None;
    }

    /// Ends all processes: first with `SIGTERM`, so that they can clean up.
    pub(crate) async fn end(&mut self, child: &mut Child) {
        self.signal(Signal::TERM);
        let until = Instant::now() + TERMINATION_TIMEOUT;
        let _ = tokio::time::timeout(TERMINATION_TIMEOUT, child.wait()).await;
        // The shell may end before the processes that it started.
        while self.is_there() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.is_there() {
            self.signal(Signal::KILL);
        }
        // The id may be given to other processes from now on.
        self.release();
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_knows_nothing_of_the_service_manager() {
        let shell = command("true", Path::new("."));
        let removed: Vec<_> = shell.as_std().get_envs().filter(|(_, value)| value.is_none()).collect();
        assert_eq!(removed.len(), systemd::VARIABLES.len(), "{removed:?}");
    }
}
