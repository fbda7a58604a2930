//! The bound of chains of messages that cause one another (`limits.hops`).

use serde_json::{Value, json};

use caxton_tests::Host;

use crate::{agent, host};

/// The dead letters, as agent, reason and performative.
fn dead_letters(host: &Host) -> Vec<(String, String, String)> {
    let page = host.api().get("/v1/dead-letters").json();
    let text = |letter: &Value, key: &str| letter[key].as_str().expect("a text").to_owned();
    let letters = page["dead_letters"].as_array().expect("a list");
    let mut found: Vec<_> =
        letters.iter().map(|one| (text(one, "agent"), text(one, "reason"), text(one, "performative"))).collect();
    found.sort();
    found
}

/// Waits until there are these dead letters.
fn until_dead_letters(host: &mut Host, expected: &[(&str, &str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect();
    host.until(&format!("the dead letters {expected:?}"), |host| {
        let found = dead_letters(host);
        assert!(found.len() <= expected.len(), "{found:?}");
        (found == expected).then_some(())
    });
}

/// A rogue that may send to these, with a bound of causes.
fn rogue(name: &str, hops: u32, send: &[&str], more: &str) -> String {
    let send: Vec<String> = send.iter().map(|name| format!("\"{name}\"")).collect();
    agent(name, "rogue", &format!("allow = {{ send = [{}] }}\nlimits = {{ hops = {hops} }}\n{more}", send.join(", ")))
}

fn send(to: &str, content: &Value, with: &Value) -> Value {
    json!({ "do": "send", "to": to, "content": content, "with": with })
}

fn post(host: &Host, agent: &str, action: &Value) {
    let reply = host.client().post(&format!("/{agent}"), action.to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
}

#[test]
fn endless_replies_between_two_agents_end() {
    let toml = rogue("rogue", 4, &["echo"], "") + &agent("echo", "echo", "limits = { hops = 4 }");
    let mut host = host(&toml);
    // Each answer asks for the next, which echo sends back.
    let last = json!({ "do": "none" }).to_string();
    let second = json!({ "do": "reply", "text": last }).to_string();
    let first = json!({ "do": "reply", "text": second });
    post(&host, "rogue", &send("echo", &first, &json!({})));
    until_dead_letters(&mut host, &[("echo", "too-many-hops", "inform")]);
    // The handler whose answer it was has done its work.
    host.until_agent("rogue", "its commit stands", |status| status["handled"] == 3 && status["failed"] == 0);
    assert_eq!(host.agent("echo")["handled"], 2);
    let events = host.api().get("/v1/events?agent=rogue&limit=1000").json();
    let told: Vec<&Value> =
        events.as_array().expect("a list").iter().filter(|event| event["kind"] == "message.too-many-hops").collect();
    assert_eq!(told.len(), 1, "{events}");
    assert_eq!((&told[0]["data"]["receiver"], &told[0]["data"]["limit"]), (&json!("echo"), &json!(4)));
    let (_, log, _) = host.caxton(&["logs", "rogue"]);
    assert!(log.contains("more than 4 hops (limits.hops) and is a dead letter"), "{log}");
    // What is redelivered begins anew.
    let (code, said, _) = host.caxton(&["dead", "redeliver", "--reason", "too-many-hops"]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("echo", "it is handled", |status| status["handled"] == 3);
    host.until_agent("rogue", "it is answered", |status| status["handled"] == 4);
    assert_eq!(dead_letters(&host).len(), 0);
}

#[test]
fn chains_of_sends_and_broadcasts_end_and_the_commit_stands() {
    let all = rogue("one", 1, &["one", "cap:all"], "capabilities = [\"all\"]\n")
        + &rogue("two", 1, &[], "capabilities = [\"all\"]\n")
        + &rogue("three", 1, &[], "capabilities = [\"all\"]\n");
    let mut host = host(&all);
    let both = json!({ "do": "steps", "steps": [
        { "do": "set", "key": "stands", "value": "yes" },
        { "do": "broadcast", "to": "cap:all", "content": { "do": "none" } },
        { "do": "send", "to": "one", "content": { "do": "none" } },
    ] });
    post(&host, "one", &send("one", &both, &json!({})));
    until_dead_letters(
        &mut host,
        // The last is its answer to itself, of what came of the steps.
        &[
            ("one", "too-many-hops", "inform"),
            ("one", "too-many-hops", "request"),
            ("three", "too-many-hops", "request"),
            ("two", "too-many-hops", "request"),
        ],
    );
    host.until_agent("one", "both are handled", |status| status["handled"] == 2);
    assert_eq!(host.api().get("/v1/agents/one/state/stands").text(), "yes");
    assert_eq!((&host.agent("two")["handled"], &host.agent("three")["handled"]), (&json!(0), &json!(0)));
    let metrics = host.api().get("/metrics").text();
    assert!(metrics.contains("caxton_dead_letters_total{agent=\"two\",reason=\"too-many-hops\"} 1"), "{metrics}");
}

#[test]
fn long_timers_to_oneself_start_a_new_chain_and_others_count() {
    let none = json!({ "do": "none" });
    let after = |ms: u64| json!({ "after-ms": ms });
    let toml = rogue("slow", 1, &["slow"], "") + &rogue("fast", 1, &["fast"], "") + &rogue("other", 1, &["slow"], "");
    let mut host = host(&toml);
    let chain = |to: &str, ms: u64| send(to, &send(to, &send(to, &none, &after(ms)), &after(ms)), &after(ms));
    post(&host, "slow", &chain("slow", 1_000));
    post(&host, "fast", &chain("fast", 999));
    post(&host, "other", &send("slow", &send("slow", &none, &after(10)), &after(1_000)));
    // A rogue also answers what it was sent, here to itself; what it then cannot read says nothing of chains.
    host.until("the chains that end", |host| {
        let found: Vec<_> = dead_letters(host).into_iter().filter(|(_, reason, _)| reason == "too-many-hops").collect();
        let found: Vec<_> = found.iter().map(|(agent, _, act)| (agent.as_str(), act.as_str())).collect();
        (found == [("fast", "inform"), ("fast", "request"), ("other", "inform"), ("slow", "request")]).then_some(())
    });
    // The call, three timers of its own, and what came from the other.
    host.until_agent("slow", "all timers of a second came", |status| status["handled"] == 5);
    host.until_agent("fast", "one timer came", |status| status["handled"] == 2);
}

#[test]
fn failures_and_not_understood_count_as_hops() {
    let toml = rogue("asks", 1, &["fails", "asks"], "") + &rogue("fails", 1, &[], "");
    let mut host = host(&toml);
    let fail = json!({ "do": "fail", "cause": "rejected", "reason": "no" });
    post(&host, "asks", &send("fails", &fail, &json!({ "performative": "request" })));
    until_dead_letters(&mut host, &[("asks", "too-many-hops", "failure"), ("fails", "invalid", "request")]);
    // A timer begins a chain; that it is not legal is told at once, and does not.
    let wrong = json!({ "after-ms": 1_000, "protocol": "fipa-request", "performative": "inform" });
    post(&host, "asks", &send("asks", &send("asks", &json!({ "do": "none" }), &wrong), &json!({})));
    until_dead_letters(
        &mut host,
        &[
            ("asks", "too-many-hops", "failure"),
            ("asks", "too-many-hops", "inform"),
            ("asks", "too-many-hops", "not-understood"),
            ("fails", "invalid", "request"),
        ],
    );
}

#[test]
fn a_failure_is_delivered_however_long_its_reason_is() {
    // Less than what is said of a reply that is too large.
    let asks = "allow = { send = [\"big\"] }\nlimits = { message = 70 }\n";
    let mut host = host(&(agent("asks", "rogue", asks) + &agent("big", "rogue", "mailbox = { attempts = 1 }\n")));
    let reply = host.client().post("/asks", r#"{"do":"send","to":"big","content":{"do":"reply","bytes":999999}}"#);
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    // It comes, and is no action.
    until_dead_letters(&mut host, &[("asks", "invalid", "failure"), ("big", "attempts-exhausted", "request")]);
}

#[test]
fn replies_to_waiting_callers_are_not_refused() {
    let relay = |hops: u32| {
        let settings = "allow = { send = [\"relay\"] }\ninstances = { max = 16 }\nmailbox = { order = \"none\" }\n";
        agent("relay", "relay", &format!("{settings}limits = {{ hops = {hops} }}\n"))
    };
    let ask = |host: &Host| host.client().post("/relay", [b"r".as_slice(), &8_u32.to_le_bytes()].concat());
    let served = host(&relay(8));
    assert_eq!(ask(&served).status.as_u16(), 200);
    assert_eq!(dead_letters(&served).len(), 0);
    let mut refused = host(&relay(7));
    assert_eq!(ask(&refused).status.as_u16(), 503);
    assert_eq!(dead_letters(&refused).len(), 0, "who waits is told, and has the message still");
    let why = refused.until("the event", |host| {
        let events = host.api().get("/v1/events?limit=1000").json();
        events.as_array().expect("a list").iter().find(|event| event["kind"] == "message.too-many-hops").cloned()
    });
    assert_eq!(why["data"]["dead_letter"], false);
}
