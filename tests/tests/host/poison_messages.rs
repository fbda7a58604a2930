//! The handling of poison messages, which no agent can handle: they end by their own attempts, and delay no other message.

use caxton_tests::Host;
use serde_json::{Value, json};

use crate::{agent, file, host};

const POISON: &str = r#"{"do":"trap"}"#;
const FAILING: &str = r#"{"do":"fail","cause":"fault","reason":"on purpose"}"#;
const GOOD: &str = r#"{"do":"none"}"#;

/// The agent `seed`, which may send as much as these tests need to the capability `pool`.
fn seed() -> String {
    agent("seed", "rogue", "allow = { send = [\"cap:pool\"] }\nlimits = { sends = 5_000 }")
}

/// An agent with that capability that tries a message three times, in quick succession.
fn worker(name: &str, more: &str) -> String {
    let mailbox = "mailbox = { attempts = 3, backoff = { first = \"100ms\", factor = 1.5 } }";
    agent(name, "rogue", &format!("capabilities = [\"pool\"]\n{mailbox}\n{more}"))
}

/// Sends these messages in one commit, each in a conversation of its own.
fn send_to_pool(host: &Host, contents: &[&str]) {
    let send = |(nth, content): (usize, &&str)| {
        let content: Value = serde_json::from_str(content).expect("JSON");
        // Of an inform that is given up nobody is told.
        let with = json!({ "conversation": format!("c{nth}"), "performative": "inform" });
        json!({ "do": "send", "to": "cap:pool", "content": content, "with": with })
    };
    let steps: Vec<Value> = contents.iter().enumerate().map(send).collect();
    let reply = host.client().post("/seed", json!({ "do": "steps", "steps": steps }).to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    assert!(!reply.text().contains("\"error\":"), "{}", reply.text());
}

fn dead_letters(host: &Host) -> Vec<Value> {
    let page = host.api().get("/v1/dead-letters?limit=1000").json();
    page["dead_letters"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
}

/// Returns the events of breakers, the oldest first: kind and data of each.
fn breaker_events(host: &Host) -> Vec<(String, Value)> {
    let events = host.api().get("/v1/events?limit=1000").json();
    let events = events.as_array().expect("a list of events").iter();
    let told = events.map(|event| (event["kind"].as_str().unwrap_or_default().to_owned(), event["data"].clone()));
    told.filter(|(kind, _)| kind.starts_with("breaker.")).collect()
}

/// Waits until this many messages to the pool were given up.
fn until_dead_letters(host: &mut Host, count: usize) -> Vec<Value> {
    host.until(&format!("{count} dead letters"), |host| Some(dead_letters(host)).filter(|dead| dead.len() >= count))
}

/// Checks that each message was given up after all its attempts.
fn check_all_attempts_used(dead: &[Value]) {
    let other = dead.iter().find(|dead| dead["reason"] != "attempts-exhausted" || dead["tried"] != 3);
    assert_eq!(other, None, "one of {}", dead.len());
}

#[test]
fn a_poison_message_in_a_pool_uses_its_attempts_and_the_others_continue() {
    let names = ["one", "two", "three"];
    let mut host = host(&(seed() + &names.map(|name| worker(name, "")).concat()));
    // Each of the three gets about fifteen of them, more than open a breaker, and tries those again together, with
    // little between.
    let contents: Vec<&str> = (0..450).map(|nth| if nth % 10 == 7 { POISON } else { GOOD }).collect();
    send_to_pool(&host, &contents);
    let dead = until_dead_letters(&mut host, 45);
    check_all_attempts_used(&dead);
    let sum = |statuses: &[Value], key: &str| statuses.iter().filter_map(|status| status[key].as_u64()).sum::<u64>();
    let statuses = host.until("the others are handled", |host| {
        Some(names.map(|name| host.agent(name))).filter(|statuses| sum(statuses, "handled") == 405)
    });
    assert_eq!((sum(&statuses, "failed"), sum(&statuses, "mailbox_depth"), dead.len()), (45, 0, 45), "{statuses:?}");
    assert!(statuses.iter().any(|status| status["dead_letters"].as_u64() > Some(10)), "{statuses:?}");
    assert_eq!(breaker_events(&host), [], "no breaker opened");
}

#[test]
fn an_open_breaker_keeps_the_attempts_of_waiting_messages() {
    let mut host = host(&(seed() + &worker("one", "breaker = { reset = \"5s\" }")));
    send_to_pool(&host, &[FAILING; 60]);
    let trial = host.until("a trial fails", |host| {
        breaker_events(host).into_iter().find(|(kind, data)| kind == "breaker.opened" && data["trial"] == true)
    });
    let status = host.agent("one");
    // What was at work when it opened, beside the ten that opened it.
    let workers = status["max_instances"].as_u64().expect("a number");
    let trials = breaker_events(&host).len() as u64 - 1;
    assert!(status["retries"].as_u64() <= Some(10 + workers + trials), "{status}");
    assert_eq!((&status["failed"], &status["dead_letters"]), (&json!(0), &json!(0)), "{status}");
    let first = breaker_events(&host).remove(0).1;
    assert_eq!((&first["trial"], &first["attempt"], &trial.1["attempt"]), (&json!(false), &json!(1), &json!(1)));
    assert_ne!(first["message"], trial.1["message"], "a trial takes a message that has not failed yet");
    // A trial may have failed since the one that was found.
    let opening = host.until("the trial is over", |host| {
        let opening = host.agent("one")["opening"].clone();
        (opening["trial"] == true).then_some(opening)
    });
    assert!(opening["reason"].as_str().is_some_and(|reason| reason.contains("on purpose")), "{opening}");
    let (_, text, _) = host.caxton(&["ps", "one"]);
    assert!(text.contains("the trial failed at message ") && text.contains(", attempt 1: fault: on purpose"), "{text}");
    let (_, text, _) = host.caxton(&["events", "one"]);
    assert!(text.contains(trial.1["message"].as_str().expect("an id")), "{text}");
}

#[test]
fn a_half_open_breaker_tries_a_message_that_has_not_failed() {
    // One at a time, so that the first ten come before all others.
    let mut host = host(&(seed() + &worker("one", "instances = { max = 1 }\nbreaker = { reset = \"5s\" }")));
    send_to_pool(&host, &[[FAILING; 10].as_slice(), &[GOOD; 30]].concat());
    let dead = until_dead_letters(&mut host, 10);
    check_all_attempts_used(&dead);
    host.until_agent("one", "the others are handled", |status| {
        (&status["handled"], &status["failed"], &status["breaker"]) == (&json!(30), &json!(10), &json!("closed"))
    });
    let expected = ["breaker.opened", "breaker.closed"];
    host.until("all is told", |host| {
        (breaker_events(host).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>() == expected).then_some(())
    });
}

#[test]
fn one_trial_call_decides_the_breaker_of_an_http_agent() {
    let more = "breaker = { faults = 2, reset = \"5s\" }";
    let web = agent("web", "rogue-web", more)
        .replace("[[agents.web.http]]\nroute = \"/web\"\n", "[[agents.web.http]]\nroute = \"/{*path}\"\n");
    let mut host = Host::start(crate::BINARY, &file(&web));
    let client = host.client();
    let status = |path: &str| client.get(path).status.as_u16();
    assert_eq!([status("/trap"), status("/trap"), status("/ok")], [500, 500, 503]);
    host.until("the trial", |_| (status("/trap") == 500).then_some(()));
    assert_eq!(status("/ok"), 503, "it failed");
    host.until("another", |_| (status("/ok") == 200).then_some(()));
    assert_eq!(host.agent("web")["breaker"], "closed");
    let expected = [("breaker.opened", json!(false)), ("breaker.opened", json!(true)), ("breaker.closed", Value::Null)];
    let expected = expected.map(|(kind, trial)| (kind.to_owned(), trial));
    host.until("all is told", |host| {
        let told = breaker_events(host).into_iter().map(|(kind, data)| (kind, data["trial"].clone()));
        (told.collect::<Vec<_>>() == expected).then_some(())
    });
}
