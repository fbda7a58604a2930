//! Agents that pass messages to each other.

use std::time::{Duration, Instant};

use crate::{Server, agent, call, handled};

/// Returns the file of a host with two agents that pass messages to each other, `ping` and `pong`.
pub fn relays(durability: &str) -> String {
    file(durability, &(relay("ping", "pong", "") + &relay("pong", "ping", "")))
}

/// Returns the file of a host with pairs of agents that pass messages to each other, `a0` and `b0` and so on, each with
/// one instance.
pub fn pairs(durability: &str, count: u32) -> String {
    // One instance for each agent, so that the messages of a pair never run at once.
    let alone = "instances = { max = 1 }";
    let pair = |pair: u32| {
        let (one, other) = (format!("a{pair}"), format!("b{pair}"));
        relay(&one, &other, alone) + &relay(&other, &one, alone)
    };
    file(durability, &(0..count).map(pair).collect::<String>())
}

fn relay(name: &str, peer: &str, more: &str) -> String {
    // Limits far above the bench, which measures their cost and not their refusals.
    let settings = format!(
        "allow = {{ send = [\"{peer}\"] }}\nconfig = {{ peer = \"{peer}\" }}\nlimits = {{ hops = 1000000, sends = 100000, timers = 1000000 }}\nmailbox = {{ depth = 1000000 }}\n{more}"
    );
    agent(name, "relay", &settings)
}

fn file(durability: &str, agents: &str) -> String {
    format!("caxton = 1\n[store]\ndurability = \"{durability}\"\n{agents}")
}

/// Returns the message that starts a number of chains with a number of hops.
pub fn order(kind: u8, chains: u32, hops: u32) -> Vec<u8> {
    [[kind].as_slice(), &chains.to_le_bytes(), &hops.to_le_bytes(), &[7; 256]].concat()
}

/// Runs chains of messages at once, beginning at the agent `first`, and returns messages per second. `kind` is `d` for
/// messages that write a key and `s` for others.
pub fn chains(server: &Server, first: &str, kind: u8, chains: u32, hops: u32) -> f64 {
    let (before, all) = (handled(server), u64::from(chains) * u64::from(hops + 1));
    let began = Instant::now();
    call(&server.address, &format!("/{first}"), &order(kind, chains, hops));
    // The message that starts the chains counts too.
    wait_for(server, before + all + 1);
    all as f64 / began.elapsed().as_secs_f64()
}

/// Waits until a number of messages were handled since the host started.
fn wait_for(server: &Server, messages: u64) {
    // Polled rarely: each request costs the host as much as some hundred messages.
    while handled(server) < messages {
        std::thread::sleep(Duration::from_millis(20));
    }
}
