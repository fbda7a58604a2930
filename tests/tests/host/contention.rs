//! The contention for instance slots: more agents are busy than there are slots, they take turns, and none starves.

use std::fmt::Write;

use caxton_tests::{Client, Host};
use serde_json::json;

use crate::{agent, host};

/// The fewest places that a host may have.
const PLACES: usize = 64;

const FEW: &str = "[host]\ninstances = 64\n";

/// Calls these agents, each in a thread. Returns their responses.
fn call_all(host: &Host, names: &[String], content: &[u8]) -> Vec<(u16, String)> {
    let call = |name: &String| {
        let (address, path, content) = (host.http.clone(), format!("/{name}"), content.to_vec());
        std::thread::spawn(move || {
            let reply = Client::new(&address, None).post(&path, content);
            (reply.status.as_u16(), reply.text())
        })
    };
    let threads: Vec<_> = names.iter().map(call).collect();
    threads.into_iter().map(|thread| thread.join().expect("a caller gets an answer")).collect()
}

#[test]
fn stateful_agents_beyond_the_slots_are_saved_and_evicted() {
    let names: Vec<String> = (0..PLACES + 8).map(|number| format!("memory-{number}")).collect();
    let mut text = FEW.to_owned();
    for name in &names {
        // Without others none would be saved for an hour, or at all.
        text += &agent(name, "fragile", "instances = { min = 1, idle = \"1h\" }\nlimits = { time = \"60s\" }");
    }
    let host = host(&text);
    for (said, answer) in [("first", ""), ("second", "first"), ("third", "second")] {
        for (name, (status, text)) in names.iter().zip(call_all(&host, &names, said.as_bytes())) {
            assert_eq!((status, text.as_str()), (200, answer), "{name} was told {said}");
        }
    }
    assert_eq!(host.api().get("/v1/host").json()["max_instances"], PLACES);
}

/// Pairs of agents that pass messages to each other, `ping-0` and `pong-0` and so on.
fn pairs(count: u32) -> String {
    let mut text = String::from("[store]\ndurability = \"memory\"\n");
    for pair in 0..count {
        for (name, peer) in [("ping", "pong"), ("pong", "ping")] {
            let peer = format!("{peer}-{pair}");
            let more = format!(
                "instances = {{ max = 1 }}\nallow = {{ send = [\"{peer}\"] }}\nconfig = {{ peer = \"{peer}\" }}\n\
                 limits = {{ hops = 1000000, time = \"60s\" }}"
            );
            text += &agent(&format!("{name}-{pair}"), "relay", &more);
        }
    }
    text
}

/// Begins a chain of this many hops in each pair.
fn begin(host: &Host, pairs: u32, hops: u32) {
    let names: Vec<String> = (0..pairs).map(|pair| format!("ping-{pair}")).collect();
    let order = [b"s".as_slice(), &1u32.to_le_bytes(), &hops.to_le_bytes()].concat();
    for (name, (status, text)) in names.iter().zip(call_all(host, &names, &order)) {
        assert_eq!(status, 204, "{name}: {text}");
    }
}

#[test]
fn a_call_is_served_before_all_mailboxes_had_a_turn() {
    const PAIRS: u32 = 500;
    let host = host(&(pairs(PAIRS) + &agent("echo", "echo", "")));
    begin(&host, PAIRS, 900_000);
    let handled = || host.api().get("/v1/stats").json()["messages"]["handled"].as_u64().unwrap();
    let client = host.client();
    for _ in 0..10 {
        let before = handled();
        assert_eq!(client.post("/echo", "hi").text(), "hi");
        let meanwhile = handled() - before;
        // Each mailbox has some tens of messages in a turn.
        assert!(meanwhile < u64::from(PAIRS) * 30, "{meanwhile} messages were handled meanwhile");
    }
}

#[test]
fn chains_among_many_more_agents_than_slots_all_finish() {
    let (count, hops): (u32, u32) = (100, 500);
    let mut host = host(&(FEW.to_owned() + &pairs(count)));
    begin(&host, count, hops);
    // The one that began it, and one for each hop.
    let all = u64::from(count) * u64::from(hops + 2);
    let stats = host.until("all chains have ended", |host| {
        let stats = host.api().get("/v1/stats").json();
        (stats["messages"]["handled"] == all).then_some(stats)
    });
    assert_eq!(stats["messages"]["failed"], 0, "{stats}");
}

#[test]
fn a_called_agent_gets_a_slot_while_many_callers_wait() {
    // Of eight places one at least is for those who answer.
    const ASKING: usize = PLACES - PLACES / 8;
    let more = format!(
        "instances = {{ max = {PLACES} }}\nallow = {{ send = [\"answers\"] }}\nlimits = {{ time = \"60s\" }}\n\
         mailbox = {{ order = \"none\" }}\n[[agents.asks.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n"
    );
    let text = format!("{FEW}{}{}", agent("asks", "rogue", &more), agent("answers", "rogue", ""));
    let mut host = host(&text);
    let mailbox = |host: &Host, what: &str, agent: &str| assert_eq!(host.caxton(&["mailbox", what, agent]).0, 0);
    ["asks", "answers"].iter().for_each(|name| mailbox(&host, "pause", name));
    let ask = json!({"do": "request", "to": "answers", "content": {"do": "reply", "text": "here"}}).to_string();
    for _ in 0..PLACES {
        assert_eq!(host.client().post("/later", ask.clone()).status.as_u16(), 202);
    }
    mailbox(&host, "resume", "asks");
    // As many as may wait do, and all others are told so and done.
    host.until_agent("answers", "it is asked", |status| status["mailbox_depth"] == ASKING);
    host.until_agent("asks", "the others are told", |status| status["handled"] == PLACES - ASKING);
    mailbox(&host, "resume", "answers");
    host.until_agent("asks", "all have their answers", |status| status["handled"] == PLACES);
    assert_eq!((&host.agent("asks")["failed"], &host.agent("answers")["handled"]), (&json!(0), &json!(ASKING)));
}

/// The time for which sleeping handlers occupy all slots.
const TAKEN_MS: u32 = 7_500;

/// A host all of whose places are taken, with the agent `late` beside them, which may take 8 s for a message.
fn host_with_all_slots_taken() -> Host {
    let limits = "limits = { time = \"8s\" }\nmailbox = { attempts = 1, order = \"none\" }";
    let enqueue = |name: &str| format!("[[agents.{name}.http]]\nroute = \"/later/{name}\"\nmode = \"enqueue\"\n");
    let mut text = FEW.to_owned();
    for (name, max) in [("sleeper", PLACES), ("late", 1)] {
        let instances = format!("instances = {{ max = {max} }}\n{limits}");
        let _ = write!(text, "{}{}", agent(name, "rogue", &instances), enqueue(name));
    }
    let mut host = host(&text);
    // All begin at once, however long it takes to send them.
    assert_eq!(host.caxton(&["mailbox", "pause", "sleeper"]).0, 0);
    let sleep = json!({"do": "sleep", "ms": TAKEN_MS}).to_string();
    for _ in 0..PLACES {
        assert_eq!(host.client().post("/later/sleeper", sleep.clone()).status.as_u16(), 202);
    }
    assert_eq!(host.caxton(&["mailbox", "resume", "sleeper"]).0, 0);
    host.until("every place is taken", |host| (host.api().get("/v1/host").json()["instances"] == PLACES).then_some(()));
    host
}

/// A handler whose time and wait for a slot together exceed the limit, to which the wait does not count.
const SLEEP: &str = r#"{"do":"sleep","ms":7000}"#;

#[test]
fn waiting_for_a_slot_does_not_count_as_handling_time() {
    let mut host = host_with_all_slots_taken();
    assert_eq!(host.client().post("/later/late", SLEEP).status.as_u16(), 202);
    host.until_agent("late", "it has slept", |status| status["handled"] == 1 || status["failed"] != 0);
    assert_eq!(host.agent("late")["failed"], 0);
}

#[test]
fn a_deadline_covers_the_wait_for_a_slot_and_the_handler() {
    let host = host_with_all_slots_taken();
    let reply = host.client().post("/late", SLEEP);
    assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (504, Some("deadline-exceeded")));
}
