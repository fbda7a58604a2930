//! The reuse of instances: components made for one request, and those that declare that they can be used again.

use http::Method;
use serde_json::json;

use crate::{agent, host};

/// An agent of a guest that is called below `/NAME/`.
fn below(name: &str, guest: &str, more: &str) -> String {
    format!(
        "[agents.{name}]\ncomponent = \"GUEST({guest})\"\n{more}\n[[agents.{name}.http]]\nroute = \"/{name}/{{*rest}}\"\n"
    )
}

/// Calls an agent repeatedly and returns how often each answering instance was used.
fn use_counts(client: &caxton_tests::Client, agent: &str, times: usize) -> Vec<String> {
    (0..times).map(|_| client.get(&format!("/{agent}/again")).text()).collect()
}

#[test]
fn each_request_has_a_fresh_instance_by_default() {
    let host = host(
        &(below("plain", "once", "")
            + &below("said", "once", "instances = { reuse = 2 }")
            + &below("marked", "reusable", "")
            + &below("other", "reusable", "instances = { reuse = 1 }")),
    );
    let client = host.client();
    assert_eq!(use_counts(&client, "plain", 5), ["1"; 5], "components of WASI 0.2 are made for one request");
    assert_eq!(use_counts(&client, "said", 5), ["1", "2", "1", "2", "1"], "as the file says");
    assert_eq!(use_counts(&client, "marked", 7), ["1", "2", "3", "1", "2", "3", "1"], "as the component says");
    assert_eq!(use_counts(&client, "other", 3), ["1"; 3], "the file comes before the component");
    assert_eq!(host.agent("plain")["reuse"], 1);
    assert_eq!(host.agent("marked")["reuse"], 3);
}

#[test]
fn the_defaults_table_sets_the_reuse() {
    let host = host(
        &("[defaults.instances]\nreuse = 2\n".to_owned()
            + &below("plain", "once", "")
            + &below("own", "once", "instances = { reuse = 3 }")
            + &agent("session", "session", "")),
    );
    let client = host.client();
    assert_eq!(use_counts(&client, "plain", 4), ["1", "2", "1", "2"]);
    assert_eq!(use_counts(&client, "own", 4), ["1", "2", "3", "1"]);
    // It is one for all, and not for this one: what is in its memory is not replaced.
    assert_eq!(host.agent("session")["state"], "running");
    assert_eq!(host.agent("session")["reuse"], json!(null));
}

#[test]
fn instances_of_message_agents_are_reused_by_default() {
    let host = host(&agent("echo", "echo", ""));
    let client = host.client();
    for _ in 0..20 {
        assert_eq!(client.post("/echo", "hello").status.as_u16(), 200);
    }
    assert_eq!(host.agent("echo")["started_instances"], 1);
    assert_eq!(host.agent("echo")["reuse"], 1_000);
}

#[test]
fn reuse_is_refused_for_stateful_agents() {
    let toml = agent("session", "session", "instances = { reuse = 5 }");
    let setup = caxton_tests::Setup::new(crate::BINARY, &crate::file(&toml));
    let (code, _, stderr) = setup.caxton(&["check"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("instances.reuse") && stderr.contains("settings"), "{stderr}");
    // Also where it is said while the agent runs.
    let mut host = host(&agent("session", "session", ""));
    host.edit(&crate::file(&toml));
    host.until_agent("session", "the setting is told of", |agent| {
        agent["waiting"].as_str().is_some_and(|why| why.contains("instances.reuse"))
    });
    assert_eq!(host.agent("session")["revision"], "session@1", "what runs goes on");
    host.edit(&crate::file(&agent("session", "session", "")));
    host.until_agent("session", "all is as declared", |agent| agent["waiting"].is_null());
}

#[test]
fn an_edit_of_the_reuse_applies_to_running_instances() {
    let with = |reuse: &str| below("once", "once", &format!("instances = {{ max = 1{reuse} }}"));
    let mut host = host(&with(", reuse = 1000"));
    let client = host.client();
    assert_eq!(use_counts(&client, "once", 3), ["1", "2", "3"]);
    host.edit(&crate::file(&with(", reuse = 1")));
    host.until_agent("once", "the edit is taken up", |agent| agent["reuse"] == 1);
    assert_eq!(use_counts(&client, "once", 4), ["1"; 4], "no call gets the instance of before");
    host.edit(&crate::file(&with(", reuse = 2")));
    host.until_agent("once", "the edit is taken up", |agent| agent["reuse"] == 2);
    assert_eq!(use_counts(&client, "once", 4), ["1", "2", "1", "2"]);
    // What the file no longer says is as the component has it.
    host.edit(&crate::file(&with("")));
    host.until_agent("once", "the edit is taken up", |agent| agent["reuse"] == 1);
    assert_eq!(use_counts(&client, "once", 3), ["1"; 3]);
    assert_eq!(host.agent("once")["revision"], "once@1", "no edit of it is a new revision");
}

#[test]
fn an_instance_that_ended_without_a_response_is_not_reused() {
    let host = host(&below("once", "once", "instances = { reuse = 1000, max = 1 }\nbreaker = { faults = 100 }"));
    let client = host.client();
    for way in ["silent", "abandon", "leak", "exit", "trap"] {
        assert_eq!(use_counts(&client, "once", 2), ["1", "2"], "before {way}");
        if let Ok(reply) = client.try_send(Method::GET, &format!("/once/{way}"), &[], "") {
            assert_eq!(reply.status.as_u16(), 500, "{way}: {}", reply.text());
        }
    }
    assert_eq!(use_counts(&client, "once", 1), ["1"]);
}

#[test]
fn a_fresh_instance_is_warm_for_the_next_request() {
    let mut host = host(&below("once", "once", "instances = { min = 2 }"));
    let client = host.client();
    host.until_agent("once", "two stand", |agent| agent["started_instances"] == 2);
    for started in 3..8 {
        assert_eq!(use_counts(&client, "once", 1), ["1"]);
        // Without another request, and not only at the next sweep.
        host.until_agent("once", "the one that was used is replaced", |agent| {
            agent["started_instances"] == started && agent["instances"] == 2
        });
    }
}
