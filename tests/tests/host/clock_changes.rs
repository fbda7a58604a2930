//! A wall clock that is set: waits go on as they were, times of the calendar follow it.

use caxton_tests::{Host, Setup};
use http::Method;
use serde_json::json;

use crate::{BINARY, agent, file, host};

const LATER: &str = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
const HOUR: i64 = 3_600;

fn rogue(settings: &str) -> String {
    agent("rogue", "rogue", &format!("allow = {{ send = [\"rogue\"] }}\n{settings}")) + LATER
}

fn enqueue(host: &Host, action: &serde_json::Value) {
    let reply = host.client().send(Method::POST, "/later", &[], action.to_string());
    assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
}

/// Makes the agent send itself a message that increments this key.
fn send(host: &Host, name: &str, with: &serde_json::Value) {
    let content = json!({ "do": "increment", "key": name });
    let action = json!({ "do": "send", "to": "rogue", "content": content, "with": with });
    let told = host.client().post("/rogue", action.to_string()).json();
    assert_eq!(told["errors"], json!([]), "{told}");
}

fn count(host: &Host, name: &str) -> String {
    host.caxton(&["state", "get", "rogue", name]).1.trim().to_owned()
}

fn until_counted(host: &mut Host, name: &str) {
    host.until(name, |host| (count(host, name) == "1").then_some(()));
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is right");
    i64::try_from(since.as_millis()).expect("it is not so late")
}

#[test]
fn setting_the_clock_back_delays_no_timer() {
    let mut host = host(&rogue("mailbox = { backoff = { first = \"1s\", jitter = 0 } }"));
    let failing = json!({ "do": "steps", "steps": [
        { "do": "fail-until", "attempt": 3, "cause": "unavailable" },
        { "do": "increment", "key": "tried" },
    ] });
    enqueue(&host, &failing);
    send(&host, "timer", &json!({ "after-ms": 2_000 }));
    host.order(&format!("clock -{HOUR}"));
    until_counted(&mut host, "timer");
    until_counted(&mut host, "tried");
    host.until_output("the clock went back by 3600");
    let set = host.caxton(&["events", "-o", "json"]).1;
    let set = set.lines().filter(|line| line.contains("host.clock-set")).count();
    assert_eq!(set, 1);
    // Kept as a time of the wall clock, as it is then.
    send(&host, "kept", &json!({ "after-ms": 4_000 }));
    let mut host = host.kill().start();
    until_counted(&mut host, "kept");
}

#[test]
fn setting_the_clock_ahead_fires_no_timer_early() {
    let settings = "mailbox = { timeout = \"10m\" }";
    let mut host = host(&(rogue(settings) + &agent("other", "rogue", "") + "[conversations]\ntimeout = \"30m\"\n"));
    assert_eq!(host.caxton(&["mailbox", "pause", "other"]).0, 0);
    let sent = host.api().post("/v1/agents/other/messages", r#"{"do":"none"}"#);
    assert_eq!(sent.status.as_u16(), 202, "{}", sent.text());
    send(&host, "far", &json!({ "after-ms": HOUR * 1_000 }));
    send(&host, "near", &json!({ "after-ms": 1_000 }));
    let date = now_ms() + HOUR * 1_500;
    send(&host, "date", &json!({ "at-ms": date }));
    host.order(&format!("clock {}", 2 * HOUR));
    host.until_output("the clock went forward by 7200");
    // What has a date comes when the clock shows it.
    until_counted(&mut host, "date");
    until_counted(&mut host, "near");
    assert_ne!(count(&host, "far"), "1");
    assert_eq!(host.agent("rogue")["timers"], 1);
    assert_eq!(host.agent("other")["mailbox_depth"], 1, "it waited for a moment");
    // An answer to itself is no action, and so a dead letter of another kind.
    let dead = host.api().get("/v1/dead-letters").json();
    let expired =
        dead["dead_letters"].as_array().expect("a list").iter().filter(|dead| dead["reason"] == "expired").count();
    assert_eq!(expired, 0, "{dead}");
    // And back: what has a date an hour from now by that clock waits until then.
    host.order("clock 0");
    host.until_output("the clock went back by 7200");
    send(&host, "soon", &json!({ "after-ms": 500 }));
    until_counted(&mut host, "soon");
}

#[test]
fn schedules_follow_the_wall_clock() {
    let schedule =
        "[[agents.rogue.schedule]]\ncron = \"0 0 12 1 1 *\"\ncontent = '{\"do\":\"increment\",\"key\":\"year\"}'\n";
    let mut host = Setup::new(BINARY, &file(&(rogue("") + schedule))).start();
    assert_ne!(count(&host, "year"), "1");
    // A year has one such noon. Days are not counted one by one.
    host.order(&format!("clock {}", 366 * 24 * HOUR));
    until_counted(&mut host, "year");
    send(&host, "timer", &json!({ "after-ms": 500 }));
    until_counted(&mut host, "timer");
    assert_eq!(count(&host, "year"), "1", "no more than one came of the leap");
}
