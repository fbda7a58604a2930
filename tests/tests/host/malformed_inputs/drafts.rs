//! Drafts that are malformed: the headers and contents of calls, and what a guest sends.

use std::sync::atomic::{AtomicU64, Ordering};

use caxton_tests::Host;
use http::Method;
use serde_json::{Value, json};

use super::Siege;
use crate::agent;
use crate::mutation::{Case, Chance, INPUTS, mutate, mutate_value, odd_text};

const HEADERS: [&str; 16] = [
    "content-type",
    "caxton-performative",
    "caxton-conversation",
    "caxton-protocol",
    "caxton-ontology",
    "caxton-deadline",
    "caxton-caller",
    "caxton-status",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "accept",
    "content-encoding",
    "content-language",
    "x-forwarded-for",
    "authorization",
];

const VALUES: [&str; 12] = [
    "request",
    "inform",
    "query-ref",
    "fipa-request",
    "fipa-contract-net",
    "application/json",
    "text/plain; charset=utf-8",
    "5s",
    "0ms",
    "99999999999h",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "c-1",
];

/// A text that a header can have: the rest is the business of heads.
fn header_text(chance: &mut Chance) -> String {
    let text = if chance.one_in(2) { (*chance.pick(&VALUES)).to_owned() } else { odd_text(chance) };
    text.chars().filter(|c| ('\u{20}'..'\u{7f}').contains(c)).take(4_000).collect::<String>().trim().to_owned()
}

/// A draft that a guest is told to send, with all of its fields.
fn draft() -> Value {
    let with = json!({
        "performative": "request", "content-type": "text/plain", "ontology": "o", "protocol": "fipa-request",
        "conversation": "c-1", "reply-with": "r-1", "in-reply-to": "i-1", "reply-by": 4_000_000_000_000_u64,
        "priority": "high", "after-ms": 600_000, "headers": [["timer", "t"], ["x", "y"]],
    });
    json!({ "do": "send", "to": "rogue", "content": { "do": "none" }, "with": with })
}

/// A call of an agent, with headers and a content of any kind. Returns the path, the headers and the body.
fn call(chance: &mut Chance, number: u64) -> (&'static str, Vec<(&'static str, String)>, Vec<u8>) {
    let headers: Vec<_> = (0..chance.below(5)).map(|_| (*chance.pick(&HEADERS), header_text(chance))).collect();
    if number.is_multiple_of(2) {
        let count = chance.below(200);
        let body = chance.bytes(count);
        return (*chance.pick(&["/echo", "/later", "/rogue"]), headers, body);
    }
    let changed = mutate_value(chance, &draft());
    let body = changed.to_string().into_bytes();
    let body = if chance.one_in(4) { mutate(chance, &body, &[b"\"", b"{", b"[", b"\\u0000", b"1e999"]) } else { body };
    // Without headers: it is the guest that is to read it.
    ("/rogue", Vec::new(), body)
}

#[test]
fn malformed_drafts_are_answered() {
    let more = "allow = { send = [\"rogue\", \"echo\"] }\nbreaker = { faults = 100 }\n\
                mailbox = { attempts = 1 }\nlimits = { time = \"20s\", timers = 100 }\n";
    let later = "[[agents.echo.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let siege = Siege::start(&(later.to_owned() + &agent("rogue", "rogue", more)));
    let answered = AtomicU64::new(0);
    siege.make(INPUTS, |host: &Host, numbers| {
        let client = host.client();
        for number in numbers {
            let (_case, mut chance) = Case::begin("draft", number);
            let (path, headers, body) = call(&mut chance, number);
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            // A refusal before the body was read ends the connection, which the client may learn while it writes.
            let Ok(reply) = client.try_send(Method::POST, path, &headers, body) else { continue };
            answered.fetch_add(1, Ordering::Relaxed);
            let status = reply.status.as_u16();
            // What an agent fails at is its own; nothing may be the host's.
            if reply.header("content-type") == "application/problem+json" {
                let problem = reply.json();
                assert_ne!(problem["code"], "host-error", "{headers:?}: {problem}");
            } else {
                assert!(status < 500, "{status} {headers:?}: {}", reply.text());
            }
        }
    });
    let answered = answered.into_inner();
    assert!(answered > INPUTS * 9 / 10, "{answered} of {INPUTS} were answered");
    siege.check();
}
