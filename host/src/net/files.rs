//! The open files of the process, of which each connection takes one. Some are kept back from connections, so that the
//! store, the management API and guests do not fail because many clients are connected.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// The limit before [`raise_limit`] raised it.
static INHERITED: OnceLock<Rlimit> = OnceLock::new();

/// The open files that the connections of a listener leave to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileReserve {
    /// The reserve of the agents' listener: an eighth of the limit, from 32 to 512 files.
    Calls,
    /// The reserve of the management API and the probes, which leave some to the store: a part in 32, from 16 to 128 files.
    Management,
}

impl FileReserve {
    /// Returns the number of files that are kept back from the listener under this limit of the process.
    fn files(self, limit: u64) -> u64 {
        match self {
            Self::Calls => (limit / 8).clamp(32, 512),
            // Less than the other: at the limit the agents' listener has to stop first.
            Self::Management => (limit / 32).clamp(16, 128),
        }
    }

    /// Returns `true` if a file of this number is one of those that are kept back. The system gives the lowest free
    /// number, so that the process has at least as many files open.
    pub(super) fn keeps(self, file: &impl AsFd) -> bool {
        let Some(limit) = getrlimit(Resource::Nofile).current else { return false };
        let number = u64::try_from(file.as_fd().as_raw_fd()).unwrap_or(0);
        number >= limit.saturating_sub(self.files(limit))
    }

    /// Returns `true` if the next file that is opened is one of those that are kept back, or cannot be opened at all.
    pub(super) fn is_reached(self, open: &impl AsFd) -> bool {
        // A copy takes the number that the next connection would take.
        fcntl_dupfd_cloexec(open, 0).map_or(true, |next| self.keeps(&next))
    }
}

/// Raises the limit of open files to the highest that the system allows this process. Returns the limit before and
/// after; `None` stands for no limit.
pub(crate) fn raise_limit() -> (Option<u64>, Option<u64>) {
    let inherited = getrlimit(Resource::Nofile);
    let _ = INHERITED.set(inherited);
    // An error leaves the limit as it was, with which the host runs as well.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: inherited.maximum, maximum: inherited.maximum });
    (inherited.current, getrlimit(Resource::Nofile).current)
}

/// Gives a child process the limit that this process was started with.
pub(crate) fn restore_limit(child: Pid) {
    if let Some(inherited) = INHERITED.get() {
        // Some programs use `select`, which fails beyond 1,024 files, or close every number up to the limit. The child
        // may have ended by now.
        let _ = prlimit(Some(child), Resource::Nofile, *inherited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_management_api_keeps_less_back_than_calls() {
        for (limit, calls, management) in
            [(64, 32, 16), (256, 32, 16), (1_024, 128, 32), (20_000, 512, 128), (1 << 20, 512, 128)]
        {
            assert_eq!(FileReserve::Calls.files(limit), calls, "{limit}");
            assert_eq!(FileReserve::Management.files(limit), management, "{limit}");
        }
    }
}
