//! What a message costs beside few others and beside many: `cargo bench -p caxton-benches --bench scale [-- NAME...]`.
//!
//! In memory, where no disk hides it: messages go from agent to agent for as long as it takes, and the rate is taken in
//! their midst. Every figure is the ratio to the fewest, of two hosts that run in turn: one stands still while the other is
//! measured, for a quarter of a second each, so that a machine whose speed changes changes it for both. Names: `conversations`, `depth`, `agents`; `calls` is what a call takes beside many messages.

use std::time::{Duration, Instant};

use caxton_benches::{Server, agent, build_guests, call, handled, host, median, order, pairs, relays};

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
/// How often each host has its turn, how long its messages go round before they are counted, and how long they are
/// counted.
const TURNS: usize = 40;
const BEFORE: Duration = Duration::from_millis(50);
const TIME: Duration = Duration::from_millis(250);
/// How long until all chains have been ordered.
const LEAD: Duration = Duration::from_secs(5);
/// Messages that go to and fro at once, over all agents.
const CHAINS: u32 = 5_000;
/// More than there will be.
const HOPS: u32 = 900_000;
/// Messages that one call can send.
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

/// Puts so many messages into a thousand conversations, to go to and fro.
fn spread(server: &Server, messages: u32) {
    const CALLS: u32 = 10;
    let each = messages / CALLS;
    assert!(each <= AT_ONCE, "{messages} messages take more calls");
    let mut order = order(b'm', each, HOPS);
    order.splice(9..13, 100u32.to_le_bytes());
    for _ in 0..CALLS {
        call(&server.address, "/ping", &order);
    }
}

/// Lets messages go to and fro in each of so many pairs, in all of them from the same moment on: those that had begun
/// before would keep the host busy, so that each call takes its time.
fn begin(server: &Server, pairs: u32) {
    const CALLERS: u32 = 16;
    let due = Instant::now() + LEAD;
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            scope.spawn(move || {
                for pair in (caller..pairs).step_by(CALLERS as usize) {
                    let left = due.saturating_duration_since(Instant::now()).as_millis() as u32;
                    let mut order = order(b'l', CHAINS / pairs, HOPS);
                    order.splice(9..13, left.to_le_bytes());
                    call(&server.address, &format!("/a{pair}"), &order);
                }
            });
        }
    });
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// What a call of an agent takes that has nothing else to do, while messages go to and fro among others without a pause.
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

/// Lets a host go on for its turn. Gives the messages that it handles in a second.
fn rate(server: &Server) -> f64 {
    server.go_on();
    std::thread::sleep(BEFORE);
    let (before, began) = (handled(server), Instant::now());
    std::thread::sleep(TIME);
    let rate = (handled(server) - before) as f64 / began.elapsed().as_secs_f64();
    server.stand_still();
    rate
}

/// Measures hosts with each of these counts beside one with the fewest.
fn compare(what: &str, counts: &[u32], start: impl Fn(u32) -> Server) {
    let (&few, more) = counts.split_first().expect("there is something to compare");
    for &many in more {
        let hosts = [few, many].map(|count| {
            let host = start(count);
            host.stand_still();
            host
        });
        let (mut rates, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let [base, rate] = [&hosts[0], &hosts[1]].map(rate);
            rates.push(rate);
            ratios.push(rate / base);
        }
        let middle = median(&mut ratios);
        // In order now.
        let (low, high) = (ratios[TURNS / 4], ratios[TURNS * 3 / 4]);
        println!(
            "messages in memory, {many:>7} {what}: {middle:.2} x the rate with {few} (half of all turns {low:.2} to \
             {high:.2}), {:.0}/s",
            median(&mut rates)
        );
    }
}
