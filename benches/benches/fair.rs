//! What an agent that uses all it may costs its neighbours: `cargo bench -p caxton-benches --bench fair [-- NAME...]`.
//!
//! Each figure is the ratio of what a neighbour's call takes beside an agent that computes, or writes, as much as its
//! limits allow, to what it takes beside as many honest ones that keep the same cores, or the same disk, busy. Both are
//! measured in turn on one host. Names: `cores`, `disk`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::Duration;

use caxton_benches::{Load, Request, Server, agent, build_guests, drive, host, median};
use serde_json::json;

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
/// The duration of one measurement, and the number of rounds.
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;
/// The time in which the others come to their full load.
const BEFORE: Duration = Duration::from_millis(500);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    build_guests();
    if wanted("cores") {
        cores();
    }
    if wanted("disk") {
        disk();
    }
}

fn request(server: &Server, path: &str, body: &serde_json::Value) -> Request {
    Request { address: server.address.clone(), path: path.to_owned(), body: body.to_string().into_bytes() }
}

/// Measures guests that answer within a millisecond, and guests that compute for long, beside a neighbour.
fn cores() {
    for guests in [4, 64] {
        // A call that computes waits for its turns among all others.
        let settings = format!("instances = {{ max = {guests} }}\nlimits = {{ time = \"5m\" }}");
        let (caxton, _) =
            host(HOST, &format!("caxton = 1\n{}{}", agent("echo", "echo", ""), agent("busy", "rogue", &settings)));
        let neighbour = request(&caxton, "/echo", &json!("Hello, are you there?"));
        let busy = |ms: u64| request(&caxton, "/busy", &json!({ "do": "spin", "ms": ms }));
        let title = format!("a neighbour of {guests} guests that compute / of {guests} that answer in 1 ms");
        compare(&title, &neighbour, (&busy(200), &busy(1)), guests);
    }
}

/// Measures agents that write little, and one that writes 8 MB with each message, beside a neighbour whose calls are
/// durable.
fn disk() {
    const WRITERS: usize = 4;
    let settings = "limits = { time = \"5m\" }\nallow = { send = [\"sink\"] }";
    let toml = agent("count", "rogue", "")
        + &agent("writer", "rogue", settings)
        + &agent("sink", "rogue", "limits = { log-lines = 0 }");
    let (caxton, _) = host(HOST, &format!("caxton = 1\n[store]\ndurability = \"fsync\"\n{toml}"));
    let neighbour = request(&caxton, "/count", &json!({ "do": "increment", "key": "n" }));
    let values = |bytes: usize, count: u32| {
        request(&caxton, "/writer", &json!({ "do": "set", "key": "k", "bytes": bytes, "count": count }))
    };
    let sends = |bytes: usize, count: u32| {
        // Whoever gets it does nothing with it: what it prints is dropped.
        let content = json!({ "do": "print", "stdout": ".".repeat(bytes) });
        request(&caxton, "/writer", &json!({ "do": "send", "to": "sink", "content": content, "count": count }))
    };
    for (what, much, little) in
        [("values", values(250_000, 32), values(100, 1)), ("messages", sends(250_000, 32), sends(100, 1))]
    {
        let title = format!("a durable neighbour of one that writes 8 MB of {what} / that writes 100 bytes");
        compare(&title, &neighbour, (&much, &little), WRITERS);
    }
}

/// Measures a neighbour beside attackers and beside honest callers in turn, and prints the ratio.
fn compare(title: &str, neighbour: &Request, (attack, honest): (&Request, &Request), connections: usize) {
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    let mut last: Option<(Load, Load)> = None;
    for _ in 0..ROUNDS {
        let [beside, alone] = [attack, honest].map(|others| {
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                keep_busy(scope, others, connections, &stop);
                std::thread::sleep(BEFORE);
                let load = drive(neighbour, 1, TIME);
                stop.store(true, Ordering::SeqCst);
                load
            })
        });
        medians.push(beside.p50_us / alone.p50_us);
        tails.push(beside.p99_us / alone.p99_us);
        last = Some((beside, alone));
    }
    let Some((beside, alone)) = last else { return };
    println!(
        "{title}: p50 {:.2} x, p99 {:.2} x (goal at most 2) | last: {:.1}, {:.1} ms / {:.1}, {:.1} ms",
        median(&mut medians),
        median(&mut tails),
        beside.p50_us / 1e3,
        beside.p99_us / 1e3,
        alone.p50_us / 1e3,
        alone.p99_us / 1e3,
    );
}

/// Sends requests on so many connections, in a thread, until `stop`.
fn keep_busy<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    request: &'env Request,
    connections: usize,
    stop: &'scope AtomicBool,
) {
    scope.spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            drive(request, connections, Duration::from_millis(100));
        }
    });
}
