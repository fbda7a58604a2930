//! An agent that uses all it may does not keep threads or memory from others.

use std::collections::BTreeMap;
use std::fs;

use caxton_tests::{Client, Host};
use serde_json::json;

use crate::{agent, host};

/// Returns the ticks on a core of the threads of a host, by their name.
fn ticks(host: &Host) -> BTreeMap<String, u64> {
    let mut ticks = BTreeMap::new();
    let tasks = format!("/proc/{}/task", host.pid().as_raw_nonzero());
    for task in fs::read_dir(tasks).expect("it runs").flatten() {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(task.path().join("stat")) else { continue };
        let (name, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
        let name = name.split_once('(').expect("a name in parentheses").1;
        let used: u64 = rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        *ticks.entry(name.to_owned()).or_default() += used;
    }
    ticks
}

#[test]
fn guests_that_compute_do_so_apart_from_connections_and_messages() {
    let settings = "instances = { max = 8 }\nlimits = { time = \"60s\" }";
    let later = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let toml = agent("rogue", "rogue", settings) + later;
    let mut host = host(&toml);
    let spin = |path: &'static str| {
        let address = host.http.clone();
        std::thread::spawn(move || {
            Client::new(&address, None).post(path, json!({ "do": "spin", "ms": 400 }).to_string()).status.as_u16()
        })
    };
    let before = ticks(&host);
    // As calls, and as messages.
    let calls: Vec<_> = (0..4).map(|_| spin("/rogue")).chain((0..4).map(|_| spin("/later"))).collect();
    for call in calls {
        assert!([200, 202].contains(&call.join().expect("it is answered")));
    }
    host.until_agent("rogue", "all are handled", |agent| agent["handled"] == 8);
    let after = ticks(&host);
    let used = |name: &str| after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
    let (apart, others) = (used("caxton-guest"), used("caxton") + used("caxton-work"));
    // Of 3.2 s all but the first slices.
    assert!(apart > 4 * others, "{apart} ticks apart, {others} elsewhere: {before:?} {after:?}");
}

#[test]
fn an_agent_whose_commits_wait_begins_no_further_handling() {
    const MESSAGES: u64 = 50;
    // What is accepted waits for no commit then.
    let memory = "[store]\ndurability = \"memory\"\n";
    let later = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let mut host = host(&(memory.to_owned() + &agent("rogue", "rogue", "") + later + &agent("echo", "echo", "")));
    host.order("stall store-writer");
    let client = host.client();
    let write = json!({ "do": "set", "key": "k", "bytes": 250_000, "count": 30 }).to_string();
    for _ in 0..MESSAGES {
        assert_eq!(client.post("/later", write.clone()).status.as_u16(), 202);
    }
    host.until_agent("rogue", "some are in hand", |agent| agent["mailbox_depth"].as_u64() < Some(MESSAGES));
    // As long as it would take to handle them all.
    for _ in 0..500 {
        assert_eq!(client.post("/echo", "hi").status.as_u16(), 200);
    }
    let waiting = host.agent("rogue")["mailbox_depth"].as_u64().expect("a number");
    assert!(waiting > MESSAGES - 10, "{waiting} messages wait");
}
