//! Inputs that are malformed, by the ten thousand: each is answered or its connection ends, no task of the host dies, and it has
//! no more in hand or in memory than before.
//!
//! | kind | by |
//! |---|---|
//! | configuration text, component bytes | the host's own tests, without a host that runs |
//! | heads of HTTP/1 | [`heads`], on both listeners |
//! | frames of HTTP/2 | [`frames`], on both listeners |
//! | drafts: headers and contents of calls, and what guests send | [`drafts`] |
//! | requests of the management API, by its own description | [`requests`] |
//! | components through the process that compiles | [`components`] |

mod components;
mod drafts;
mod frames;
mod heads;
mod requests;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_tests::{Client, Host, PATIENCE};

use crate::hostile_guests::sockets;
use crate::{agent, host};

/// Connections at a time.
const CONNECTIONS: u64 = 16;
/// The most by which the memory of the host may be larger after 10,000 inputs.
const GROWTH: usize = 128 << 20;

/// A host under malformed inputs, with its figures before them.
struct Siege {
    host: Host,
    sockets: usize,
    resident: usize,
}

impl Siege {
    /// Starts a host with an agent at `/echo`, this text, and short times for what clients leave open.
    fn start(more: &str) -> Self {
        let http = "[http]\nhead-timeout = \"300ms\"\nstall-timeout = \"1s\"\nmax-head = \"16KiB\"\n";
        let echo = agent("echo", "echo", "instances = { min = 2 }\nlimits = { time = \"20s\" }\n");
        let host = host(&format!("{http}{echo}{more}"));
        let open = sockets(&host);
        // What a first call takes is no growth.
        for _ in 0..200 {
            check_good_call(&host);
        }
        let resident = resident(&host);
        Self { host, sockets: open, resident }
    }

    /// Makes all inputs, on many connections at a time. `each` makes those of one connection's numbers.
    fn make(&self, count: u64, each: impl Fn(&Host, &mut dyn Iterator<Item = u64>) + Sync) {
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..CONNECTIONS {
                scope.spawn(|| {
                    let mut numbers = std::iter::from_fn(|| {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        (number < count).then_some(number)
                    });
                    each(&self.host, &mut numbers);
                });
            }
        });
    }

    /// Checks that the host is as it was.
    fn check(mut self) {
        check_good_call(&self.host);
        let before = self.sockets;
        self.host.until("the sockets to be closed", |host| (sockets(host) <= before).then_some(()));
        assert!(!self.host.has_ended(), "{}", self.host.output());
        let said = self.host.output();
        assert!(!said.contains("panicked"), "{said}");
        let health = Client::new(&self.host.admin, None).get("/healthz");
        assert_eq!(health.status.as_u16(), 200, "{}", health.text());
        let tasks = health.json();
        let restarts = tasks["tasks"].as_array().into_iter().flatten().filter_map(|task| task["restarts"].as_u64());
        assert_eq!(restarts.sum::<u64>(), 0, "{tasks}");
        let after = resident(&self.host);
        println!("resident: {} MiB before, {} MiB after", self.resident >> 20, after >> 20);
        assert!(after < self.resident + GROWTH, "from {} to {after} bytes", self.resident);
        check_good_call(&self.host);
    }
}

fn check_good_call(host: &Host) {
    let reply = host.client().post("/echo", "good day");
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "good day"));
}

/// Returns the resident memory of the host, in bytes.
fn resident(host: &Host) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", host.pid().as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// Sends bytes on a connection of their own and reads until the host closes it. `ends` says whether the client closes its
/// side: if not, the host has to end the connection by a timeout.
fn exchange(address: &str, bytes: &[u8], ends: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a TCP socket");
    // Errors are fine: the host may have closed before it read all.
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!waits, "the host neither answers nor closes: {:?}", String::from_utf8_lossy(bytes));
    }
    // A reset instead of an orderly end, so that no port waits for its time to pass.
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
    answer
}
