//! The cost of a message beside few and beside many others: `cargo bench -p caxton-benches --bench scale [-- NAME...]`.
//!
//! The store is in memory, so that no disk hides the cost: messages go back and forth between agents, and the rate is
//! measured in the middle. Every figure is the ratio of two hosts, one with the smallest count. They take turns of a
//! quarter of a second, one stopped while the other is measured, so that changes of the machine's speed affect both.
//! Names: `conversations`, `depth`, `agents`; `calls` measures a call beside many messages.

use std::time::{Duration, Instant};

use caxton_benches::{Server, agent, build_guests, call, handled, host, median, order, pairs, relays};

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
/// The number of turns of each host, the time for which its messages run before they are counted, and the time for
/// which they are counted.
const TURNS: usize = 40;
const BEFORE: Duration = Duration::from_millis(50);
const TIME: Duration = Duration::from_millis(250);
/// The time until all chains have been requested.
const LEAD: Duration = Duration::from_secs(5);
/// The number of messages that go back and forth at once, over all agents.
const CHAINS: u32 = 5_000;
/// The hops of a chain: more than any measurement needs.
const HOPS: u32 = 900_000;
/// The most messages that one call can send.
const AT_ONCE: u32 = 100_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    build_guests();
    if wanted("conversations") {
        compare("open conversations", &[100, 1_000, 10_000, 50_000], |count| {
            let (caxton, _) = host(HOST, &relays("memory"));
            call(&caxton.address, "/ping", &order(b's', count, HOPS));
            caxton
        });
    }
    if wanted("depth") {
        compare("messages in two mailboxes", &[1_000, 10_000, 100_000, 1_000_000], |count| {
            let (caxton, _) = host(HOST, &relays("memory"));
            spread(&caxton, count);
            caxton
        });
    }
    if wanted("calls") {
        calls();
    }
    if wanted("agents") {
        compare("agents", &[10, 100, 1_000, 10_000], |count| {
            let (caxton, _) = host(HOST, &pairs("memory", count / 2));
            begin(&caxton, count / 2);
            caxton
        });
    }
}

/// Puts messages into a thousand conversations, to go back and forth.
fn spread(server: &Server, messages: u32) {
    const CALLS: u32 = 10;
    let each = messages / CALLS;
    assert!(each <= AT_ONCE, "{messages} messages take more calls");
    let mut order = order(b'm', each, HOPS);
    // The field after the hops, for the guest `relay`: the conversations over which the chains are spread.
    order.splice(9..13, 100u32.to_le_bytes());
    for _ in 0..CALLS {
        call(&server.address, "/ping", &order);
    }
}

/// Starts messages in a number of pairs, all at the same moment: chains that began earlier would keep the host busy and
/// slow down the calls that start the others.
fn begin(server: &Server, pairs: u32) {
    const CALLERS: u32 = 16;
    let due = Instant::now() + LEAD;
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || {
                for pair in (caller..pairs).step_by(CALLERS as usize) {
                    let left = due.saturating_duration_since(Instant::now()).as_millis() as u32;
                    let mut order = order(b'l', CHAINS / pairs, HOPS);
                    // The field after the hops, for the guest `relay`: the delay of the first messages in milliseconds.
                    order.splice(9..13, left.to_le_bytes());
                    call(&server.address, &format!("/a{pair}"), &order);
                }
            });
        }
    });
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// Measures a call of an otherwise idle agent while messages go back and forth among others without pause.
fn calls() {
    const CALLS: usize = 200;
    let (caxton, _) = host(HOST, &(pairs("memory", CHAINS) + &agent("echo", "echo", "")));
    let took = || {
        let mut took = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let began = Instant::now();
            call(&caxton.address, "/echo", b"hi");
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        (median(&mut took), took[CALLS * 99 / 100])
    };
    let quiet = took();
    begin(&caxton, CHAINS);
    std::thread::sleep(Duration::from_secs(1));
    let busy = took();
    println!(
        "a call on a connection of its own: {:.2} ms, p99 {:.2}; beside {CHAINS} chains of messages among {} agents: \
         {:.2} ms, p99 {:.2}",
        quiet.0,
        quiet.1,
        2 * CHAINS,
        busy.0,
        busy.1
    );
}

/// Lets a host run for its turn and returns the messages that it handles in a second.
fn rate(server: &Server) -> f64 {
    server.resume();
    std::thread::sleep(BEFORE);
    let (before, began) = (handled(server), Instant::now());
    std::thread::sleep(TIME);
    let rate = (handled(server) - before) as f64 / began.elapsed().as_secs_f64();
    server.suspend();
    rate
}

/// Compares hosts with each of these counts with one of the smallest count.
fn compare(what: &str, counts: &[u32], start: impl Fn(u32) -> Server) {
    let (&few, more) = counts.split_first().expect("there is something to compare");
    for &many in more {
        let hosts = [few, many].map(|count| {
            let host = start(count);
            host.suspend();
            host
        });
        let (mut rates, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let [base, rate] = [&hosts[0], &hosts[1]].map(rate);
            rates.push(rate);
            ratios.push(rate / base);
        }
        let middle = median(&mut ratios);
        // Sorted by `median`.
        let (low, high) = (ratios[TURNS / 4], ratios[TURNS * 3 / 4]);
        println!(
            "messages in memory, {many:>7} {what}: {middle:.2} x the rate with {few} (half of all turns {low:.2} to \
             {high:.2}), {:.0}/s",
            median(&mut rates)
        );
    }
}
