//! A bench of durable messages: `cargo bench -p caxton-benches --bench durable [-- NAME...]`.
//!
//! Every figure is a ratio of two measurements of this run, or is printed beside its goal. Names: `hop`, `single`,
//! `nats`, `memory`, `snapshot`, `start`.

use std::time::Duration;

use caxton_benches::{
    Request, agent, build_guests, call, chains, delivery_p99, drive, host, jetstream, median, plain_batches,
    plain_single, relays,
};

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
const ROUNDS: usize = 3;
/// Rounds of the comparison with plain SQLite; more than elsewhere, as the machine's speed changes from one second to
/// the next.
const HOP_ROUNDS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    build_guests();
    if wanted("hop") {
        hop();
    }
    if wanted("single") {
        single();
    }
    if wanted("nats") {
        against_nats();
    }
    if wanted("memory") {
        memory();
    }
    if wanted("snapshot") {
        snapshot();
    }
    if wanted("start") {
        start();
    }
}

/// Compares a handler that runs, writes a key and sends a message with the same rows written without a handler.
fn hop() {
    for (conversations, hops) in [(1_000u32, 500u32), (10_000, 50)] {
        let (mut ours, mut plain, mut ratios, mut latest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..HOP_ROUNDS {
            let (caxton, _) = host(HOST, &relays("fsync"));
            let rate = chains(&caxton, "ping", b'd', conversations, hops);
            latest.push(delivery_p99(&caxton));
            drop(caxton);
            let folder = tempfile::tempdir().expect("a temporary folder");
            let batch = conversations.min(4_096) as usize;
            let bare = plain_batches(folder.path(), 500_000, batch, conversations as usize);
            ours.push(rate);
            plain.push(bare);
            ratios.push(rate / bare);
        }
        println!(
            "durable hop, {conversations:>5} conversations: {:>7.0}/s (goal 100000), {:.2} x plain SQLite in batches, {:.0}/s (goal 0.60); p99 {:.1} ms (goal at most 20)",
            median(&mut ours),
            median(&mut ratios),
            median(&mut plain),
            median(&mut latest)
        );
    }
}

/// Measures messages one after the other, each on the disk before the next.
fn single() {
    let (caxton, _) = host(HOST, &relays("fsync"));
    let (mut ratios, mut each) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ours = 1e6 / chains(&caxton, "ping", b'd', 1, 1_000);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bare = plain_single(folder.path(), 1_000);
        ratios.push(ours / bare);
        each.push(ours);
    }
    println!(
        "durable hop, one at a time: {:.0} us, {:.2} x a bare synced transaction (goal at most 2.00)",
        median(&mut each),
        median(&mut ratios)
    );
}

fn against_nats() {
    for (title, synced, goal) in
        [("NATS JetStream, not synced", false, "goal 2"), ("NATS JetStream, sync_interval: always", true, "goal 100")]
    {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let nats = match jetstream(synced, Duration::from_secs(4)) {
                Ok(rate) => rate,
                Err(why) => {
                    println!("durable hop / {title}: not measured: {why}");
                    return;
                }
            };
            let (caxton, _) = host(HOST, &relays("fsync"));
            let rate = chains(&caxton, "ping", b'd', 1_000, 500);
            ours.push(rate);
            theirs.push(nats);
            ratios.push(rate / nats);
        }
        println!(
            "durable hop, synced / {title}: {:.1} x ({goal}) | ours {:.0}/s, theirs {:.0}/s",
            median(&mut ratios),
            median(&mut ours),
            median(&mut theirs)
        );
    }
}

/// Measures messages without a durable store.
fn memory() {
    let (caxton, _) = host(HOST, &relays("memory"));
    let mut rates: Vec<f64> = (0..ROUNDS).map(|_| chains(&caxton, "ping", b's', 1_000, 2_000)).collect();
    println!("messages in memory, 1000 conversations: {:.0}/s (goal 500000)", median(&mut rates));
}

/// Measures an agent whose memory is part of each commit against the same agent whose memory is saved when idle. Messages
/// that change it write a key in both, so that both wait for the disk.
fn snapshot() {
    const TIME: Duration = Duration::from_secs(2);
    let agents = ["commit", "idle"].map(|save| agent(save, "tally", &format!("snapshot = {{ save = \"{save}\" }}")));
    let (caxton, _) = host(HOST, &format!("caxton = 1\n{}", agents.concat()));
    for kib in [1_usize, 16, 64] {
        // A count of 8 bytes is saved before the rest.
        let pad = format!("pad {}", kib * 1_024 - 8);
        for name in ["/commit", "/idle"] {
            call(&caxton.address, name, pad.as_bytes());
        }
        for (what, word) in [("changed by each message", "add"), ("read only", "read")] {
            for connections in [1, 16] {
                let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
                let request = |path: &str| Request {
                    address: caxton.address.clone(),
                    path: path.to_owned(),
                    body: word.as_bytes().to_vec(),
                };
                for _ in 0..ROUNDS {
                    let with = drive(&request("/commit"), connections, TIME);
                    let without = drive(&request("/idle"), connections, TIME);
                    ratios.push(with.rate / without.rate);
                    ours.push(with.rate);
                    theirs.push(without.rate);
                }
                println!(
                    "memory of {kib:>2} KiB, {what}, {connections:>2} connections: {:.2} x save = \"idle\" | {:.0}/s, {:.0}/s",
                    median(&mut ratios),
                    median(&mut ours),
                    median(&mut theirs)
                );
            }
        }
    }
}

/// Measures a start with a million queued messages.
fn start() {
    const WAITING: u32 = 1_000_000;
    // Timers that do not become due: nothing but loading them takes time.
    let toml = relays("os").replace("limits = {", "limits = { time = \"1h\", cpu = \"60s\", memory = \"1GiB\",");
    let (caxton, _) = host(HOST, &toml);
    for _ in 0..WAITING / 100_000 {
        let content = [b"w".as_slice(), &100_000u32.to_le_bytes(), &0u32.to_le_bytes(), &[7; 256]].concat();
        call(&caxton.address, "/ping", &content);
    }
    let (caxton, took) = caxton.again(HOST);
    let resident = caxton.resident();
    println!(
        "start with {WAITING} messages that wait: {:.2} s (goal 5), {:.0} MB resident",
        took.as_secs_f64(),
        resident as f64 / 1e6
    );
}
