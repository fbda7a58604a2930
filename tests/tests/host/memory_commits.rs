//! The memory of stateful agents in the commits of their messages: it is there after a crash, and after a failure nothing
//! of it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::JoinHandle;

use caxton_tests::{Client, Host};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::{agent, file, host, metric};

/// The agent `tally`, called at `/tally` and sent to at `/later`.
fn tally(more: &str) -> String {
    agent("tally", "tally", more) + "[[agents.tally.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n"
}

/// Returns the status and the text of the answer.
fn ask(host: &Host, word: &str) -> (u16, String) {
    let reply = host.client().post("/tally", word.to_owned());
    (reply.status.as_u16(), reply.text())
}

/// Returns the count that the agent answers with.
fn count(host: &Host, word: &str) -> u64 {
    let (status, text) = ask(host, word);
    assert_eq!(status, 200, "{word}: {text}");
    text.parse().expect("a count")
}

fn later(host: &Host, word: &str) {
    assert_eq!(host.client().post("/later", word.to_owned()).status.as_u16(), 202);
}

fn until_at_rest(host: &mut Host) {
    host.until_agent("tally", "all is handled", |status| {
        ["mailbox_depth", "in_flight", "later"].iter().all(|key| status[key] == 0)
    });
}

fn store(folder: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(folder.join(".caxton/caxton.db"), flags).expect("the store is there")
}

/// Returns the counts that messages have written down, by the messages.
fn written(host: &Host) -> BTreeMap<String, u64> {
    let store = store(host.folder());
    let sql = "SELECT key, CAST(value AS TEXT) FROM state WHERE agent = 'tally' AND key LIKE 'did/%'";
    let mut rows = store.prepare(sql).expect("the store can be read");
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?.parse().unwrap_or(0))));
    rows.expect("the store can be read").map(|row| row.expect("a row")).collect()
}

/// Checks that memory and state agree: each count from 1 was written down by one message.
fn check_agreement(host: &Host) -> u64 {
    let total = count(host, "read");
    let mut counts: Vec<u64> = written(host).into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=total).collect::<Vec<u64>>());
    total
}

/// The events of one kind.
fn events(host: &Host, kind: &str) -> Vec<Value> {
    let all = host.api().get("/v1/events?limit=1000").json();
    all.as_array().expect("a list").iter().filter(|event| event["kind"] == kind).cloned().collect()
}

fn memory(host: &Host) -> Value {
    host.agent("tally")["memory"].clone()
}

fn until_memory(host: &mut Host, what: &str, condition: impl Fn(&Value) -> bool) {
    host.until_agent("tally", what, |status| condition(&status["memory"]));
}

fn is_saved(memory: &Value) -> bool {
    memory["unsaved_messages"] == 0
}

/// Calls `add` until the host ends. Gives the counts that were acknowledged.
fn caller(host: &Host) -> JoinHandle<Vec<u64>> {
    let address = host.http.clone();
    std::thread::spawn(move || {
        let (client, mut acknowledged) = (Client::new(&address, None), Vec::new());
        while let Ok(reply) = client.try_send(http::Method::POST, "/tally", &[], "add") {
            if reply.status.as_u16() == 200 {
                acknowledged.push(reply.text().parse().expect("a count"));
            }
        }
        acknowledged
    })
}

#[test]
fn a_crash_loses_the_memory_of_no_acknowledged_message() {
    let mut host = host(&tally(""));
    let (mut acknowledged, mut before) = (Vec::new(), 0);
    for round in 1..=6 {
        (0..50).for_each(|_| later(&host, "add"));
        let callers: Vec<_> = (0..4).map(|_| caller(&host)).collect();
        host.until("some are handled", |host| (host.agent("tally")["handled"].as_u64() > Some(60)).then_some(()));
        let setup = host.kill();
        for caller in callers {
            acknowledged.extend(caller.join().expect("it ends with the host"));
        }
        host = setup.start();
        until_at_rest(&mut host);
        let total = check_agreement(&host);
        assert!(total > before, "round {round}: {total}");
        before = total;
    }
    acknowledged.sort_unstable();
    let different = acknowledged.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(different && acknowledged.last() <= Some(&before), "no count was given twice: {acknowledged:?}");
    let (code, said, _) = host.caxton(&["store", "check"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_message_that_failed_leaves_nothing_in_memory() {
    let mut host = host(&tally("mailbox = { attempts = 2, backoff = { first = \"100ms\" } }\n"));
    assert_eq!((count(&host, "add"), count(&host, "add")), (1, 2));
    for (at, word) in ["fail", "unavailable", "trap", "bad-reply"].into_iter().enumerate() {
        let (status, text) = ask(&host, word);
        assert!(status >= 500, "{word}: {status} {text}");
        assert_eq!(count(&host, "read"), 2 + at as u64, "after `{word}`");
        // As a message of the mailbox as well, with another attempt.
        later(&host, word);
        until_at_rest(&mut host);
        assert_eq!(count(&host, "add"), 3 + at as u64, "after `{word}`");
    }
    assert_eq!(check_agreement(&host), 6);
    // Where its memory is saved otherwise, it goes on with what the message left.
    host.edit(&file(&tally("snapshot = { save = \"idle\" }\n")));
    until_memory(&mut host, "the setting applies", |memory| memory["save"] == "idle");
    assert_eq!(ask(&host, "fail").0, 500);
    assert_eq!(count(&host, "read"), 7);
    assert_eq!(host.agent("tally")["revision"], "tally@1");
}

/// Lets a commit be refused, for a key that changed meanwhile, while many messages wait to be handled on top of its
/// memory.
#[test]
fn what_ran_ahead_of_a_refused_commit_runs_again() {
    let limits = "limits = { time = \"60s\", cpu = \"30s\" }\nmailbox = { depth = 1000 }\n";
    let mut host = host(&tally(limits));
    for round in 1..=2 {
        later(&host, "linger 2500");
        host.until_agent("tally", "it lingers", |status| status["in_flight"] == 1);
        let path = "/v1/agents/tally/state/shared";
        let put = host.api().send(http::Method::PUT, path, &[], format!("of round {round}"));
        assert!(put.status.is_success(), "{}", put.text());
        (0..100).for_each(|_| later(&host, "add"));
        until_at_rest(&mut host);
        assert_eq!(check_agreement(&host), round * 101);
        assert_eq!(host.api().get(path).text(), format!("of round {round}"));
    }
    let status = host.agent("tally");
    assert!(status["conflicts"].as_u64() > Some(0), "{status}");
    assert_eq!((&status["failed"], &status["retries"]), (&Value::from(0), &Value::from(0)), "no attempt failed");
    assert!(status["started_instances"].as_u64() > Some(1), "{status}");
}

#[test]
fn messages_that_fail_among_others_leave_memory_and_state_in_agreement() {
    let settings = "mailbox = { attempts = 1 }\nbreaker = { faults = 100 }\n";
    let mut host = host(&tally(settings));
    for at in 0..120 {
        later(&host, ["add", "add", "unavailable", "count", "add", "bad-reply"][at % 6]);
    }
    until_at_rest(&mut host);
    // 20 of them counted, and wrote nothing down.
    let total = count(&host, "read");
    assert_eq!((total, written(&host).len()), (80, 60));
    let mut host = host.kill().start();
    assert_eq!(count(&host, "read"), 80);
    until_at_rest(&mut host);
}

#[test]
fn a_message_that_changes_nothing_makes_no_commit() {
    let host = host(&tally(""));
    assert_eq!(count(&host, "add"), 1);
    let saved_at = || -> i64 {
        let sql = "SELECT saved_at FROM snapshot WHERE agent = 'tally'";
        store(host.folder()).query_row(sql, [], |row| row.get(0)).expect("it is saved")
    };
    let commits = || metric(&host, "caxton_commit_seconds_count");
    let before = (saved_at(), commits());
    for _ in 0..200 {
        assert_eq!(count(&host, "read"), 1);
    }
    assert_eq!(saved_at(), before.0);
    assert!(commits() < before.1 + 50, "{} commits", commits() - before.1);
    assert_eq!(count(&host, "count"), 2);
    assert!(saved_at() > before.0);
}

#[test]
fn a_memory_above_its_bound_is_saved_apart_and_that_is_told() {
    let mut host = host(&tally(""));
    assert_eq!(count(&host, "add"), 1);
    assert_eq!(memory(&host)["in_force"], "commit");
    assert_eq!(count(&host, "pad 100000"), 2);
    let told = host.until("an event", |host| events(host, "snapshot.deferred").first().cloned());
    let reason = "it saved 100008 bytes, more than snapshot.commit-max (64KiB)";
    assert_eq!((&told["data"]["reason"], &told["data"]["save"]), (&Value::from(reason), &Value::from("every 5s")));
    // At once for the first time.
    until_memory(&mut host, "it is saved", is_saved);
    let mut host = host.kill().start();
    assert_eq!(count(&host, "read"), 2);
    assert_eq!((0..3).map(|_| count(&host, "count")).collect::<Vec<_>>(), [3, 4, 5]);
    until_memory(&mut host, "its status", |memory| memory["deferred"] == reason && memory["in_force"] == "every 5s");
    assert_eq!(metric(&host, "caxton_snapshot_deferred{agent=\"tally\"}"), 1);
    // What a crash would cost, until it is saved again.
    if let Some(unsaved) = memory(&host)["unsaved_messages"].as_u64().filter(|unsaved| *unsaved > 0) {
        let (_, said, _) = host.caxton(&["ps", "tally"]);
        let line = said.lines().find(|line| line.starts_with("memory")).unwrap_or_default();
        assert!(line.contains(reason) && line.contains("; a crash costs "), "{unsaved}: {said}");
    }
    until_memory(&mut host, "it is saved", is_saved);
    assert_eq!(metric(&host, "caxton_snapshot_unsaved_messages{agent=\"tally\"}"), 0);
    assert_eq!(ask(&host, "trap").0, 500);
    assert_eq!(count(&host, "read"), 5, "as it was saved last");
    assert_eq!(count(&host, "pad 100"), 6);
    host.until("it is part of commits again", |host| events(host, "snapshot.in-commits").first().cloned());
    until_memory(&mut host, "its status", |memory| memory["in_force"] == "commit" && is_saved(memory));
    assert_eq!(count(&host, "count"), 7);
    let host = host.kill().start();
    assert_eq!(count(&host, "read"), 7);
}

#[test]
fn the_time_to_save_applies_in_place() {
    let settings = |save: &str| file(&format!("[defaults.snapshot]\nsave = \"{save}\"\n{}", tally("")));
    let mut host = Host::start(crate::BINARY, &settings("idle"));
    assert_eq!((0..3).map(|_| count(&host, "count")).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&memory(&host)["save"], &memory(&host)["unsaved_messages"]), (&Value::from("idle"), &Value::from(3)));
    let (_, said, _) = host.caxton(&["ps", "tally"]);
    assert!(said.contains("saved when its instance ends; a crash costs what 3 messages of the last "), "{said}");
    host.edit(&settings("every 5"));
    until_memory(&mut host, "the setting applies", |memory| memory["save"] == "every 5");
    assert_eq!((count(&host, "count"), &memory(&host)["unsaved_messages"]), (4, &Value::from(4)));
    assert_eq!(count(&host, "count"), 5);
    until_memory(&mut host, "it is saved", is_saved);
    assert_eq!(count(&host, "count"), 6);
    host.edit(&settings("every 1s"));
    until_memory(&mut host, "it is saved at rest", |memory| memory["save"] == "every 1s" && is_saved(memory));
    assert_eq!(host.agent("tally")["instances"], 1, "it goes on");
    host.edit(&settings("idle"));
    until_memory(&mut host, "the setting applies", |memory| memory["save"] == "idle");
    assert_eq!(count(&host, "count"), 7);
    // What was left unsaved is saved at once.
    host.edit(&settings("commit"));
    until_memory(&mut host, "it is saved", |memory| memory["save"] == "commit" && is_saved(memory));
    assert_eq!(count(&host, "count"), 8);
    assert_eq!(host.agent("tally")["revision"], "tally@1");
    let host = host.kill().start();
    assert_eq!(count(&host, "read"), 8);
    assert_eq!(host.agent("tally")["revision"], "tally@1");
}

#[test]
fn a_save_neither_sends_nor_writes() {
    let host = host(&tally("config = { save = \"tries\" }\n"));
    assert_eq!((count(&host, "add"), count(&host, "add")), (1, 2));
    let keys = host.api().get("/v1/agents/tally/state").json();
    let keys: Vec<&str> = keys["keys"].as_array().into_iter().flatten().filter_map(|key| key["key"].as_str()).collect();
    assert!(keys.len() == 2 && keys.iter().all(|key| key.starts_with("did/")), "{keys:?}");
    let status = host.agent("tally");
    assert_eq!((&status["handled"], &status["timers"]), (&Value::from(2), &Value::from(0)));
}

#[test]
fn a_message_whose_memory_cannot_be_saved_has_failed() {
    for (save, code, words) in [
        ("fail", "agent-fault", "it is told not to save"),
        ("trap", "trap", "and its instance ended with it"),
        ("slow", "cpu-exceeded", "and its instance ended with it"),
    ] {
        let mut host = host(&tally(&format!("config = {{ save = \"{save}\", at = \"2\" }}\n")));
        assert_eq!(count(&host, "add"), 1);
        let reply = host.client().post("/tally", "add");
        assert_eq!(reply.json()["code"], code, "{save}: {}", reply.text());
        let failed = host.until("an event", |host| events(host, "snapshot.not-saved").first().cloned());
        assert!(failed["data"]["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{failed}");
        assert_eq!(check_agreement(&host), 1, "{save}");
        if save == "slow" {
            // What takes longer than a message may is saved apart.
            host.until("an event", |host| events(host, "snapshot.deferred").first().cloned());
            assert_eq!(count(&host, "add"), 2);
            until_memory(&mut host, "it is saved", is_saved);
            assert_eq!(memory(&host)["in_force"], "every 5s");
        }
    }
}

#[test]
fn an_agent_rests_and_stops_with_all_that_it_has() {
    let mut host = host(&tally("instances = { idle = \"1s\" }\n"));
    assert_eq!(count(&host, "add"), 1);
    host.until_agent("tally", "it ends", |status| status["instances"] == 0);
    assert_eq!(count(&host, "add"), 2);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    assert_eq!(check_agreement(&setup.start()), 2);
}
