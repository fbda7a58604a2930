//! Copies of messages, which make no calls.

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

#[test]
fn a_copy_of_a_live_message_is_refused_its_calls_and_the_difference_says_so() {
    let server = Server::start();
    let mut host = start(&server, "reload = { strategy = \"parallel\", for = \"1h\", min-messages = 1 }");
    install_equal_component(host.folder(), "caller");
    host.until("copies are made", |host| {
        rollout(host)["why"].as_str().is_some_and(|why| why.contains("copies to judge by")).then_some(())
    });
    let call = json!({ "url": server.url("/status?key=secret") });
    assert_eq!(act(&host, &json!({ "do": "count", "call": call })), 200);
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
fn a_rehearsed_message_makes_no_calls() {
    let server = Server::start();
    let mut host = start(&server, "rollback = { rehearse = 5 }");
    for _ in 0..3 {
        assert_eq!(act(&host, &json!({ "do": "count", "call": { "url": server.url("/status") } })), 200);
    }
    install_equal_component(host.folder(), "caller");
    host.until_agent("caller", "the new revision runs", |status| status["revision"] == "caller@2");
    let (code, told, words) = host.caxton(&["rehearse", "caller", "--component", "agent.wasm"]);
    assert_eq!(code, 0, "{told}{words}");
    assert_eq!(server.requests().len(), 3, "of the live messages");
}
