//! A test interface of a running host: tests set its clock, make one of its tasks panic or stall, and say which addresses
//! a name has.
//!
//! Nothing of this can be reached unless the program was started by [`main_under_test`](crate::main_under_test), which
//! the program `caxton` never calls. Without it, each point costs one relaxed load of a flag that is false.
//!
//! A test connects to the socket named by the variable [`SOCKET`] and writes a line (`clock SECONDS`, `panic TASK`,
//! `stall TASK`, `resolve NAME ADDRESS,ADDRESS`). The reply `ok` says that the order is in force.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::clock;

/// The variable that names the socket. Without the prefix `CAXTON_`, which is for settings.
const SOCKET: &str = "UNDER_TEST_SOCKET";

static LISTENS: AtomicBool = AtomicBool::new(false);
static ORDERS: Mutex<Vec<(String, Fate)>> = Mutex::new(Vec::new());
static ORDERED: Notify = Notify::const_new();

/// The failure that a test orders for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The task panics.
    Panics,
    /// The task makes no more progress, and does not end.
    Stalls,
}

/// Starts to accept orders, if the variable names a socket.
pub(crate) fn listen() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let Ok(listener) = UnixListener::bind(path) else { return };
    LISTENS.store(true, Ordering::SeqCst);
    // Ends with the program.
    std::thread::spawn(move || listener.incoming().flatten().for_each(take));
}

fn take(stream: UnixStream) {
    let Ok(mut answers) = stream.try_clone() else { return };
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let answer = if order(&line) { "ok" } else { "not understood" };
        if writeln!(answers, "{answer}").is_err() {
            return;
        }
    }
}

/// The addresses of names, in place of those that the system knows.
static NAMES: Mutex<Vec<(String, Vec<IpAddr>)>> = Mutex::new(Vec::new());

/// Returns the addresses that a test has given a name.
pub(crate) fn addresses(name: &str) -> Option<Vec<IpAddr>> {
    if !LISTENS.load(Ordering::Relaxed) {
        return None;
    }
    NAMES.lock().iter().find(|(of, _)| of == name).map(|(_, addresses)| addresses.clone())
}

fn set_addresses(order: &str) -> bool {
    let Some((name, addresses)) = order.split_once(' ') else { return false };
    let parsed: Result<Vec<IpAddr>, _> = addresses.split(',').map(str::parse).collect();
    let Ok(parsed) = parsed else { return false };
    let mut names = NAMES.lock();
    names.retain(|(of, _)| of != name);
    names.push((name.to_owned(), parsed));
    true
}

fn order(line: &str) -> bool {
    let (fate, task) = match line.split_once(' ') {
        Some(("resolve", order)) => return set_addresses(order),
        Some(("clock", seconds)) => return seconds.parse().map(clock::set_ahead).is_ok(),
        Some(("panic", task)) => (Fate::Panics, task),
        Some(("stall", task)) => (Fate::Stalls, task),
        _ => return false,
    };
    ORDERS.lock().push((task.to_owned(), fate));
    // After the order is stored, where a woken task looks for it.
    ORDERED.notify_waiters();
    true
}

fn fate(task: &str) -> Option<Fate> {
    let mut orders = ORDERS.lock();
    let at = orders.iter().position(|(of, _)| of == task)?;
    // Taken out, so that the restarted task does not fail again.
    Some(orders.swap_remove(at).1)
}

/// Panics if a test has ordered it for this task.
pub(crate) fn point(task: &str) {
    if !LISTENS.load(Ordering::Relaxed) {
        return;
    }
    match fate(task) {
        Some(Fate::Panics) => panic!("the {task} was ordered to panic by a test"),
        Some(Fate::Stalls) => loop {
            std::thread::park();
        },
        None => {}
    }
}

/// Returns the failure ordered for a task, as soon as there is one.
pub(crate) async fn doom(task: &str) -> Fate {
    if !LISTENS.load(Ordering::Relaxed) {
        return std::future::pending().await;
    }
    loop {
        // Created before the check, so that an order in between is not missed.
        let ordered = ORDERED.notified();
        if let Some(fate) = fate(task) {
            return fate;
        }
        ordered.await;
    }
}
