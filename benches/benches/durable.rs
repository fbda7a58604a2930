//! Messages that last: `cargo bench -p caxton-benches --bench durable [-- NAME...]`.
//!
//! Every figure is a ratio of two measurements of this run, or stands beside what it is held against. Names: `hop`,
//! `single`, `nats`, `memory`, `depth`, `start`.

use std::time::{Duration, Instant};

use caxton_benches::{
    Server, agent, build_guests, call, count, delivery_p99, host, jetstream, median, plain_batches, plain_single,
};

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
const ROUNDS: usize = 3;

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
    if wanted("depth") {
        depth();
    }
    if wanted("start") {
        start();
    }
}

/// Two agents that pass messages to each other.
fn relays(durability: &str) -> String {
    let relay = |name: &str, peer: &str| {
        let more = format!(
            "allow = {{ send = [\"{peer}\"] }}\nconfig = {{ peer = \"{peer}\" }}\nlimits = {{ hops = 1000000, sends = 100000 }}\nmailbox = {{ depth = 1000000 }}"
        );
        agent(name, "relay", &more)
    };
    format!("caxton = 1\n[store]\ndurability = \"{durability}\"\n{}{}", relay("ping", "pong"), relay("pong", "ping"))
}

/// Lets so many chains of messages run at once, each of so many hops; gives messages per second. `kind` is `d` for
/// messages that write a key and `s` for others.
fn chains(server: &Server, kind: u8, chains: u32, hops: u32) -> f64 {
    let handled = || -> u64 { ["ping", "pong"].iter().map(|name| count(server, name)).sum() };
    let (before, all) = (handled(), u64::from(chains) * u64::from(hops + 1));
    let content = [[kind].as_slice(), &chains.to_le_bytes(), &hops.to_le_bytes(), &[7; 256]].concat();
    let began = Instant::now();
    call(&server.address, "/ping", &content);
    // Asked seldom: each question costs the host what some hundred messages cost.
    while handled() < before + all + 1 {
        std::thread::sleep(Duration::from_millis(20));
    }
    all as f64 / began.elapsed().as_secs_f64()
}

/// A handler that runs, writes a key and sends a message, against the same rows without any handler.
fn hop() {
    for (conversations, hops) in [(1_000u32, 500u32), (10_000, 50)] {
        let (mut ours, mut plain, mut ratios, mut latest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (caxton, _) = host(HOST, &relays("fsync"));
            let rate = chains(&caxton, b'd', conversations, hops);
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

/// One message after the other, each on the disk before the next.
fn single() {
    let (caxton, _) = host(HOST, &relays("fsync"));
    let (mut ratios, mut each) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ours = 1e6 / chains(&caxton, b'd', 1, 1_000);
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
            let rate = chains(&caxton, b'd', 1_000, 500);
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

/// Nothing is kept: messages only.
fn memory() {
    let (caxton, _) = host(HOST, &relays("memory"));
    let mut rates: Vec<f64> = (0..ROUNDS).map(|_| chains(&caxton, b's', 1_000, 2_000)).collect();
    println!("messages in memory, 1000 conversations: {:.0}/s (goal 500000)", median(&mut rates));
}

/// What a message costs beside few and beside many others, in memory, where nothing else hides it.
fn depth() {
    let (caxton, _) = host(HOST, &relays("memory"));
    let mut first = None;
    for (conversations, hops) in [(100u32, 20_000u32), (1_000, 2_000), (10_000, 200), (50_000, 40)] {
        let mut rates: Vec<f64> = (0..ROUNDS).map(|_| chains(&caxton, b's', conversations, hops)).collect();
        let rate = median(&mut rates);
        let first = *first.get_or_insert(rate);
        println!("messages in memory, {conversations:>5} conversations: {:.2} x those of 100", rate / first);
    }
}

/// A start with a million messages that wait.
fn start() {
    const WAITING: u32 = 1_000_000;
    // They wait for a time that does not come.
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
