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
