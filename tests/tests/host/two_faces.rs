//! Agents that handle messages and answer HTTP.

use caxton_tests::{Client, Host};
use serde_json::json;

use crate::{agent, host};

fn two() -> Host {
    let later = "[[agents.two.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let two = agent("two", "two-faces", "allow = { send = [\"two\"] }\nmailbox = { attempts = 1 }");
    host(&(two.replace("route = \"/two\"\n", "route = \"/{*path}\"\n") + later))
}

#[test]
fn both_faces_have_one_state() {
    let mut host = two();
    let client = host.client();
    assert_eq!((&host.agent("two")["kind"], &host.agent("two")["reuse"]), (&json!("both"), &json!(1)));
    assert_eq!(client.get("/counts").text(), "1 calls, 0 messages");
    // Messages come by the API, by a route that only enqueues, and from agents.
    assert_eq!(host.api().post("/v1/agents/two/invoke", "hello").text(), "1 calls, 1 messages");
    assert_eq!(client.post("/later", "hello").status.as_u16(), 202);
    host.until_agent("two", "it was handled", |status| status["mailbox_depth"] == 0 && status["in_flight"] == 0);
    assert_eq!(client.get("/tell").text(), "2 calls, 2 messages");
    host.until("its own message was handled", |host| {
        (host.caxton(&["state", "get", "two", "messages"]).1.trim() == "3").then_some(())
    });
    // Neither face leaves anything of a failure.
    assert_eq!(client.get("/fail").status.as_u16(), 500);
    assert_eq!(host.api().post("/v1/agents/two/invoke", "fail").status.as_u16(), 422);
    let host = host.kill().start();
    assert_eq!(host.client().get("/counts").text(), "3 calls, 3 messages");
}

#[test]
fn both_faces_work_at_the_same_time() {
    const EACH: usize = 20;
    let host = two();
    let work = |face: fn(&Host) -> Client, path: &'static str, body: &'static str| {
        let client = face(&host);
        std::thread::spawn(move || (0..EACH).filter(|_| client.post(path, body).status.as_u16() == 200).count())
    };
    let workers = [
        work(Host::client, "/counts", ""),
        work(Host::client, "/counts", ""),
        work(Host::api, "/v1/agents/two/invoke", "hello"),
        work(Host::api, "/v1/agents/two/invoke", "hello"),
    ];
    let done: Vec<usize> = workers.into_iter().map(|worker| worker.join().expect("it ends")).collect();
    // Each reads what the others write; a run in conflict is repeated, and none is counted twice.
    let (calls, messages) = (done[0] + done[1], done[2] + done[3]);
    let count = |key: &str| host.caxton(&["state", "get", "two", key]).1.trim().to_owned();
    assert_eq!((count("calls"), count("messages")), (calls.to_string(), messages.to_string()));
    assert_eq!((calls, messages), (2 * EACH, 2 * EACH));
}
