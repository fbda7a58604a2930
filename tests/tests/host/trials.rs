//! Candidates that are tried on copies: of live messages while they wait, of the last ones before.

use std::path::Path;

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use crate::rollouts::put;
use crate::{agent, file};

/// An agent `rogue` of its own file `agent.wasm`, which does what it is told, and `other`, to whom it may send.
fn rogue(more: &str) -> String {
    let own = "[agents.rogue]\ncomponent = \"agent.wasm\"\nallow = { send = [\"other\"] }\n";
    format!("{own}{more}\n[[agents.rogue.http]]\nroute = \"/rogue\"\n{}", agent("other", "rogue", ""))
}

fn parallel(more: &str) -> String {
    rogue(&format!("reload = {{ strategy = \"parallel\", for = \"1h\", {more} }}"))
}

/// A host whose agent's file holds this guest.
fn start(guest: &str, toml: &str) -> Host {
    let setup = Setup::new(crate::BINARY, &file(toml));
    put(setup.folder(), guest);
    setup.start()
}

/// The guest with other bytes that do the same.
fn put_alike(folder: &Path, name: &str) {
    put_with(folder, &std::fs::read(caxton_tests::guest(name)).expect("the guest is there"), b"alike");
}

/// These bytes with a custom section, which changes nothing that they do.
fn put_with(folder: &Path, bytes: &[u8], note: &[u8]) {
    let mut bytes = bytes.to_vec();
    bytes.extend([0, u8::try_from(note.len() + 2).expect("a short note"), 1, b'n']);
    bytes.extend(note);
    let temporary = folder.join("new.wasm");
    std::fs::write(&temporary, bytes).expect("the folder can be written to");
    std::fs::rename(temporary, folder.join("agent.wasm")).expect("the folder can be written to");
}

fn newest(host: &Host) -> Value {
    host.api().get("/v1/rollouts/rogue").json()[0].clone()
}

fn until_shadowed(host: &mut Host) {
    host.until("copies are made", |host| {
        newest(host)["why"].as_str().is_some_and(|why| why.contains("copies to judge by")).then_some(())
    });
}

fn tell(host: &Host, action: &Value) -> Value {
    let reply =
        host.client().send(http::Method::POST, "/rogue", &[("content-type", "application/json")], action.to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    reply.json()
}

fn until_ended(host: &mut Host, status: &str) -> Value {
    host.until("the end", |host| {
        let newest = newest(host);
        if newest["ended"] == true {
            assert_eq!(newest["status"], status, "{newest}");
        }
        (newest["status"] == status).then_some(newest)
    })
}

#[test]
fn one_that_answers_alike_is_promoted_and_its_copies_leave_nothing() {
    let mut host = start("rogue", &parallel("min-messages = 10"));
    put_alike(host.folder(), "rogue");
    until_shadowed(&mut host);
    for nth in 0..10 {
        let write = json!({ "do": "set", "key": format!("k{nth}"), "value": "v" });
        let send = json!({ "do": "send", "to": "other", "content": { "do": "increment", "key": "heard" } });
        let ask = json!({ "do": "request", "to": "other", "content": { "do": "increment", "key": "asked" } });
        let count = json!({ "do": "increment", "key": "count" });
        let keys = json!({ "do": "keys", "prefix": "k" });
        let told = tell(&host, &json!({ "do": "steps", "steps": [write, send, ask, count, keys] }));
        assert_eq!(told[3]["sum"], nth + 1, "{told}");
        let keys = told[4]["keys"].as_array().map(Vec::len);
        assert_eq!(keys, Some(nth + 1), "{told}");
    }
    let ended = until_ended(&mut host, "completed");
    assert_eq!((&ended["copies"], &ended["copies_alike"]), (&json!(10), &json!(10)), "{ended}");
    host.until_agent("other", "it has heard all", |status| status["handled"] == 20);
    let state = |agent: &str, key: &str| host.api().get(&format!("/v1/agents/{agent}/state/{key}")).text();
    assert_eq!(
        (state("rogue", "count"), state("other", "heard"), state("other", "asked")),
        ("10".into(), "10".into(), "10".into())
    );
    assert_eq!(host.agent("rogue")["revision"], "rogue@2");
    assert_eq!(host.agent("rogue")["handled"], 10);
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!(found["messages"], json!([]), "{found}");
}

/// Whoever calls hears nothing of it.
fn every_call_is_answered(host: &Host, calls: usize, action: &Value) {
    (0..calls).for_each(|_| drop(tell(host, action)));
}

#[test]
fn one_that_answers_otherwise_is_taken_back_and_the_differences_are_kept() {
    // `echo` gives the message back, `rogue` what comes of it.
    let mut host = start("rogue", &parallel("min-messages = 5"));
    put(host.folder(), "echo");
    until_shadowed(&mut host);
    let action = json!({ "do": "increment", "key": "n", "by": 3 });
    assert_eq!(tell(&host, &action), json!({ "sum": 3 }));
    let ended = until_ended(&mut host, "rolled-back");
    assert!(ended["why"].as_str().is_some_and(|why| why.starts_with("match: 1 of 1 copies")), "{ended}");
    assert_eq!((&ended["copies"], &ended["copies_alike"]), (&json!(1), &json!(0)), "{ended}");
    assert_eq!(tell(&host, &action), json!({ "sum": 6 }), "by the one that ran");
    // Also after the host started again.
    let host = host.kill().start();
    assert_eq!(host.agent("rogue")["revision"], "rogue@1", "it is not tried again");
    let (code, told, said) = host.caxton(&["rollout", "differences", "rogue", "-o", "json"]);
    assert_eq!(code, 0, "{said}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let found = |path: &str| {
        let differences = told["messages"][0]["differences"].as_array().cloned().unwrap_or_default();
        let found = differences.into_iter().find(|found| found["path"] == path);
        found.map(|found| (found["stable"].clone(), found["candidate"].clone()))
    };
    assert_eq!(found("reply.sum"), Some((json!("3"), json!(null))), "{told}");
    assert_eq!(found("reply.by"), Some((json!(null), json!("3"))), "{told}");
    assert_eq!(found("state.n"), Some((json!("3"), json!(null))), "{told}");
    let (code, table, said) = host.caxton(&["rollout", "differences", "rogue"]);
    assert_eq!(code, 0, "{said}");
    let id = told["messages"][0]["message"].as_str().expect("an id");
    assert!(table.contains(id) && table.contains("CANDIDATE") && table.contains("reply.sum"), "{table}");
}

#[test]
fn what_differs_by_nature_is_learned() {
    let mut host = start("rogue", &parallel("min-messages = 3"));
    put_alike(host.folder(), "rogue");
    until_shadowed(&mut host);
    let steps =
        [json!({ "do": "random", "bytes": 16 }), json!({ "do": "clock" }), json!({ "do": "increment", "key": "n" })];
    every_call_is_answered(&host, 3, &json!({ "do": "steps", "steps": steps }));
    until_ended(&mut host, "completed");
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    let learned: Vec<&str> = found["by_nature"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(learned.iter().any(|path| path.starts_with("reply[*].")), "{found}");
    assert!(!learned.contains(&"state.n"), "{found}");
    assert_eq!(found["messages"], json!([]), "{found}");
}

#[test]
fn what_may_differ_is_not_looked_at() {
    let ignore = "min-messages = 2, ignore = [\"reply\", \"head\", \"state.n\"]";
    let mut host = start("rogue", &parallel(ignore));
    put(host.folder(), "echo");
    until_shadowed(&mut host);
    every_call_is_answered(&host, 2, &json!({ "do": "increment", "key": "n" }));
    until_ended(&mut host, "completed");
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!((&found["by_nature"], &found["messages"]), (&json!([]), &json!([])));
}

#[test]
fn one_that_traps_on_copies_is_taken_back_and_no_caller_sees_it() {
    // `fragile` is made to trap by nobody, `counter` refuses what it does not know; `bank` has no such order.
    let mut host = start("echo", &parallel("min-messages = 5"));
    put(host.folder(), "rogue");
    until_shadowed(&mut host);
    let action = json!({ "do": "trap" });
    let load = 20;
    for _ in 0..load {
        assert_eq!(tell(&host, &action), action);
    }
    let ended = until_ended(&mut host, "rolled-back");
    assert!(ended["why"].as_str().is_some_and(|why| why.starts_with("match:")), "{ended}");
    assert_eq!(tell(&host, &action), action);
    let status = host.agent("rogue");
    assert_eq!(
        (&status["handled"], &status["failed"], &status["revision"]),
        (&json!(load + 1), &json!(0), &json!("rogue@1"))
    );
    let found = host.api().get("/v1/rollouts/rogue/differences").json();
    assert_eq!(found["messages"][0]["differences"][0]["candidate"], "failed: trap", "{found}");
}

#[test]
fn a_host_killed_while_it_compares_goes_on() {
    let mut host = start("rogue", &parallel("min-messages = 4"));
    put_alike(host.folder(), "rogue");
    until_shadowed(&mut host);
    let action = json!({ "do": "increment", "key": "n" });
    every_call_is_answered(&host, 2, &action);
    host.until("they are compared", |host| (newest(host)["copies"] == 2).then_some(()));
    let mut host = host.kill().start();
    host.until_said("the host started again: it goes on with step");
    host.until("copies are made again", |host| {
        host.said().contains("rogue@2 handles copies of what rogue@1 handles").then_some(())
    });
    until_shadowed(&mut host);
    assert_eq!(newest(&host)["status"], "in-progress");
    every_call_is_answered(&host, 4, &action);
    until_ended(&mut host, "completed");
    assert_eq!(host.api().get("/v1/agents/rogue/state/n").text(), "6");
}
