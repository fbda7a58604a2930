//! A soak: all attackers at once beside the demo under load: `cargo bench -p caxton-benches --bench soak [-- SECONDS]`.
//!
//! Prints the 99th percentile of each neighbour's calls alone, beside honest company at the same number of calls at a
//! time, and beside attackers; the resident memory of the host; and the books: each message that was accepted was
//! handled, failed for good, or waits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caxton_benches::{Server, agent, build_guests, command, get_json, guest, host};

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
/// Calls of each neighbour in a second: a load that the host carries easily.
const RATE: u32 = 20;
/// The least duration of a phase.
const SHORTEST: Duration = Duration::from_secs(10);

/// The neighbours, each with what is asked of it.
const NEIGHBOURS: [(&str, &str, &str); 5] = [
    ("echo", "/echo", "good day"),
    ("counter", "/counter", r#"{"by":1}"#),
    ("tally", "/tally", "count"),
    ("web-echo", "/web-echo", "good day"),
    ("help desk", "/triage", "I was charged twice for the March invoice."),
];

/// The attacks by guests, each from a thread of its own that makes it again and again.
const ATTACKS: [(&str, &str); 22] = [
    ("/rogue", r#"{"do":"loop"}"#),
    ("/rogue", r#"{"do":"loop"}"#),
    ("/rogue", r#"{"do":"overflow"}"#),
    ("/rogue", r#"{"do":"trap"}"#),
    ("/rogue", r#"{"do":"grow","mib":4000}"#),
    ("/rogue", r#"{"do":"fail","cause":"fault","reason":"repeat:4000000:r"}"#),
    ("/rogue", r#"{"do":"flood","to":"log","bytes":4000000}"#),
    ("/rogue", r#"{"do":"flood","to":"stderr","bytes":4000000}"#),
    ("/rogue", r#"{"do":"send","to":"rogue","bytes":250000,"count":1000,"with":{"conversation":""}}"#),
    ("/zoo", "pollables 1000000"),
    ("/zoo", "read 1000000000"),
    ("/zoo", "read-others 100000 200"),
    ("/zoo", "rewrite 1000 200000"),
    ("/zoo", "fork 2"),
    ("/zoo", "drafts 1000000 100000"),
    ("/zoo", "log 1000000 8000"),
    ("/zoo", "list 1000000000 100000"),
    ("/zoo-web/fields/1000/100000", ""),
    ("/zoo-web/unfinished", ""),
    ("/zoo-web/after", ""),
    ("/zoo-memory", "x"),
    ("/rogue-web/endless", ""),
];

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(600);
    let time = Duration::from_secs(seconds);
    build_guests();
    let (server, _) = host(HOST, &file());
    let base = server.resident();
    let quiet = (time / 10).max(SHORTEST);
    let alone = phase(&server, quiet, &[], false);
    let honest = phase(&server, quiet, &[("/company", "good day"); ATTACKS.len()], false);
    let beside = phase(&server, time, &ATTACKS, true);
    println!(
        "{:<12} {:>12} {:>14} {:>16} {:>8} {:>8}",
        "p99", "alone ms", "honest ms", "attackers ms", "ratio", "failed"
    );
    for (at, (name, ..)) in NEIGHBOURS.iter().enumerate() {
        let [alone, honest, other] = [&alone, &honest, &beside].map(|phase| phase.p99_ms(at));
        let failed = beside.failed(at);
        println!(
            "{name:<12} {alone:>12.1} {honest:>14.1} {other:>16.1} {:>8.2} {failed:>8}",
            other / alone.max(honest)
        );
    }
    let peaks = [&alone, &honest, &beside].map(|phase| phase.peak >> 20);
    println!(
        "resident MiB: {} at the start, at most {peaks:?} in the three phases, {} at the end",
        base >> 20,
        server.resident() >> 20
    );
    books(&server);
}

fn file() -> String {
    let attacker = "instances = { max = 4, idle = \"2s\" }\nbreaker = { faults = 100 }\nmailbox = { attempts = 1, depth = 1_000 }\n\
                    allow = { send = [\"rogue\", \"zoo\"] }\nlimits = { cpu = \"500ms\", time = \"5s\" }\n";
    let any = |text: String, name: &str| text.replace(&format!("\"/{name}\""), &format!("\"/{name}/{{*rest}}\""));
    let desk = |name: &str, about: &str| {
        let path = guest("desk").display().to_string();
        format!(
            "[agents.{name}]\ncomponent = \"{path}\"\ncapabilities = [\"desk\"]\nconfig = {{ minutes = \"10\", about-any = \"{about}\", answer-any = \"yes\" }}\n"
        )
    };
    [
        "caxton = 1\n".to_owned(),
        agent("echo", "echo", ""),
        agent("company", "echo", "instances = { max = 16 }"),
        agent("counter", "counter", ""),
        agent("tally", "tally", ""),
        agent("web-echo", "web-echo", "instances = { reuse = 1000 }"),
        agent("triage", "triage", "allow = { send = [\"cap:desk\", \"ledger\"] }"),
        agent("ledger", "ledger", ""),
        desk("billing", "charged = 3"),
        desk("network", "outage = 3"),
        agent("rogue", "rogue", attacker),
        agent("zoo", "zoo", attacker),
        any(agent("zoo-web", "zoo-web", attacker), "zoo-web"),
        agent(
            "zoo-memory",
            "zoo-memory",
            &format!("{}config = {{ save = \"huge\" }}\n", attacker.replace("max = 4", "max = 1")),
        ),
        agent("rogue-web", "rogue-web", attacker).replace("\"/rogue-web\"", "\"/endless\""),
    ]
    .concat()
}

/// The result of a phase: for each neighbour the nanoseconds of its calls, and the number of those that failed.
struct Phase {
    calls: Vec<(Vec<u64>, usize)>,
    /// The most resident memory of the host.
    peak: u64,
}

impl Phase {
    fn p99_ms(&self, neighbour: usize) -> f64 {
        let mut times = self.calls[neighbour].0.clone();
        times.sort_unstable();
        times.get(times.len() * 99 / 100).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
    }

    fn failed(&self, neighbour: usize) -> usize {
        self.calls[neighbour].1
    }
}

/// Calls all neighbours for a time, with company or attackers beside them.
fn phase(server: &Server, time: Duration, beside: &[(&str, &str)], hostile: bool) -> Phase {
    let (until, over) = (Instant::now() + time, AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (path, body) in beside {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // Whatever comes of it: an attacker does not mind.
                    let _ = once(&server.address, path, body, Duration::from_secs(10));
                }
            });
        }
        if hostile {
            scope.spawn(|| connections(server, &over));
        }
        let neighbours: Vec<_> = NEIGHBOURS
            .iter()
            .map(|(_, path, body)| scope.spawn(move || paced(&server.address, path, body, until)))
            .collect();
        let mut peak = 0;
        while Instant::now() < until {
            peak = peak.max(server.resident());
            std::thread::sleep(Duration::from_millis(100));
        }
        let calls = neighbours.into_iter().map(|calls| calls.join().expect("a caller ends")).collect();
        over.store(true, Ordering::Relaxed);
        Phase { calls, peak }
    })
}

/// Calls at a steady rate: a call that is late counts from when it was due, so that a stall is not left out.
fn paced(address: &str, path: &str, body: &str, until: Instant) -> (Vec<u64>, usize) {
    let (mut due, mut times, mut failed) = (Instant::now(), Vec::new(), 0);
    while due < until {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        match once(address, path, body, Duration::from_secs(30)) {
            Some(status) if (200..300).contains(&status) => {
                times.push(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
            _ => failed += 1,
        }
        due += Duration::from_secs(1) / RATE;
    }
    (times, failed)
}

/// Makes a call on a connection of its own, and reads at most a MiB of the answer. Returns the status.
fn once(address: &str, path: &str, body: &str, patience: Duration) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = Vec::new();
    let _ = stream.take(1 << 20).read_to_end(&mut answer);
    std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()
}

/// Opens connections that say nothing, half a head or nonsense, to both listeners, and holds some hundred of them.
fn connections(server: &Server, over: &AtomicBool) {
    const SAID: [&[u8]; 5] = [
        b"",
        b"POST /echo HT",
        b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n{",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03nonsense",
    ];
    let mut held = std::collections::VecDeque::new();
    for at in 0_usize.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let address = if at % 4 == 0 { &server.admin } else { &server.address };
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.write_all(SAID[at % SAID.len()]);
            held.push_back(stream);
        }
        if held.len() > 500 {
            held.pop_front();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the attackers' messages have come to an end, and compares what was accepted with what became of it.
fn books(server: &Server) {
    for name in ["rogue", "zoo"] {
        // One whose mailbox is held by nobody goes on by itself; the command makes sure of that.
        command(server, &format!("/v1/mailboxes/{name}/resume"));
    }
    let began = Instant::now();
    loop {
        let agents = get_json(server, "/v1/agents");
        let (mut waiting, mut lines) = (0, Vec::new());
        for agent in agents.as_array().into_iter().flatten() {
            let count = |key: &str| agent[key].as_u64().unwrap_or(0);
            let left = count("mailbox_depth") + count("in_flight");
            waiting += left;
            let ended = count("handled") + count("failed");
            let accepted = count("accepted");
            // Calls of HTTP agents are no messages, and are accepted into no mailbox.
            if agent["kind"] != "http" && accepted != ended + left {
                lines
                    .push(format!("{}: accepted {accepted}, handled or failed {ended}, waiting {left}", agent["name"]));
            }
        }
        let is_over = waiting == 0 || began.elapsed() > Duration::from_secs(120);
        if is_over {
            println!(
                "books: {waiting} messages wait; {}",
                if lines.is_empty() { "they balance".to_owned() } else { lines.join("; ") }
            );
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
