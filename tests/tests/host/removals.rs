//! Agents that are taken out of the file: until they are gone the removal can be taken back.

use caxton_tests::{Client, Host, Setup};
use serde_json::{Value, json};

use crate::{BINARY, agent, file, host};

/// An agent that takes messages at `/NAME` and answers calls at `/NAME/ask`.
fn both(name: &str, guest: &str, more: &str) -> String {
    let routes = format!(
        "[[agents.{name}.http]]\nroute = \"/{name}\"\nmode = \"enqueue\"\n[[agents.{name}.http]]\nroute = \"/{name}/ask\"\n"
    );
    format!("[agents.{name}]\ncomponent = \"GUEST({guest})\"\n{more}\n{routes}")
}

fn dead_letters(host: &Host, agent: &str) -> usize {
    let page = host.api().get(&format!("/v1/dead-letters?agent={agent}")).json();
    page["dead_letters"].as_array().map_or(0, Vec::len)
}

fn until_leaving(host: &mut Host, name: &str) {
    host.until_agent(name, "it leaves", |status| status["state"] == "leaving");
}

fn until_status(host: &mut Host, path: &str, status: u16) {
    let client = host.client();
    host.until("the calls are answered otherwise", |_| (client.post(path, "").status.as_u16() == status).then_some(()));
}

#[test]
fn an_agent_restored_while_it_drains_keeps_all_waiting_messages() {
    let settings = "mailbox = { attempts = 3, backoff = { first = \"5m\", max = \"5m\" } }\nallow = { send = [\"rogue\"] }\n\
                    limits = { time = \"60s\" }\n";
    let other = agent("echo", "echo", "");
    let with = file(&(both("rogue", "rogue", settings) + &other));
    let mut host = Setup::new(BINARY, &with).start();
    let client = host.client();
    // One that failed and is tried again later, one that is for an hour from now, one in hand.
    assert_eq!(client.post("/rogue", r#"{"do": "fail"}"#).status.as_u16(), 202);
    let later = json!({"do": "send", "to": "rogue", "content": {"do": "none"}, "with": {"after-ms": 3_600_000}});
    let reply = client.post("/rogue/ask", later.to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    host.until_agent("rogue", "both wait for a time", |status| status["later"] == 1 && status["timers"] == 1);
    let address = host.http.clone();
    let slow =
        std::thread::spawn(move || Client::new(&address, None).post("/rogue/ask", r#"{"do": "sleep", "ms": 8000}"#));
    host.until_agent("rogue", "a call is in hand", |status| status["in_flight"] == 1);
    host.edit(&file(&other));
    until_leaving(&mut host, "rogue");
    assert_eq!(client.post("/rogue/ask", r#"{"do": "message"}"#).status.as_u16(), 404);
    assert_eq!(dead_letters(&host, "rogue"), 0, "nothing is given up before the end of the drain");
    host.edit(&with);
    host.until_output("declared again before it was gone: it goes on with what waits");
    let reply = client.post("/rogue/ask", r#"{"do": "reply", "text": "here"}"#);
    assert_eq!((reply.status.as_u16(), reply.text().as_str()), (200, "here"));
    assert_eq!(reply.header("caxton-revision"), "rogue@1", "it is the same revision");
    let status = host.agent("rogue");
    assert_eq!(
        (&status["state"], &status["later"], &status["timers"]),
        (&json!("running"), &json!(1), &json!(1)),
        "{status}"
    );
    assert_eq!(dead_letters(&host, "rogue"), 0);
    let reply = slow.join().expect("the call is answered");
    assert_eq!(reply.status.as_u16(), 200, "what was in hand is not broken off: {}", reply.text());
}

#[test]
fn a_paused_mailbox_waits_for_the_end_of_the_drain_too() {
    let other = agent("echo", "echo", "");
    let with = file(&(both("counter", "counter", "") + &other));
    let mut host = Setup::new(BINARY, &with).start();
    let client = host.client();
    assert_eq!(host.caxton(&["mailbox", "pause", "counter"]).0, 0);
    for _ in 0..3 {
        assert_eq!(client.post("/counter", r#"{"by": 2}"#).status.as_u16(), 202);
    }
    host.edit(&file(&other));
    until_leaving(&mut host, "counter");
    assert_eq!(dead_letters(&host, "counter"), 0);
    host.edit(&with);
    host.until_agent("counter", "it serves again", |status| status["state"] == "running");
    assert_eq!(host.caxton(&["mailbox", "resume", "counter"]).0, 0);
    host.until_agent("counter", "what waited is handled", |status| status["handled"] == 3);
    assert_eq!(
        (client.post("/counter/ask", r#"{"by": 1}"#).json()["count"].clone(), dead_letters(&host, "counter")),
        (json!(7), 0)
    );
}

#[test]
fn a_restored_stateful_agent_keeps_its_memory() {
    let session = both("session", "session", "");
    let other = agent("echo", "echo", "");
    let with = file(&(session + &other));
    let mut host = Setup::new(BINARY, &with).start();
    let client = host.client();
    assert_eq!(client.post("/session/ask", "one").json()["total"], 1);
    // While something waits, and when it leaves at once.
    for paused in [true, false] {
        if paused {
            assert_eq!(host.caxton(&["mailbox", "pause", "session"]).0, 0);
            assert_eq!(client.post("/session", "two").status.as_u16(), 202);
        }
        host.edit(&file(&other));
        host.until("it leaves", |host| {
            let known = host.api().get("/v1/agents/session");
            (known.status.as_u16() == 404 || known.json()["state"] == "leaving").then_some(())
        });
        host.edit(&with);
        host.until_agent("session", "it serves again", |status| status["state"] == "running");
        if paused {
            assert_eq!(host.caxton(&["mailbox", "resume", "session"]).0, 0);
            host.until_agent("session", "what waited is handled", |status| status["mailbox_depth"] == 0);
        }
    }
    assert_eq!(client.post("/session/ask", "three").json()["total"], 3);
    assert_eq!(dead_letters(&host, "session"), 0);
}

#[test]
fn messages_left_after_a_drain_go_to_a_restored_agent() {
    let other = agent("echo", "echo", "");
    let settings = "reload = { drain = \"5s\" }\n";
    let with = file(&(both("counter", "counter", settings) + &other));
    let mut host = Setup::new(BINARY, &with).start();
    let client = host.client();
    assert_eq!(host.caxton(&["mailbox", "pause", "counter"]).0, 0);
    assert_eq!(client.post("/counter", r#"{"by": 5}"#).status.as_u16(), 202);
    host.edit(&file(&other));
    host.until("it is gone", |host| (host.api().get("/v1/agents/counter").status.as_u16() == 404).then_some(()));
    host.until("what waited is a dead letter", |host| (dead_letters(host, "counter") == 1).then_some(()));
    let page = host.api().get("/v1/dead-letters?agent=counter").json();
    assert_eq!(page["dead_letters"][0]["reason"], "agent-removed");
    host.edit(&with);
    host.until_output(
        "1 messages waited for it when it was removed and are dead letters; \
         `caxton dead redeliver --agent counter --reason agent-removed` lets them be handled",
    );
    host.until_agent("counter", "it serves", |status| status["state"] == "running");
    let redeliver = ["dead", "redeliver", "--agent", "counter", "--reason", "agent-removed"];
    assert_eq!(host.caxton(&redeliver).0, 0);
    assert_eq!(host.caxton(&["mailbox", "resume", "counter"]).0, 0);
    host.until_agent("counter", "it is handled", |status| status["handled"] == 1);
    assert_eq!(client.post("/counter/ask", r#"{"by": 1}"#).json()["count"], 6);
}

#[test]
fn a_host_that_starts_without_an_agent_keeps_its_messages() {
    let other = agent("echo", "echo", "");
    let with = file(&(both("counter", "counter", "") + &other));
    let host = Setup::new(BINARY, &with).start();
    assert_eq!(host.caxton(&["mailbox", "pause", "counter"]).0, 0);
    assert_eq!(host.client().post("/counter", r#"{"by": 5}"#).status.as_u16(), 202);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    setup.edit(&file(&other));
    let mut host = setup.start();
    host.until_output("1 messages wait for `counter`, which is not declared");
    assert_eq!(dead_letters(&host, "counter"), 0);
    host.edit(&with);
    host.until("it is declared", |host| (host.api().get("/v1/agents/counter").status.as_u16() == 200).then_some(()));
    host.until_agent("counter", "it serves", |status| status["state"] == "running");
    assert_eq!(host.caxton(&["mailbox", "resume", "counter"]).0, 0);
    host.until_agent("counter", "it is handled", |status| status["handled"] == 1);
}

#[test]
fn an_agent_restored_with_a_change_is_rolled_out() {
    let settings = |n: u32| format!("config = {{ n = \"{n}\" }}\ndeploy = {{ strategy = \"immediate\" }}\n");
    let other = agent("other", "echo", "");
    let mut host = host(&(both("counter", "counter", &settings(1)) + &other));
    assert_eq!(host.caxton(&["mailbox", "pause", "counter"]).0, 0);
    assert_eq!(host.client().post("/counter", "").status.as_u16(), 202);
    host.edit(&file(&other));
    until_leaving(&mut host, "counter");
    until_status(&mut host, "/counter/ask", 404);
    host.edit(&file(&(both("counter", "counter", &settings(2)) + &other)));
    host.until_agent("counter", "the other revision runs", |status: &Value| status["revision"] == "counter@2");
    assert_eq!(host.caxton(&["mailbox", "resume", "counter"]).0, 0);
    host.until_agent("counter", "what waited is handled", |status| status["handled"] == 1);
    assert_eq!(dead_letters(&host, "counter"), 0);
}
