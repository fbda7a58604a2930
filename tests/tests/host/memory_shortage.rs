//! A host with far too little memory for the calls that come at once: they are answered in turn. What it remembers to be
//! faster is counted.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use caxton_tests::{Client, Host};
use serde_json::json;

use crate::{agent, host, metric};

fn held(host: &Host, kind: &str) -> u64 {
    metric(host, &format!("caxton_host_memory_bytes{{kind=\"{kind}\"}}"))
}

/// Calls each agent so often at once, and returns the answers.
fn call_at_once(host: &Host, names: &[String], each: usize, body: &str) -> Vec<caxton_tests::Reply> {
    let callers: Vec<_> = (0..each)
        .flat_map(|_| names)
        .map(|name| {
            let (address, path, body) = (host.http.clone(), format!("/{name}"), body.to_owned());
            std::thread::spawn(move || Client::new(&address, None).post(&path, body))
        })
        .collect();
    callers.into_iter().map(|caller| caller.join().expect("it is answered")).collect()
}

/// The lines of failures that are not 0.
fn failures(host: &Host) -> Vec<String> {
    let text = Client::new(&host.admin, None).get("/metrics").text();
    text.lines()
        .filter(|line| line.starts_with("caxton_failures_total") && !line.ends_with(" 0"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn guests_that_grow_are_served_a_few_at_a_time() {
    let names: Vec<String> = (0..12).map(|number| format!("r{number}")).collect();
    let settings =
        "limits = { memory = \"64MiB\", time = \"2m\", cpu = \"30s\" }\ninstances = { max = 10, idle = \"0s\" }\n";
    let agents: String = names.iter().map(|name| agent(name, "rogue", settings)).collect();
    let mut host = host(&format!("[host]\nmemory = \"200MiB\"\n{agents}"));
    // Three or four of 120 fit at once, and none has shown before what it takes.
    let action =
        json!({ "do": "steps", "steps": [{ "do": "grow", "mib": 48 }, { "do": "sleep", "ms": 20 }] }).to_string();
    let replies = call_at_once(&host, &names, 10, &action);
    let failed: Vec<String> =
        replies.iter().filter(|reply| reply.status.as_u16() != 200).map(caxton_tests::Reply::text).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), replies.len());
    assert_eq!(failures(&host), Vec::<String>::new(), "no agent is at fault");
    for name in &names {
        let status = host.agent(name);
        assert_eq!((&status["state"], &status["breaker"]), (&json!("running"), &json!("closed")), "{status}");
    }
    host.until("the memory is free", |host| (held(host, "instances") + held(host, "expected") == 0).then_some(()));
}

#[test]
fn agents_with_state_in_memory_make_room_for_each_other() {
    let names: Vec<String> = (0..80).map(|number| format!("s{number}")).collect();
    let settings = "limits = { time = \"2m\" }\ninstances = { idle = \"1h\" }\n";
    let agents: String = names.iter().map(|name| agent(name, "zoo-memory", settings)).collect();
    // An instance has more than a mebibyte, and stays with its memory after a call.
    let host = host(&format!("[host]\nmemory = \"64MiB\"\n{agents}"));
    for round in 1..=3 {
        let replies = call_at_once(&host, &names, 1, "hi");
        for reply in &replies {
            // What an instance that made room had in its memory is there in the next one.
            assert_eq!((reply.status.as_u16(), reply.text()), (200, round.to_string()), "round {round}");
        }
    }
    assert_eq!(failures(&host), Vec::<String>::new());
}

#[test]
fn what_is_remembered_is_counted() {
    const WAITING: u64 = 3_000;
    let later = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let mut host = host(&(agent("rogue", "rogue", "limits = { writes = 1000 }\n") + later));
    let client = host.client();
    let set = json!({ "do": "set", "key": "k", "value": "v", "count": 500 }).to_string();
    assert_eq!(client.post("/rogue", set).status.as_u16(), 200);
    host.until("the keys that were written", |host| (held(host, "caches") >= 500 * 128).then_some(()));
    assert!(held(&host, "stacks") > 0);
    assert_eq!(host.caxton(&["mailbox", "pause", "rogue"]).0, 0);
    for _ in 0..WAITING {
        assert_eq!(client.post("/later", r#"{"do":"none"}"#).status.as_u16(), 202);
    }
    // After a start they are in the store, and have a place in the mailbox.
    let mut host = host.kill().start();
    assert!(held(&host, "messages") >= WAITING * 128, "{}", held(&host, "messages"));
    assert_eq!(host.caxton(&["mailbox", "resume", "rogue"]).0, 0);
    host.until("nothing waits", |host| (held(host, "messages") == 0).then_some(()));
    // A body of the management API that comes slowly.
    let token = fs::read_to_string(host.folder().join(".caxton/token")).expect("the host wrote its token");
    let mut stream = TcpStream::connect(&host.admin).expect("the host listens");
    let head = "PUT /v1/agents/rogue/state/large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    write!(stream, "{head}authorization: Bearer {}\r\ncontent-length: 3000000\r\n\r\n", token.trim())
        .expect("it reads");
    stream.write_all(&[b'x'; 2_000_000]).expect("it reads");
    host.until("what came is held", |host| (held(host, "bodies") >= 1_900_000).then_some(()));
    drop(stream);
    host.until("the client has left", |host| (held(host, "bodies") == 0).then_some(()));
}
