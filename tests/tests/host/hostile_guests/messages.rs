//! Attacks by messages.

use serde_json::{Value, json};

use super::{ATTACKER, Street};
use crate::{agent, metric};

/// An attacker of a guest, with limits that end an attack soon.
fn attacker(name: &str, guest: &str, limits: &str) -> String {
    let more = format!("{ATTACKER}limits = {{ {limits} }}\nallow = {{ send = [\"{name}\", \"neighbour\"] }}\n");
    agent(name, guest, &more)
}

/// Asserts that an answer has no character that controls a terminal or turns a text around.
fn check_plain(told: &str) {
    let bad = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!told.contains(bad), "{told:?}");
}

#[test]
fn attacks_by_messages_end_as_the_attackers_own() {
    let limits = "cpu = \"300ms\", time = \"60s\", memory = \"32MiB\", sends = 10, writes = 10, log-lines = 100";
    let brief = attacker("brief", "rogue", "time = \"1s\"");
    let mut street = Street::start(&(attacker("rogue", "rogue", limits) + &brief));
    let odd = "a\u{1b}[2J\u{7}\u{202e}\r\nset-cookie: evil=1\r\n\r\n";
    let fail = |cause: &str| json!({ "do": "fail", "cause": cause, "reason": "repeat:4000000:r" });
    let reply = |with: Value| json!({ "do": "reply", "text": "x", "with": with });
    for (action, status, told) in [
        (json!({ "do": "loop" }), 500, "cpu-exceeded"),
        (json!({ "do": "overflow" }), 500, "trap"),
        (json!({ "do": "trap" }), 500, "trap"),
        (json!({ "do": "exit", "code": 0 }), 500, "trap"),
        (json!({ "do": "exit", "code": 3 }), 500, "trap"),
        (json!({ "do": "grow", "mib": 4_000 }), 200, "grown"),
        (json!({ "do": "random-at-once", "bytes": 1 << 24 }), 500, "random-exceeded"),
        (fail("fault"), 500, "agent-fault"),
        (fail("rejected"), 422, "rejected"),
        (json!({ "do": "fail", "cause": "rejected", "reason": odd }), 422, "rejected"),
        (json!({ "do": "log", "level": "info", "text": odd }), 200, "{}"),
        (json!({ "do": "flood", "to": "log", "bytes": 400_000 }), 200, "lines"),
        (json!({ "do": "flood", "to": "stderr", "bytes": 400_000 }), 200, "lines"),
        (json!({ "do": "reply", "bytes": 8 << 20 }), 500, "bad-reply"),
        (reply(json!({ "content-type": odd })), 500, "bad-reply"),
        (reply(json!({ "ontology": odd })), 500, "bad-reply"),
        (reply(json!({ "headers": [["x-a", odd]] })), 500, "bad-reply"),
        (reply(json!({ "headers": [["x-a\r\nx-b", "1"]] })), 500, "bad-reply"),
        (json!({ "do": "send", "to": "rogue", "count": 5_000, "content": { "do": "none" } }), 200, "too-many-sends"),
        (json!({ "do": "send", "to": "rogue", "bytes": 8 << 20 }), 200, "too-large"),
        (json!({ "do": "send", "to": odd, "bytes": 1 }), 200, "error"),
        (json!({ "do": "set", "key": "k", "bytes": 1, "count": 5_000 }), 200, "too-many-writes"),
        (json!({ "do": "set", "key": odd, "value": odd }), 200, "written"),
        (json!({ "do": "set", "key": "big", "bytes": 20 << 20 }), 200, "too-large"),
    ] {
        let (found, answer) = street.post("/rogue", &action.to_string());
        assert_eq!(found, status, "{action}: {answer}");
        assert!(answer.contains(told), "{action}: {answer}");
    }
    let (status, code) = street.post("/brief", r#"{"do":"sleep","ms":600000}"#);
    assert_eq!((status, code.as_str()), (504, "deadline-exceeded"));
    for arguments in [&["logs", "rogue", "--tail", "1000"][..], &["state", "ls", "rogue"], &["events"], &["ps"]] {
        let (code, told, error) = street.host.caxton(arguments);
        assert_eq!(code, 0, "{arguments:?}: {error}");
        check_plain(&told);
        assert!(!told.contains(&"r".repeat(2_000)), "{arguments:?}: a reason of 4 MB is cut");
    }
    let dropped = metric(&street.host, "caxton_log_lines_dropped_total{agent=\"rogue\"}");
    assert!(dropped > 5_000, "{dropped} lines dropped of 10,000");
    street.until_at_rest();
}

#[test]
fn hoards_and_floods_end_as_the_attackers_own() {
    let limits = "cpu = \"500ms\", time = \"60s\", memory = \"64MiB\", state = \"1MiB\", log-lines = 100";
    let mut street = Street::start(&attacker("zoo", "zoo", limits));
    for (attack, status, told) in [
        ("pollables 1000000", 500, "handles-exceeded"),
        ("streams 1000000", 500, "handles-exceeded"),
        ("read 1000000000", 500, "cpu-exceeded"),
        ("read-others 100000 16", 200, "20000"),
        ("read-others 10 5000", 200, "InvalidKey"),
        ("rewrite 1000000 200000", 200, "TooLarge"),
        ("rewrite 1000000 10", 200, "TooManyWrites"),
        ("rewrite 1 1048576", 200, "Quota"),
        ("list 1000000000 100000", 500, "cpu-exceeded"),
        ("find 1000000000 100000", 500, "cpu-exceeded"),
        ("log 1000000000 8000", 500, "cpu-exceeded"),
        ("drafts 1000000000 100000", 500, "cpu-exceeded"),
        ("drafts 200 100000", 200, "refused: SendError::TooLarge"),
        ("cancel 1000000000", 200, "TooManySends"),
    ] {
        let (found, answer) = street.post("/zoo", attack);
        assert_eq!(found, status, "{attack}: {answer}");
        assert!(answer.contains(told), "{attack}: {answer}");
    }
    street.until_at_rest();
    assert!(street.host.api().get("/v1/agents/zoo/state").json()["bytes"].as_u64() <= Some(1 << 20));
}

#[test]
fn messages_that_multiply_end_and_are_accounted_for() {
    let limits = "time = \"60s\", hops = 7, sends = 3";
    let mut street = Street::start(&attacker("zoo", "zoo", limits));
    let (status, answer) = street.post("/zoo", "fork 2");
    assert_eq!((status, answer.as_str()), (200, "2 sent"));
    street.until_at_rest();
    let zoo = street.host.agent("zoo");
    let count = |key: &str| zoo[key].as_u64().expect("a number");
    // Twice as many with each hop. Those beyond the bound of hops are dead letters, and so are the answers to all that the
    // zoo sent to itself, which name no attack.
    let messages: u64 = (0..=7).map(|hop| 1 << hop).sum();
    assert_eq!(count("handled"), messages, "{zoo}");
    assert_eq!(count("dead_letters"), (1 << 8) + (messages - 1), "{zoo}");
    assert_eq!(count("accepted"), count("handled") + count("dead_letters"), "{zoo}");
}

#[test]
fn nobody_speaks_for_another() {
    let limits = "time = \"30s\"";
    let of = |name: &str, guest: &str| {
        let own = format!("[\"{name}\", \"neighbour\"]");
        attacker(name, guest, limits).replace(&own, "[\"neighbour\", \"victim\", \"zoo\", \"other\"]")
    };
    let agents = of("zoo", "zoo") + &of("other", "zoo") + &of("victim", "rogue");
    let mut street = Street::start(&agents);
    // No receiver but an agent.
    assert_eq!(street.post("/zoo", "forge"), (200, "accepted: []".to_owned()));
    // No sender but oneself, whatever the headers say.
    let (_, posed) = street.post("/zoo", "pose victim");
    let posed: Value = serde_json::from_str(&posed).expect("the message as the victim got it");
    assert_eq!(posed["sender"], "zoo", "{posed}");
    assert_eq!(posed["headers"], json!([["sender", "host:admin"]]), "`caxton-caller` is the host's own");
    // No answer but that of the agent that was asked: the forged one is there first, with the right id.
    let ask = json!({ "do": "request", "to": "zoo", "content": "betray victim other", "timeout-ms": 20_000 });
    let betrayed = street.during(|host| host.client().post("/victim", ask.to_string()).json());
    assert_eq!((&betrayed["from"], &betrayed["reply"]), (&json!("zoo"), &json!("the true answer")), "{betrayed}");
    // No timer but one's own.
    let timer = json!({ "do": "send", "to": "", "bytes": 1, "with": { "after-ms": 600_000 } });
    let sent: Value = street.host.client().post("/victim", timer.to_string()).json();
    let id = sent["sent"][0].as_str().expect("an id").to_owned();
    let cancel = |to: &str| street.post(to, &json!({ "do": "cancel", "timer": id }).to_string());
    let (_, others) = street.post("/zoo", &format!("cancel-one {id}"));
    assert_eq!(others, "false");
    assert!(cancel("/victim").1.contains("true"));
    street.until_at_rest();
}

#[test]
fn questions_that_nobody_answers_end_with_their_time() {
    let limits = "time = \"10s\", sends = 2_000";
    let silent = agent("silent", "rogue", &format!("{ATTACKER}limits = {{ time = \"10s\" }}\n"));
    let zoo = attacker("zoo", "zoo", limits).replace("\"neighbour\"]", "\"silent\"]");
    let mut street = Street::start(&(zoo + &silent));
    assert_eq!(street.host.caxton(&["mailbox", "pause", "silent"]).0, 0);
    let (status, answer) = street.post("/zoo", "questions 500 silent");
    assert_eq!(status, 200, "{answer}");
    assert!(answer.starts_with("0 answered, 500 not"), "{answer}");
    assert_eq!(street.host.caxton(&["mailbox", "resume", "silent"]).0, 0);
    street.until_at_rest();
}
