//! The durability of state and messages: data that survives a kill, and data that a power cut takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use caxton_tests::Client;
use serde_json::json;

use crate::{WRITERS, Writers, agent, host};

#[test]
fn after_kill_9_every_acknowledged_write_is_there_and_none_twice() {
    let mut setup = None;
    let mut acknowledged = 0u64;
    // Each round ends in the middle of writes.
    for round in 0..5 {
        let host = match setup.take() {
            None => host(&agent("counter", "counter", "instances = { max = 8 }")),
            Some(setup) => caxton_tests::Setup::start(setup),
        };
        let client = host.client();
        let now = client.post("/counter", r#"{"by": 0}"#).json()["count"].as_u64().expect("a count");
        // What was sent and not acknowledged before the cut may have been committed: at most one a writer.
        assert!(
            (acknowledged..=acknowledged + WRITERS).contains(&now),
            "round {round}: {now}, acknowledged {acknowledged}"
        );
        acknowledged = now;
        let writers = Writers::start(&host);
        while writers.acknowledged() < 50 * (round + 1) {
            caxton_tests::pause();
        }
        setup = Some(host.kill());
        acknowledged += writers.join();
    }
    assert!(acknowledged >= 750, "{acknowledged} writes were acknowledged in all");
}

#[test]
fn concurrent_increments_are_all_counted() {
    let host = host(&agent("counter", "counter", "instances = { max = 8 }"));
    let address = host.http.clone();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let client = Client::new(&address, None);
            std::thread::spawn(move || (0..25).filter(|_| client.post("/counter", "").status.as_u16() == 200).count())
        })
        .collect();
    let counted: usize = callers.into_iter().map(|caller| caller.join().expect("a caller ends well")).sum();
    assert_eq!(counted, 200);
    assert_eq!(host.client().post("/counter", r#"{"by": 0}"#).json()["count"], 200);
}

#[test]
fn a_handler_that_fails_leaves_nothing_behind() {
    let later = "[[agents.counter.http]]\nroute = \"/unused\"\n";
    let mut host =
        host(&(agent("rogue", "rogue", "allow = { send = [\"counter\"] }") + &agent("counter", "counter", "") + later));
    let client = host.client();
    let send = json!({"do": "send", "to": "counter", "content": {"by": 5}});
    let set = json!({"do": "set", "key": "a", "value": "1"});
    for end in [json!({"do": "trap"}), json!({"do": "fail", "cause": "fault", "reason": "on purpose"})] {
        let reply = client.post("/rogue", json!({"do": "steps", "steps": [set, send, end]}).to_string());
        assert!(reply.status.is_server_error(), "{}", reply.text());
    }
    assert_eq!(client.post("/rogue", r#"{"do":"get","key":"a"}"#).json()["value"], json!(null));
    assert_eq!(host.agent("counter")["accepted"], 0);
    let good = json!({"do": "steps", "steps": [set, send]});
    assert_eq!(client.post("/rogue", good.to_string()).status.as_u16(), 200);
    assert_eq!(client.post("/rogue", r#"{"do":"get","key":"a"}"#).json()["value"], "1");
    host.until_agent("counter", "the message arrives", |status| status["handled"] == 1);
    assert_eq!(client.post("/counter", r#"{"by": 0}"#).json()["count"], 5);
}

#[test]
fn state_is_there_after_a_restart_and_revisions_keep_their_numbers() {
    let host = host(&agent("counter", "counter", ""));
    host.client().post("/counter", r#"{"by": 3}"#);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let log = std::fs::metadata(setup.folder().join(".caxton/caxton.db-wal"));
    assert!(log.map_or(0, |log| log.len()) == 0, "all of it is in the database itself");
    let host = setup.start();
    let reply = host.client().post("/counter", r#"{"by": 0}"#);
    assert_eq!(reply.json()["count"], 3);
    assert_eq!(reply.header("caxton-revision"), "counter@1", "the same bytes and settings");
}

#[test]
fn a_write_that_is_not_durable_is_acknowledged_to_nobody() {
    let mut host = host(&agent("rogue", "rogue", "instances = { min = 3, max = 3 }"));
    // Another program's transaction holds up what the agent does.
    let database = host.folder().join(".caxton/caxton.db");
    let other = rusqlite::Connection::open(database).expect("the store is there");
    other.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    let released = Arc::new(AtomicBool::new(false));
    let address = host.http.clone();
    let set = std::thread::spawn({
        let (address, released) = (address.clone(), Arc::clone(&released));
        move || {
            let set = json!({"do": "set", "key": "a", "value": "1"});
            let status = Client::new(&address, None).post("/rogue", set.to_string()).status;
            assert!(released.load(Ordering::SeqCst), "the writer was answered before its commit");
            assert_eq!(status.as_u16(), 200);
        }
    });
    host.until_agent("rogue", "writes", |agent| agent["in_flight"] == 1);
    let get = std::thread::spawn({
        let released = Arc::clone(&released);
        move || {
            let client = Client::new(&address, None);
            while client.post("/rogue", r#"{"do":"get","key":"a"}"#).json()["value"] != "1" {}
            assert!(released.load(Ordering::SeqCst), "the value was told before it was safe");
        }
    });
    // The reader has seen the value, and is answered or made to wait.
    let mut before = None;
    host.until("the reader is done, or waits", |host| {
        let agent = host.agent("rogue");
        let waits =
            agent["in_flight"] == 2 && before.replace(agent["handled"].clone()) == Some(agent["handled"].clone());
        (waits || get.is_finished()).then_some(())
    });
    released.store(true, Ordering::SeqCst);
    other.execute_batch("COMMIT").expect("the transaction is open");
    set.join().expect("the writer");
    get.join().expect("the reader");
}
