//! The cost of rollouts: `cargo bench -p caxton-benches --bench rollouts [-- NAME...]`.
//!
//! Every figure is a ratio of two measurements of this run, or a time printed beside its goal. Names: `load`,
//! `handoff`, `undo`, `many`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use caxton_benches::{
    Request, Server, agent, build_guests, command, drive, exchange, get_json, guest, host, host_with, median,
};

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
/// The duration of a load.
const TIME: Duration = Duration::from_secs(5);
/// The connections of a load.
const CONNECTIONS: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    build_guests();
    if wanted("load") {
        under_load();
    }
    if wanted("handoff") {
        handoff();
    }
    if wanted("undo") {
        undo();
    }
    if wanted("many") {
        many();
    }
}

/// Puts a component into a host's folder as `agent.wasm`, with a different digest for each number.
fn put(folder: &Path, name: &str, number: usize) {
    let mut bytes = std::fs::read(guest(name)).expect("the guest is built");
    // A custom section, which hosts ignore: its kind, its length, the length of its name, its name.
    let text = format!("version-{number:08}");
    bytes.extend([0, text.len() as u8 + 1, text.len() as u8]);
    bytes.extend(text.as_bytes());
    let new = folder.join("new.wasm");
    std::fs::write(&new, bytes).expect("the folder can be written to");
    std::fs::rename(new, folder.join("agent.wasm")).expect("the folder can be written to");
}

/// Returns the declaration of an agent with the host's own `agent.wasm`.
fn own(name: &str, more: &str) -> String {
    let agent = agent(name, "echo", more);
    let rest = agent.split_once('\n').and_then(|(_, rest)| rest.split_once('\n')).map_or("", |(_, rest)| rest);
    format!("[agents.{name}]\ncomponent = \"agent.wasm\"\n{rest}")
}

fn edit(server: &Server, toml: &str) {
    // Atomically, so that the host never reads half of the file.
    let new = server.folder().join("caxton.toml.new");
    std::fs::write(&new, toml).expect("the folder can be written to");
    std::fs::rename(new, server.folder().join("caxton.toml")).expect("the folder can be written to");
}

/// Waits for the end of an agent's rollout to a revision and returns it; `None` if `enough` holds first.
fn rollout(server: &Server, agent: &str, number: u64, enough: impl Fn() -> bool) -> Option<serde_json::Value> {
    while !enough() {
        let newest = get_json(server, &format!("/v1/rollouts/{agent}"))[0].clone();
        let is_it = newest["to"] == format!("{agent}@{number}");
        if is_it && newest["ended"] == true {
            assert_eq!(newest["status"], "completed", "{newest}");
            return Some(newest);
        }
        // Polled rarely: the responses, which grow, are produced on the cores that are measured.
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// Compares calls of an agent during repeated rollouts with calls in between.
fn under_load() {
    let steps = "steps = [{ weight = 20, for = \"1s\" }, { weight = 60, for = \"1s\" }]";
    let strategies = [
        ("deploy", "immediate", ""),
        ("deploy", "rolling", ""),
        ("deploy", "blue-green", "keep-warm = \"0s\""),
        ("deploy", "canary", steps),
        ("reload", "graceful", ""),
        ("reload", "immediate", ""),
        ("reload", "traffic-splitting", "steps = [50, 100], every = \"1s\""),
        ("reload", "parallel", "for = \"1s\", min-messages = 1000"),
    ];
    for (kind, name, more) in strategies {
        // Strategies that move traffic by weight judge the candidate; judging one with all the traffic would only take
        // time.
        let rollback =
            if more.contains("steps") { "min-messages = 20, slower = \"10000%\"" } else { "automatic = false" };
        let comma = if more.is_empty() { "" } else { ", " };
        let settings = format!(
            "instances = {{ min = 2, max = 4 }}\nrollback = {{ {rollback} }}\n{kind} = {{ strategy = \"{name}\"{comma}{more} }}\n"
        );
        let file = |number: usize| {
            let config = if kind == "deploy" { format!("config = {{ n = \"{number}\" }}\n") } else { String::new() };
            format!("caxton = 1\n{}", own("echo", &format!("{settings}{config}")))
        };
        let server = host_with(HOST, &file(1), |folder| put(folder, "echo", 1));
        let request = Request {
            address: server.address.clone(),
            path: "/echo".to_owned(),
            body: b"Hello, are you there?".into(),
        };
        // Warms up before the quiet measurement.
        drive(&request, CONNECTIONS, TIME / 5);
        let quiet = drive(&request, CONNECTIONS, TIME);
        let (during, rollouts) = std::thread::scope(|scope| {
            let load = scope.spawn(|| drive(&request, CONNECTIONS, TIME));
            let (mut number, mut done) = (1, 0);
            while !load.is_finished() {
                number += 1;
                match kind {
                    "deploy" => edit(&server, &file(number)),
                    _ => put(server.folder(), "echo", number),
                }
                if rollout(&server, "echo", number as u64, || load.is_finished()).is_some() {
                    done += 1;
                }
            }
            (load.join().expect("the load ends well"), done)
        });
        println!(
            "{kind} {name:<17} {rollouts:>3} in {} s of load: {:.2} x the calls/s of a quiet time ({:.0}/s), p99 {:.2} ms, {:.1} x",
            TIME.as_secs(),
            during.rate / quiet.rate,
            quiet.rate,
            during.p99_us / 1e3,
            during.p99_us / quiet.p99_us
        );
    }
}

/// Measures the time for which the mailbox of an agent with 1 MB of state is paused by a handoff.
fn handoff() {
    const ROLLOUTS: u64 = 300;
    let file = |number: u64| {
        format!(
            "caxton = 1\n{}",
            agent(
                "session",
                "session",
                &format!("rollback = {{ automatic = false }}\nconfig = {{ n = \"{number}\" }}")
            )
        )
    };
    let (server, _) = host(HOST, &file(1));
    let note = "n".repeat(1_000);
    for _ in 0..1_000 {
        let head = "caxton-conversation: notes\r\n";
        exchange(&server.address, "POST", "/session", head, note.as_bytes());
    }
    let mut pauses: Vec<f64> = (2..ROLLOUTS + 2)
        .map(|number| {
            edit(&server, &file(number));
            let done = rollout(&server, "session", number, || false).expect("it goes on until it is over");
            done["longest_pause_ms"].as_f64().unwrap_or(f64::NAN)
        })
        .collect();
    pauses.sort_by(f64::total_cmp);
    println!(
        "handoff of 1 MB of memory, {ROLLOUTS} times: the mailbox waits {:.0} ms, {:.0} ms at p99 (goal at most 10)",
        pauses[pauses.len() / 2],
        pauses[pauses.len() * 99 / 100 - 1]
    );
}

/// Measures the time until the former revision of a blue-green deployment answers again.
fn undo() {
    let file = |number: usize| {
        let more =
            format!("deploy = {{ strategy = \"blue-green\", keep-warm = \"1h\" }}\nconfig = {{ n = \"{number}\" }}");
        format!("caxton = 1\n{}", agent("echo", "echo", &more))
    };
    let mut times = Vec::new();
    for _ in 0..20 {
        let (server, _) = host(HOST, &file(1));
        edit(&server, &file(2));
        let answers = |revision: &str| {
            let head = exchange_head(&server);
            head.contains(&format!("caxton-revision: {revision}"))
        };
        while !answers("echo@2") {}
        let began = Instant::now();
        command(&server, "/v1/rollouts/echo/undo?rehearse=false");
        while !answers("echo@1") {}
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let most = times.iter().copied().fold(0.0, f64::max);
    println!("undo of a blue-green deployment: {:.1} ms, {most:.1} ms at most (goal 100)", median(&mut times));
}

fn exchange_head(server: &Server) -> String {
    caxton_benches::response(&server.address, "POST", "/echo", "", b"x")
}

/// Measures one edit that changes a thousand agents, and a new component for all of them.
fn many() {
    const AGENTS: usize = 1_000;
    let file = |memory: u32| {
        let mut text = format!("caxton = 1\n[defaults.limits]\nmemory = \"{memory}MiB\"\n");
        for number in 0..AGENTS {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{}", own(&format!("a{number:04}"), ""));
        }
        text
    };
    let server = host_with(HOST, &file(32), |folder| put(folder, "echo", 1));
    for number in 0..AGENTS {
        exchange(&server.address, "POST", &format!("/a{number:04}"), "", b"x");
    }
    let all_run = |number: usize| loop {
        let agents = get_json(&server, "/v1/agents");
        let runs = |agent: &serde_json::Value| {
            agent["revision"].as_str().is_some_and(|id| id.ends_with(&format!("@{number}")))
        };
        if agents.as_array().is_some_and(|agents| agents.len() == AGENTS && agents.iter().all(runs)) {
            return;
        }
        // Polled rarely: a response costs the host as much as some rollouts.
        std::thread::sleep(Duration::from_millis(250));
    };
    for (number, what) in [(2, "an edit of the settings of"), (3, "new bytes for")] {
        let began = Instant::now();
        match number {
            2 => edit(&server, &file(48)),
            _ => put(server.folder(), "echo", number),
        }
        all_run(number);
        println!(
            "{what} {AGENTS} agents: all run after {:.2} s, {:.0} MB resident",
            began.elapsed().as_secs_f64(),
            server.resident() as f64 / 1e6
        );
    }
}
