//! Notifications for the service manager: the protocol of `sd_notify(3)`.
//!
//! A notification is a datagram of `NAME=VALUE` lines to the socket in `NOTIFY_SOCKET`. Without that variable nothing
//! is sent. Sending never blocks: a manager that does not read misses notifications.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::tasks::Tasks;

/// The variables of the protocol. They are removed from the environment of child processes.
pub(crate) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// The interval at which a slow start asks for more time, and the extension: compiling many components can exceed the
/// manager's timeout.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTENSION: &str = "EXTEND_TIMEOUT_USEC=60000000";
/// The shortest interval of watchdog notifications, whatever the manager asks for.
const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// The least time for which a task may be silent before the watchdog is withheld: tasks report once a second.
const MIN_SILENCE: Duration = Duration::from_secs(2);

/// The service manager, if the process has one.
pub(crate) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The time within which the manager expects a watchdog notification.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Returns the manager that started this process, from the environment.
    pub(crate) fn of_process() -> Self {
        let [socket, watchdog, pid] = VARIABLES.map(std::env::var_os);
        Self::new(socket.as_deref(), watchdog.as_deref(), pid.as_deref(), std::process::id())
    }

    fn new(socket: Option<&OsStr>, watchdog: Option<&OsStr>, pid: Option<&OsStr>, own: u32) -> Self {
        let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<u64>().ok());
        // The variable may be inherited from a parent with a watchdog of its own.
        let for_this = pid.is_none_or(|pid| number(pid) == Some(own.into()));
        let watchdog = watchdog.and_then(number).filter(|time| for_this && *time > 0).map(Duration::from_micros);
        let socket = socket.filter(|name| !name.is_empty()).and_then(|name| {
            let opened = open(name);
            if opened.is_none() {
                tracing::warn!("NOTIFY_SOCKET names no socket that can be used; the service manager is not notified");
            }
            opened
        });
        Self { socket, watchdog }
    }

    /// Sends a notification, if there is a manager.
    pub(crate) fn notify(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // The queue is full or the manager is gone; a later notification may succeed.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }

    /// Asks for more time at intervals, while a start takes long.
    pub(crate) async fn extend_start(&self) -> Infallible {
        // Never ready: the caller races it with the start, which has to win.
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(EXTEND_EVERY).await;
            self.notify(EXTENSION);
        }
    }

    /// Sends watchdog notifications as long as the host's tasks are alive.
    pub(crate) async fn watch(&self, tasks: &Tasks) -> Infallible {
        let Some(watchdog) = self.watchdog.filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        // Three times within the timeout, so that one may come late.
        let mut tick = tokio::time::interval((watchdog / 3).max(MIN_INTERVAL));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if tasks.are_alive((watchdog / 2).max(MIN_SILENCE)) {
                self.notify("WATCHDOG=1");
            }
        }
    }
}

fn open(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok()?,
        [b'/', ..] => SocketAddr::from_pathname(name).ok()?,
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A blocking send would hang while the manager does not read.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}

/// Returns the notification that the listeners accept connections and the declared agents were started as far as
/// possible.
pub(crate) fn ready() -> String {
    "READY=1\nSTATUS=serving".to_owned()
}

/// Returns the notification that the declaration and all components are being read again. [`ready`] ends that state.
pub(crate) fn reloading() -> String {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
    format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reading the declaration again", now.as_micros())
}

/// Returns the notification that the host stops, with the reason.
pub(crate) fn stopping(why: &str) -> String {
    format!("STOPPING=1\nSTATUS={}", why.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_of_another_process_is_ignored() {
        for (time, pid, expected) in [
            (Some("3000000"), None, Some(3)),
            (Some("3000000"), Some("7"), Some(3)),
            (Some("3000000"), Some("8"), None),
            (Some("3000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("-1"), None, None),
            (Some(""), None, None),
            (None, Some("7"), None),
        ] {
            let found = Supervisor::new(None, time.map(OsStr::new), pid.map(OsStr::new), 7).watchdog;
            assert_eq!(found, expected.map(Duration::from_secs), "{time:?} {pid:?}");
        }
    }

    #[test]
    fn notifications_reach_paths_and_abstract_names_and_others_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let name = format!("@caxton-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        let other = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (name, listener) in [(path.as_os_str(), &listener), (OsStr::new(&name), &other)] {
            Supervisor::new(Some(name), None, None, 7).notify(&ready());
            let mut buffer = [0; 100];
            let length = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1\nSTATUS=serving");
        }
        for name in ["", "relative", "vsock:2:1234", "@", "/nowhere/at/all"] {
            Supervisor::new(Some(OsStr::new(name)), None, None, 7).notify(&ready());
        }
    }

    #[test]
    fn notifications_follow_the_protocol() {
        let text = reloading();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "RELOADING=1");
        let at: u64 = lines[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!(at > 0);
        assert_eq!(stopping("a\nb"), "STOPPING=1\nSTATUS=a b");
    }
}
