//! What a message costs beside few others and beside many: `cargo bench -p caxton-benches --bench scale [-- NAME...]`.
//!
//! In memory, where no disk hides it. Every figure is a ratio of two measurements of this run. Names: `conversations`,
//! `depth`, `agents`.

use std::time::Instant;

use caxton_benches::{Server, build_guests, call, chains, handled, host, median, order, pause, relays, ring, wait_for};

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
const ROUNDS: usize = 3;
/// Messages that one call can send.
const AT_ONCE: u32 = 100_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    build_guests();
    if wanted("conversations") {
        conversations();
    }
    if wanted("depth") {
        depth();
    }
    if wanted("agents") {
        agents();
    }
}

/// The same messages in few conversations and in many.
fn conversations() {
    let (caxton, _) = host(HOST, &relays("memory"));
    let rate = |conversations| {
        let mut rates: Vec<f64> =
            (0..ROUNDS).map(|_| chains(&caxton, "ping", b's', conversations, 2_000_000 / conversations)).collect();
        median(&mut rates)
    };
    let few = rate(100);
    for many in [1_000, 10_000, 50_000] {
        println!("messages in memory, {many:>5} open conversations: {:.2} x those of 100", rate(many) / few);
    }
}

/// Fills the mailbox of an agent that rests, and gives how many messages a second it then handles.
fn drain(server: &Server, waiting: u32) -> f64 {
    pause(server, "pong", true);
    let before = handled(server);
    let calls = waiting.div_ceil(AT_ONCE);
    for _ in 0..calls {
        call(&server.address, "/ping", &order(b's', waiting / calls, 0));
    }
    let began = Instant::now();
    pause(server, "pong", false);
    wait_for(server, before + u64::from(calls) + u64::from(waiting));
    f64::from(waiting) / began.elapsed().as_secs_f64()
}

/// A mailbox that is emptied, with few messages in it and with many. Each message is in a conversation of its own.
fn depth() {
    let (caxton, _) = host(HOST, &relays("memory"));
    let rate = |waiting: u32, times: u32| {
        let mut rates: Vec<f64> = (0..times).map(|_| drain(&caxton, waiting)).collect();
        median(&mut rates)
    };
    rate(AT_ONCE, 1);
    let few = rate(AT_ONCE / 2, 5);
    for many in [AT_ONCE, 1_000_000] {
        println!("messages in memory, {many:>7} in the mailbox: {:.2} x those of {}", rate(many, 3) / few, AT_ONCE / 2);
    }
}

/// Messages that go round among few agents and among many, each agent with an instance of its own.
fn agents() {
    let mut few = None;
    for count in [10usize, 100, 1_000, 10_000] {
        let names: Vec<String> = (0..count).map(|number| format!("a{number}")).collect();
        let (caxton, _) = host(HOST, &ring("memory", &names, "instances = { max = 1 }"));
        // Once round: every agent has its instance.
        chains(&caxton, "a0", b's', 1_000, count as u32);
        let mut rates: Vec<f64> = (0..ROUNDS).map(|_| chains(&caxton, "a0", b's', 1_000, 2_000)).collect();
        let rate = median(&mut rates);
        let few = *few.get_or_insert(rate);
        println!("messages in memory, {count:>5} agents: {rate:.0}/s, {:.2} x those of 10", rate / few);
    }
}
