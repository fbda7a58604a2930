//! The timers of agents: their number, names and times, and their cancellation.

use std::fs;

use caxton_tests::{Host, Setup};
use http::Method;
use serde_json::{Value, json};

use crate::{agent, file, host, metric};

const HOUR: u64 = 3_600_000;

/// An agent without any grant, whose breaker stays out of the way.
fn rogue(settings: &str) -> String {
    agent("rogue", "rogue", &format!("breaker = {{ faults = 100 }}\n{settings}"))
}

fn act(host: &Host, action: &Value) -> Value {
    let reply = host.client().post("/rogue", action.to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    reply.json()
}

/// Returns the action that sets this many timers, each of which increments `key` when it fires.
fn timer(key: &str, after: u64, name: Option<&str>, count: u32) -> Value {
    let mut with = json!({ "after-ms": after, "performative": "inform" });
    if let Some(name) = name {
        with["headers"] = json!([["timer", name]]);
    }
    let content = json!({ "do": "steps", "steps": [{ "do": "increment", "key": key }] });
    json!({ "do": "send", "to": "", "content": content, "count": count, "with": with })
}

/// Sets timers. Returns their ids.
fn set(host: &Host, action: &Value) -> Vec<String> {
    let told = act(host, action);
    assert_eq!(told["errors"], json!([]), "{told}");
    told["sent"].as_array().expect("ids").iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

fn cancel(timer: &str) -> Value {
    json!({ "do": "cancel", "timer": timer })
}

fn cancelled(host: &Host, timer: &str) -> Value {
    act(host, &cancel(timer))["cancelled"].clone()
}

fn waiting(host: &Host) -> u64 {
    host.agent("rogue")["timers"].as_u64().expect("a number")
}

fn count(host: &Host, key: &str) -> String {
    host.caxton(&["state", "get", "rogue", key]).1.trim().to_owned()
}

fn until_counted(host: &mut Host, key: &str, expected: &str) {
    host.until(&format!("{key} is {expected}"), |host| (count(host, key) == expected).then_some(()));
}

#[test]
fn ten_thousand_timers_take_no_room_in_the_mailbox_and_are_shown_apart() {
    let mut host = host(&rogue("mailbox = { depth = 10 }"));
    for _ in 0..10 {
        assert_eq!(set(&host, &timer("late", HOUR, None, 1_000)).len(), 1_000);
    }
    assert_eq!(act(&host, &json!({ "do": "reply", "text": "\"here\"" })), json!("here"));
    let status = host.agent("rogue");
    assert_eq!((&status["timers"], &status["mailbox_depth"]), (&json!(10_000), &json!(0)), "{status}");
    assert_eq!(metric(&host, "caxton_timers{agent=\"rogue\"}"), 10_000);
    let mailbox = host.api().get("/v1/mailboxes").json()[0].clone();
    assert_eq!((&mailbox["timers"], &mailbox["depth"]), (&json!(10_000), &json!(0)), "{mailbox}");
    for arguments in [&["ps", "rogue"][..], &["mailbox", "ls"]] {
        let (code, told, _) = host.caxton(arguments);
        assert!(code == 0 && told.contains("10000"), "{told}");
    }
    // And after a crash.
    host = host.kill().start();
    assert_eq!((waiting(&host), host.agent("rogue")["mailbox_depth"].clone()), (10_000, json!(0)));
}

#[test]
fn a_timer_above_the_limit_is_refused_with_the_key_to_raise() {
    let host = host(&rogue("limits = { timers = 3 }"));
    let told = act(&host, &timer("late", HOUR, None, 5));
    assert_eq!(told["sent"].as_array().map(Vec::len), Some(3), "{told}");
    let detail = told["errors"][0]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("limits.timers") && detail.contains('3'), "{told}");
    assert_eq!(cancelled(&host, told["sent"][0].as_str().unwrap_or_default()), true);
    // One that takes another's place needs none.
    for _ in 0..2 {
        set(&host, &timer("late", HOUR, Some("last"), 1));
    }
    assert_eq!(waiting(&host), 3);
}

#[test]
fn a_cancellation_takes_effect_with_the_commit() {
    for durability in ["fsync", "memory"] {
        let host = host(&(rogue("") + &format!("[store]\ndurability = \"{durability}\"\n")));
        let id = set(&host, &timer("late", HOUR, None, 1)).remove(0);
        set(&host, &timer("late", HOUR, Some("named"), 1));
        // A handler that fails cancels nothing.
        for timer in [&*id, "named"] {
            let fails = json!({ "do": "steps", "steps": [cancel(timer), { "do": "fail", "cause": "rejected" }] });
            assert_ne!(host.client().post("/rogue", fails.to_string()).status.as_u16(), 200, "{durability}");
            assert_eq!(waiting(&host), 2, "{durability}");
        }
        // Of two in one handling the second finds nothing.
        let both = act(&host, &json!({ "do": "steps", "steps": [cancel(&id), cancel(&id), cancel("other")] }));
        let expected = json!([{ "cancelled": true }, { "cancelled": false }, { "cancelled": false }]);
        assert_eq!((both, waiting(&host)), (expected, 1), "{durability}");
        assert_eq!(cancelled(&host, &id), false, "{durability}");
        // One that was set by the same handling, and what it would have taken the place of.
        let own = json!({ "do": "steps", "steps": [timer("late", HOUR, Some("named"), 1), cancel("named")] });
        assert_eq!(act(&host, &own)[1], json!({ "cancelled": true }), "{durability}");
        assert_eq!(waiting(&host), 0, "{durability}");
        assert_eq!(cancelled(&host, "named"), false, "{durability}");
    }
}

#[test]
fn a_timer_replaces_the_waiting_one_of_its_name() {
    let mut host = host(&rogue(""));
    let first = set(&host, &timer("first", HOUR, Some("tick"), 1)).remove(0);
    let two = json!({ "do": "steps", "steps": [timer("second", HOUR, Some("tick"), 1), timer("third", 300, Some("tick"), 1)] });
    act(&host, &two);
    assert_eq!(cancelled(&host, &first), false, "it is gone");
    until_counted(&mut host, "third", "1");
    assert_eq!((waiting(&host), count(&host, "second")), (0, String::new()));
    assert_eq!(cancelled(&host, "tick"), false, "it has come");
    // A name is no id, and not for what is sent to many.
    let id = "01920000-0000-7000-8000-000000000000";
    let told = act(&host, &timer("never", HOUR, Some(id), 1));
    assert_eq!(told["errors"][0]["error"], "invalid", "{told}");
}

#[test]
fn timers_fire_once_after_kill_9_and_can_be_cancelled() {
    let mut host = host(&rogue(""));
    set(&host, &timer("soon", 1_000, None, 20));
    let id = set(&host, &timer("late", HOUR, None, 1)).remove(0);
    set(&host, &timer("late", HOUR, Some("named"), 1));
    for _ in 0..3 {
        host = host.kill().start();
    }
    until_counted(&mut host, "soon", "20");
    assert_eq!(waiting(&host), 2);
    assert_eq!((cancelled(&host, &id), cancelled(&host, "named")), (json!(true), json!(true)));
    let mut host = host.kill().start();
    host.until_agent("rogue", "it is at rest", |status| status["in_flight"] == 0 && status["mailbox_depth"] == 0);
    assert_eq!((waiting(&host), count(&host, "soon")), (0, "20".to_owned()), "none came twice");
}

#[test]
fn due_timers_wait_for_room_and_leave_some_to_messages() {
    let later = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let mut host = host(&(rogue("mailbox = { depth = 8 }\ninstances = { max = 1 }") + later));
    assert_eq!(host.caxton(&["mailbox", "pause", "rogue"]).0, 0);
    // A call waits in the mailbox too, so what sets them is not told to it.
    let sets = host.api().post("/v1/agents/rogue/messages", timer("due", 1, None, 100).to_string());
    assert_eq!(sets.status.as_u16(), 202);
    assert_eq!(host.caxton(&["mailbox", "resume", "rogue"]).0, 0);
    host.until("they are set", |host| (host.agent("rogue")["handled"].as_u64() >= Some(1)).then_some(()));
    assert_eq!(host.caxton(&["mailbox", "pause", "rogue"]).0, 0);
    host.until("half is full, or all have come", |host| {
        let status = host.agent("rogue");
        // One more than half, if a handling in conflict has gone back behind a timer that took its place.
        let filled = status["mailbox_depth"].as_u64() >= Some(4);
        (status["in_flight"] == 0 && (filled || status["timers"] == 0)).then_some(())
    });
    if waiting(&host) > 0 {
        let reply = host.client().send(Method::POST, "/later", &[], r#"{"do":"increment","key":"other"}"#);
        assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
    }
    // None is lost over a crash in between.
    host = host.kill().start();
    assert_eq!(host.caxton(&["mailbox", "resume", "rogue"]).0, 0);
    until_counted(&mut host, "due", "100");
    assert_eq!(waiting(&host), 0);
}

/// Copies the waiting timer in the store of a stopped host, until there are this many.
fn multiply(setup: &Setup, count: u64) {
    let database = setup.folder().join(".caxton/caxton.db");
    let store = rusqlite::Connection::open(database).expect("the store opens");
    let made = store.execute_batch(&format!(
        "BEGIN;
         WITH RECURSIVE n (n) AS (SELECT max(seq) + 1 FROM timer UNION ALL SELECT n + 1 FROM n WHERE n <= {count})
         INSERT INTO timer SELECT n, agent, due, at, dated, conversation, rank, 'copy-' || n, sender, NULL, head, content, placed
         FROM n, (SELECT * FROM timer WHERE id NOT LIKE 'copy-%' LIMIT 1);
         UPDATE meta SET value = (SELECT max(seq) FROM timer) WHERE key = 'seq';
         COMMIT;"
    ));
    made.expect("the timers are added");
}

#[test]
fn a_million_timers_cost_little_memory() {
    let host = host(&rogue("limits = { timers = 2_000_000 }"));
    set(&host, &timer("late", HOUR, None, 1));
    let mut resident = Vec::new();
    let mut setup = host.stop().1;
    // Both are more than the store keeps of its pages in memory.
    for count in [400_000, 1_000_000] {
        multiply(&setup, count);
        let host = setup.start();
        assert!(waiting(&host) >= count, "{}", waiting(&host));
        assert_eq!(host.agent("rogue")["mailbox_depth"], 0);
        resident.push(metric(&host, "process_resident_memory_bytes"));
        setup = host.stop().1;
    }
    let more = resident[1].saturating_sub(resident[0]);
    assert!(more < 16 << 20, "600,000 more take {} KiB", more >> 10);
    fs::remove_file(setup.folder().join(".caxton/caxton.db")).expect("it is large");
}

#[test]
fn timers_of_an_agent_that_is_removed_become_dead_letters() {
    let other = agent("other", "echo", "");
    let mut host = host(&(rogue("reload = { drain = \"5s\" }") + &other));
    set(&host, &timer("late", HOUR, None, 300));
    host.edit(&file(&other));
    let counted = |host: &Host| metric(host, "caxton_dead_letters_total{agent=\"rogue\",reason=\"agent-removed\"}");
    host.until("all are dead letters", |host| (counted(host) == 300).then_some(()));
    host.edit(&file(&(rogue("") + &other)));
    host.until_agent("rogue", "it is back", |status| status["state"] == "running");
    assert_eq!((waiting(&host), host.agent("rogue")["dead_letters"].clone()), (0, json!(300)));
}

/// The timers of an agent as the command lists them, as names, and the place after them.
fn list_timers(host: &Host, of: &str, more: &[&str]) -> (Vec<String>, Option<String>) {
    let (code, out, words) = host.caxton(&[&["mailbox", "timers", of, "-o", "json"], more].concat());
    assert_eq!(code, 0, "{words}");
    let page: Value = serde_json::from_str(&out).expect("JSON");
    let names = page["timers"].as_array().expect("a list").iter();
    let names = names.map(|timer| timer["name"].as_str().unwrap_or("-").to_owned()).collect();
    (names, page["next"].as_str().map(str::to_owned))
}

#[test]
fn an_operator_lists_timers_and_cancels_one() {
    let more = "allow = { send = [\"rogue\"] }";
    let host = host(&(rogue("") + &agent("other", "rogue", more)));
    let hours = |name: Option<&str>, hours: u64| set(&host, &timer("late", hours * HOUR, name, 1)).remove(0);
    let id = hours(None, 3);
    for (name, after) in [("last", 4), ("first", 1), ("twice", 2)] {
        hours(Some(name), after);
    }
    let (all, next) = list_timers(&host, "rogue", &[]);
    assert_eq!((all, next), (["first", "twice", "-", "last"].map(str::to_owned).to_vec(), None));
    // A page at a time.
    let (page, next) = list_timers(&host, "rogue", &["-n", "2"]);
    assert_eq!(page, ["first", "twice"]);
    let after = next.expect("there are more");
    let (page, next) = list_timers(&host, "rogue", &["-n", "2", "--after", &after]);
    assert_eq!(page, ["-", "last"]);
    assert_eq!(list_timers(&host, "rogue", &["--after", &next.expect("it was full")]), (Vec::new(), None));
    let (code, out, _) = host.caxton(&["mailbox", "timers", "rogue"]);
    assert!(code == 0 && out.contains(&id) && out.contains("DUE"), "{out}");
    let found = host.api().get("/v1/mailboxes/rogue/timers?limit=1").json()["timers"][0].clone();
    let in_an_hour = found["due_at"].as_u64().expect("a time");
    assert!(found["sender"] == "rogue" && found["conversation"].is_string() && in_an_hour > 0, "{found}");
    // By its id and by its name; what is gone is not found.
    for timer in [&*id, "first"] {
        assert_eq!(host.caxton(&["mailbox", "cancel", "rogue", timer]).0, 0, "{timer}");
        let (code, _, words) = host.caxton(&["mailbox", "cancel", "rogue", timer]);
        assert!(code == 3 && words.contains("caxton mailbox timers rogue"), "{code} {words}");
        assert_eq!(cancelled(&host, timer), false, "{timer}");
    }
    assert_eq!(waiting(&host), 2);
    // A name is of its sender: another has the same one.
    let mut action = timer("late", HOUR, Some("twice"), 1);
    action["to"] = json!("rogue");
    let told = host.client().post("/other", action.to_string()).json();
    assert_eq!(told["errors"], json!([]), "{told}");
    let (code, _, words) = host.caxton(&["mailbox", "cancel", "rogue", "twice"]);
    assert!(code == 4 && words.contains("several senders"), "{code} {words}");
    assert_eq!(waiting(&host), 3);
    let theirs = told["sent"][0].as_str().expect("an id");
    assert_eq!(host.caxton(&["mailbox", "cancel", "rogue", theirs]).0, 0);
    let (code, out, _) = host.caxton(&["mailbox", "cancel", "rogue", "twice", "-o", "json"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert!(code == 0 && told["sender"] == "rogue" && told["name"] == "twice", "{told}");
    let events = host.api().get("/v1/events?agent=rogue&limit=1000").json();
    let told = events.as_array().expect("a list").iter().filter(|event| event["kind"] == "timer.cancelled").count();
    assert_eq!(told, 4);
    // Also of those that another host had set.
    let host = host.kill().start();
    assert_eq!(list_timers(&host, "rogue", &[]).0, ["last"]);
    assert_eq!(host.caxton(&["mailbox", "cancel", "rogue", "last"]).0, 0);
    assert_eq!((waiting(&host), host.caxton(&["mailbox", "timers", "nobody"]).0), (0, 3));
}
