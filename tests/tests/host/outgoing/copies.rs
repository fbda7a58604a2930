//! Copies of messages, which make no calls: they are answered as the live messages were.

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use super::server::Server;
use super::{act, caller};
use crate::BINARY;
use crate::rollouts::install;
use crate::shadowing::install_equal_component;

fn start(server: &Server, more: &str) -> Host {
    let toml = caller(&server.place(), "", more).replace("GUEST(caller)", "agent.wasm");
    let setup = Setup::new(BINARY, &toml);
    install(setup.folder(), "caller");
    setup.start()
}

fn rollout(host: &Host) -> Value {
    host.api().get("/v1/rollouts/caller").json()[0].clone()
}

fn until_copied(host: &mut Host) {
    host.until("copies are made", |host| {
        rollout(host)["why"].as_str().is_some_and(|why| why.contains("copies to judge by")).then_some(())
    });
}

const PARALLEL: &str = "reload = { strategy = \"parallel\", for = \"1h\", min-messages = 2 }";

#[test]
fn a_copy_is_answered_as_the_live_message_was() {
    let server = Server::start();
    let mut host = start(&server, PARALLEL);
    install_equal_component(host.folder(), "caller");
    until_copied(&mut host);
    for path in ["/status?code=201", "/echo"] {
        // Without a journal, as with one.
        let call = json!({ "method": "POST", "url": server.url(path), "body": "hello" });
        let answer = act(&host, &json!({ "do": "call", "call": call }));
        assert!(answer["status"].as_u64() < Some(300), "{answer}");
    }
    host.until("all traffic for the candidate", |host| (rollout(host)["weight"] == 100).then_some(()));
    assert_eq!(server.requests().len(), 2, "of the live messages");
    let ended = rollout(&host);
    assert_eq!((&ended["copies"], &ended["copies_alike"]), (&json!(2), &json!(2)), "{ended}");
}

#[test]
fn a_copy_that_asks_for_something_else_is_refused_and_the_difference_says_so() {
    let server = Server::start();
    let mut host = start(&server, PARALLEL);
    install_equal_component(host.folder(), "caller");
    until_copied(&mut host);
    let call = json!({ "url": server.url("/status?key=secret") });
    assert_eq!(act(&host, &json!({ "do": "random", "call": call })), 200);
    host.until("the end of the rollout", |host| (rollout(host)["status"] == "rolled-back").then_some(()));
    assert_eq!(server.requests().len(), 1, "of the live message");
    let found = host.api().get("/v1/rollouts/caller/differences").json();
    let differences = found["messages"][0]["differences"].as_array().cloned().unwrap_or_default();
    let line = format!("GET http://{}/status", server.address);
    let of_call = differences.iter().find(|found| found["path"] == "calls[0]");
    let of_call = of_call.unwrap_or_else(|| panic!("the call is among {found}"));
    assert_eq!(of_call["stable"], line);
    let refused = format!("{line}, refused: a copy of a message makes no call over HTTP (HTTP-request-denied)");
    assert_eq!(of_call["candidate"], refused);
    assert!(!found.to_string().contains("secret"), "{found}");
}

#[test]
fn a_rehearsed_message_is_answered_from_what_is_kept_with_it() {
    let server = Server::start();
    let mut host = start(&server, "rollback = { rehearse = 5 }");
    for path in ["/status", "/status?code=204", "/echo"] {
        let answer = act(&host, &json!({ "do": "call", "call": { "url": server.url(path) } }));
        assert!(answer["status"].as_u64() < Some(300), "{answer}");
    }
    install_equal_component(host.folder(), "caller");
    host.until_agent("caller", "the new revision runs", |status| status["revision"] == "caller@2");
    let (code, told, words) = host.caxton(&["rehearse", "caller", "--component", "agent.wasm", "-o", "json"]);
    assert_eq!(code, 0, "{told}{words}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["handled"], &told["alike"]), (&json!(3), &json!(3)), "{told}");
    assert_eq!(server.requests().len(), 3, "of the live messages");
}
