//! Notifications of a service manager: `sd_notify(3)`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use caxton_tests::{Host, PATIENCE, Setup};
use rustix::process::Signal;

use crate::{BINARY, agent, file};

/// A service manager that listens.
struct Manager(UnixDatagram);

impl Manager {
    fn new(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self(socket)
    }

    /// Returns the next notification that is not a sign of life.
    fn next(&self) -> String {
        loop {
            let said = self.any();
            if said != "WATCHDOG=1" && !said.starts_with("EXTEND_TIMEOUT_USEC=") {
                return said;
            }
        }
    }

    fn any(&self) -> String {
        let mut buffer = [0; 4_096];
        let length = self.0.recv(&mut buffer).expect("the host says something in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Waits until no notification came for this time.
    fn until_silent(&self, time: Duration) {
        self.0.set_read_timeout(Some(time)).expect("a socket");
        let began = std::time::Instant::now();
        let mut buffer = [0; 4_096];
        while self.0.recv(&mut buffer).is_ok() {
            assert!(began.elapsed() < PATIENCE, "it never falls silent");
        }
        self.0.set_read_timeout(Some(PATIENCE)).expect("a socket");
    }
}

fn echo() -> Setup {
    Setup::new(BINARY, &file(&agent("echo", "echo", "")))
}

/// A life from its start to its end.
fn is_told(manager: &Manager, setup: Setup, socket: &str) {
    let host: Host = setup.variable("NOTIFY_SOCKET", socket).start();
    let ready = manager.next();
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    // A declaration with errors is read as well, and ends in readiness.
    for text in [agent("echo", "echo", "config = { n = \"2\" }"), "x = 1\n".to_owned()] {
        host.edit(&file(&text));
        host.signal(Signal::HUP);
        let reloading = manager.next();
        let mut lines = reloading.lines();
        assert_eq!(lines.next(), Some("RELOADING=1"), "{reloading}");
        let at =
            lines.next().and_then(|line| line.strip_prefix("MONOTONIC_USEC=")).and_then(|at| at.parse::<u64>().ok());
        assert!(at.is_some_and(|at| at > 0), "{reloading}");
        let ready = manager.next();
        assert!(ready.starts_with("READY=1\n"), "{ready}");
    }
    let (code, _) = host.stop();
    assert_eq!(code, 0);
    let stopping = manager.next();
    assert!(stopping.starts_with("STOPPING=1\n"), "{stopping}");
}

#[test]
fn a_service_manager_is_notified_of_start_reload_and_stop() {
    let setup = echo();
    let path = setup.folder().join("notify");
    let manager = Manager::new(UnixDatagram::bind(&path).expect("a socket"));
    is_told(&manager, setup, &path.display().to_string());
    let name = format!("caxton-tests-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = Manager::new(UnixDatagram::bind_addr(&address).expect("a socket"));
    is_told(&manager, echo(), &format!("@{name}"));
    // Nobody has to listen.
    let host = echo().variable("NOTIFY_SOCKET", "/nowhere/at/all").variable("WATCHDOG_USEC", "1").start();
    assert_eq!(host.client().post("/echo", "x").text(), "x");
}

#[test]
fn the_watchdog_is_notified_as_long_as_the_tasks_live() {
    for task in ["reconciler", "timers"] {
        let setup = echo();
        let path = setup.folder().join("notify");
        let manager = Manager::new(UnixDatagram::bind(&path).expect("a socket"));
        let host =
            setup.variable("NOTIFY_SOCKET", &path.display().to_string()).variable("WATCHDOG_USEC", "600000").start();
        let mut alive = 0;
        while alive < 5 {
            alive += u32::from(manager.any() == "WATCHDOG=1");
        }
        host.order(&format!("stall {task}"));
        manager.until_silent(Duration::from_secs(5));
        assert_eq!(host.client().post("/echo", "x").text(), "x", "calls are answered all the same");
    }
}
