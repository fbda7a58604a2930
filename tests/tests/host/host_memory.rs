//! The host's budget of memory: shared by agents within their limits, told when it is short, and free again afterwards.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use caxton_tests::{Client, Host};
use serde_json::json;

use crate::{agent, file, host, metric};

const MIB: u64 = 1 << 20;

/// The resident memory of the host's process in bytes.
fn resident(host: &Host) -> u64 {
    let pid = host.pid().as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

fn held(host: &Host, kind: &str) -> u64 {
    metric(host, &format!("caxton_host_memory_bytes{{kind=\"{kind}\"}}"))
}

/// Waits until nothing is held any more but for the connections of clients that are still there.
fn until_free(host: &mut Host) {
    for kind in ["instances", "resources", "messages", "bodies", "effects", "compilation"] {
        host.until(&format!("no {kind} are held"), |host| (held(host, kind) == 0).then_some(()));
    }
}

/// The action of a guest that takes so much memory and keeps it for a moment.
fn grow(mib: u64, ms: u64) -> String {
    json!({ "do": "steps", "steps": [{ "do": "grow", "mib": mib }, { "do": "sleep", "ms": ms }] }).to_string()
}

#[test]
fn agents_within_their_limits_share_the_memory_of_the_host() {
    let names: Vec<String> = (0..8).map(|number| format!("r{number}")).collect();
    let settings =
        "limits = { memory = \"64MiB\", time = \"60s\", cpu = \"30s\" }\ninstances = { max = 2, idle = \"0s\" }\n";
    let agents: String = names.iter().map(|name| agent(name, "rogue", settings)).collect();
    let mut host = host(&format!("[host]\nmemory = \"200MiB\"\n{agents}"));
    let before = resident(&host);
    let callers: Vec<_> = names
        .iter()
        .chain(&names)
        .map(|name| {
            let (address, path) = (host.http.clone(), format!("/{name}"));
            std::thread::spawn(move || {
                let client = Client::new(&address, None);
                (0..4).map(|_| client.post(&path, grow(48, 20))).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut most = 0;
    while callers.iter().any(|caller| !caller.is_finished()) {
        most = most.max(resident(&host));
        caxton_tests::pause();
    }
    let replies: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().expect("it is answered")).collect();
    for reply in &replies {
        match reply.status.as_u16() {
            200 => {}
            503 => {
                assert_eq!(reply.json()["code"], "host-memory", "{}", reply.text());
                assert!(!reply.header("retry-after").is_empty());
            }
            _ => panic!("{} {}", reply.status, reply.text()),
        }
    }
    let answered = replies.iter().filter(|reply| reply.status.as_u16() == 200).count();
    assert!(answered >= 8, "{answered} of {} calls were answered", replies.len());
    // What is beside the budget: the program's own, memory kept for the next instances, and what the allocator keeps.
    assert!(most < before + 200 * MIB + 96 * MIB, "{} MiB before, {} at most", before / MIB, most / MIB);
    for name in &names {
        let status = host.agent(name);
        assert_eq!((&status["state"], &status["breaker"]), (&json!("running"), &json!("closed")), "{status}");
        let reply = host.client().post(&format!("/{name}"), grow(40, 0));
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    }
    let text = Client::new(&host.admin, None).get("/metrics").text();
    let faults = text.lines().filter(|line| line.starts_with("caxton_failures_total") && !line.contains("host-memory"));
    assert_eq!(faults.collect::<Vec<_>>(), Vec::<&str>::new());
    until_free(&mut host);
}

#[test]
fn a_shortage_is_told_and_ends() {
    let rogue = |name| agent(name, "rogue", "limits = { time = \"60s\" }\ninstances = { idle = \"0s\" }\n");
    let mut host = host(&format!("[host]\nmemory = \"64MiB\"\n{}{}", rogue("large"), rogue("small")));
    let address = host.http.clone();
    let large = std::thread::spawn(move || Client::new(&address, None).post("/large", grow(58, 8_000)));
    host.until("it has nearly all", |host| (held(host, "instances") > 57 * MIB).then_some(()));
    let refused = host.client().post("/small", r#"{"do":"none"}"#);
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (503, &json!("host-memory")), "{}", refused.text());
    assert!(!refused.header("retry-after").is_empty());
    host.until_output("host.memory");
    let events = |host: &Host| host.caxton(&["events"]).1;
    host.until("the event", |host| events(host).contains("host.memory-short").then_some(()));
    let (_, stats, _) = host.caxton(&["stats"]);
    assert!(stats.contains("(host.memory): instances") && stats.contains("were refused"), "{stats}");
    let (_, listed, hints) = host.caxton(&["ps"]);
    assert!(format!("{listed}{hints}").contains("the host is short of memory"), "{listed}{hints}");
    let reply = large.join().expect("it is answered");
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    assert_eq!(host.client().post("/small", r#"{"do":"reply","text":"fine"}"#).text(), "fine");
    host.until("the end of the shortage", |host| events(host).contains("host.memory-freed").then_some(()));
    until_free(&mut host);
    // A smaller budget applies at once, and a larger one lets those in whom it refuses.
    let more = file(&format!("[host]\nmemory = \"128MiB\"\n{}{}", rogue("large"), rogue("small")));
    host.edit(&more);
    host.until("the larger budget", |host| (metric(host, "caxton_host_memory_limit_bytes") == 128 * MIB).then_some(()));
}

#[test]
fn a_body_takes_memory_as_it_comes_and_not_as_it_is_announced() {
    const CONNECTIONS: u64 = 200;
    let mut host = host(&agent("echo", "echo", "limits = { message = \"10MiB\" }\n"));
    assert_eq!(host.client().post("/echo", "hi").status.as_u16(), 200);
    let before = resident(&host);
    let mut open: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = TcpStream::connect(&host.http).expect("the host listens");
            stream.set_nodelay(true).expect("a TCP socket");
            stream.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n").expect("it reads");
            stream
        })
        .collect();
    for _ in 0..20 {
        open.iter_mut().for_each(|stream| stream.write_all(b"x").expect("it reads"));
        // An answer between two bytes: the host has had time to read each by itself.
        assert_eq!(host.client().post("/echo", "hi").status.as_u16(), 200);
    }
    let each = resident(&host).saturating_sub(before) / CONNECTIONS;
    assert!(each < 64 << 10, "{each} bytes for each connection");
    assert!(held(&host, "connections") >= CONNECTIONS * (32 << 10));
    assert_eq!(held(&host, "bodies"), 0, "small bodies are part of the connections");
    drop(open);
    host.until("the connections are gone", |host| (held(host, "connections") < 10 * (32 << 10)).then_some(()));
    // A body that comes is counted, and one that is complete is answered.
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3000000\r\n\r\n")
        .expect("it reads");
    stream.write_all(&[b'x'; 2_000_000]).expect("it reads");
    host.until("what came is held", |host| (held(host, "bodies") >= 2_000_000).then_some(()));
    stream.write_all(&[b'x'; 1_000_000]).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.len() > 3_000_000, "{} bytes", answer.len());
    host.until("nothing is held", |host| (held(host, "bodies") + held(host, "messages") == 0).then_some(()));
}

#[test]
fn what_waits_and_what_is_written_is_counted_until_it_is_gone() {
    let later = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let settings = "limits = { message = \"8MiB\", effects = \"16MiB\", time = \"60s\" }\ninstances = { idle = \"0s\" }\nallow = { send = [\"rogue\"] }\n";
    let mut host = host(&(agent("rogue", "rogue", settings) + later));
    let client = host.client();
    assert_eq!(host.caxton(&["mailbox", "pause", "rogue"]).0, 0);
    let padded = json!({ "do": "log", "level": "info", "text": "x".repeat(200_000) }).to_string();
    let accepted = (0..20).filter(|_| client.post("/later", padded.clone()).status.as_u16() == 202).count();
    assert!(held(&host, "messages") >= accepted as u64 * 200_000 && accepted > 0, "{}", held(&host, "messages"));
    assert_eq!(host.caxton(&["mailbox", "resume", "rogue"]).0, 0);
    host.until("no messages are held", |host| (held(host, "messages") == 0).then_some(()));
    // A handling that has written much, and goes on for a moment.
    let write = json!({ "do": "steps", "steps": [
        { "do": "set", "key": "k", "bytes": 4_000_000 }, { "do": "sleep", "ms": 3_000 }
    ] });
    let address = host.http.clone();
    let writer = std::thread::spawn(move || Client::new(&address, None).post("/rogue", write.to_string()));
    host.until("its writes are held", |host| (held(host, "effects") >= 4_000_000).then_some(()));
    assert_eq!(writer.join().expect("it is answered").status.as_u16(), 200);
    // A response that nobody reads is held until its client leaves.
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    let ask = r#"{"do":"reply","bytes":8000000}"#;
    write!(stream, "POST /rogue HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{ask}", ask.len()).expect("it reads");
    host.until("the response is held", |host| (held(host, "bodies") >= 8_000_000).then_some(()));
    drop(stream);
    until_free(&mut host);
}

#[test]
fn what_a_guest_holds_behind_handles_is_bounded() {
    let web = agent("web", "rogue-web", "limits = { cpu = \"60s\", time = \"2m\" }\n")
        .replace("route = \"/web\"", "route = \"/{*path}\"");
    let mut host = host(&web);
    let before = resident(&host);
    // A few large ones, many small ones, and more than it may have together: 88 MB.
    for (asked, status) in [("50,100000", 200), ("900,400", 200), ("900,98000", 500)] {
        let reply = host.client().get(&format!("/hoard?{asked}"));
        assert_eq!(reply.status.as_u16(), status, "{asked}: {}", reply.text());
    }
    let grown = resident(&host).saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
    until_free(&mut host);
}
