//! The operator's commands for the store (backup, check, restore, compaction), and the statistics of the host.

use std::fs;

use caxton_tests::Host;
use serde_json::{Value, json};

use crate::{WRITERS, Writers, agent, host};

fn json_of(host: &Host, arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = host.caxton(arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

#[test]
fn a_backup_of_a_busy_host_has_all_acknowledged_writes() {
    let failing = agent("rogue", "rogue", "mailbox = { attempts = 1 }");
    let mut host =
        host(&(agent("counter", "counter", "instances = { max = 8 }") + &agent("held", "counter", "") + &failing));
    assert_eq!(host.caxton(&["mailbox", "pause", "held"]).0, 0);
    for _ in 0..3 {
        assert_eq!(host.api().post("/v1/agents/held/messages", r#"{"by": 2}"#).status.as_u16(), 202);
    }
    host.api().post("/v1/agents/rogue/messages", r#"{"do":"trap"}"#);
    host.until_agent("rogue", "its message is given up", |status| status["dead_letters"] == 1);
    let writers = Writers::start(&host);
    let backups: Vec<(u64, u64)> = (0..3)
        .map(|number| {
            let target = 50 * (number + 1);
            host.until("writes are acknowledged", |_| (writers.acknowledged() >= target).then_some(()));
            let before = writers.acknowledged();
            let (code, _, stderr) = host.caxton(&["store", "backup", &format!("backup-{number}.db")]);
            assert_eq!(code, 0, "{stderr}");
            // What was sent and is not acknowledged yet may be in it: at most one a writer.
            (before, writers.acknowledged() + WRITERS)
        })
        .collect();
    let checked = json_of(&host, &["store", "check", "-o", "json"]);
    assert_eq!(checked, json!({"ok": true, "defects": []}), "while it is busy");
    let (code, _, stderr) = host.caxton(&["store", "backup", "backup-0.db"]);
    assert!(code == 4 && stderr.contains("exists already"), "{stderr}");
    let folder = host.folder().join(".caxton");
    let mut setup = Some(host.kill());
    writers.join();
    for (number, (least, most)) in backups.into_iter().enumerate() {
        // Commands need a host's folder, and no host.
        let host = setup.take().expect("one is left").start();
        let (code, _, stderr) = host.caxton(&["store", "restore", &format!("backup-{number}.db"), "--force"]);
        assert!(code == 4 && stderr.contains("is in use"), "{stderr}");
        let idle = host.kill();
        let (code, _, stderr) = idle.caxton(&["store", "restore", &format!("backup-{number}.db"), "--force"]);
        assert_eq!(code, 0, "{stderr}");
        let (code, _, stderr) = idle.caxton(&["store", "check"]);
        assert_eq!(code, 0, "{stderr}");
        let mut host = idle.start();
        let count = host.client().post("/counter", r#"{"by": 0}"#).json()["count"].as_u64().expect("a count");
        assert!((least..=most).contains(&count), "backup {number} has {count}, not {least} to {most}");
        assert_eq!(host.agent("rogue")["dead_letters"], 1);
        let held = host.agent("held");
        assert_eq!((&held["held"], &held["mailbox_depth"]), (&json!(true), &json!(3)));
        host.caxton(&["mailbox", "resume", "held"]);
        host.until_agent("held", "its messages are handled", |status| status["handled"] == 3);
        setup = Some(host.kill());
    }
    let left: Vec<String> = fs::read_dir(folder)
        .expect("the data folder is there")
        .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("copy-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_damaged_store_is_reported_by_the_check_and_by_the_host() {
    let host = host(&agent("counter", "counter", ""));
    host.client().post("/counter", "");
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    assert_eq!(setup.caxton(&["store", "backup", "good.db"]).0, 0);
    let database = setup.folder().join(".caxton/caxton.db");
    let good = fs::read(&database).expect("the store is there");
    // A page in the middle: the host may not come across it for long, the check does.
    const PAGE: usize = 8_192;
    let mut bytes = good.clone();
    let page = bytes.len() / PAGE / 2 * PAGE;
    bytes[page..page + PAGE].fill(0x55);
    fs::write(&database, &bytes).expect("the store can be written to");
    let (code, stdout, stderr) = setup.caxton(&["store", "check"]);
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(!stdout.is_empty() && stderr.contains("caxton store restore FILE"), "{stdout}{stderr}");
    // Its beginning: there is no way round that.
    bytes[..4096].fill(0x55);
    fs::write(&database, &bytes).expect("the store can be written to");
    let (code, stdout, _) = setup.caxton(&["store", "check", "-o", "json"]);
    let checked: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &checked["defects"][0]["code"]), (1, &json!("unreadable")), "{checked}");
    let (code, stderr) = setup.again().refused();
    assert!(code == 1 && stderr.contains("caxton.db is damaged (file is not a database)"), "{code}: {stderr}");
    assert!(stderr.contains("caxton store check") && stderr.contains("caxton store restore"), "{stderr}");
    let (code, _, stderr) = setup.caxton(&["store", "restore", "caxton.toml", "--force"]);
    assert!(code == 1 && stderr.contains("caxton.toml is not a copy of a store: it is damaged"), "{code}: {stderr}");
    assert!(!stderr.contains("move it away"), "{stderr}");
    let (code, _, stderr) = setup.caxton(&["store", "restore", "good.db"]);
    assert!(code == 4 && stderr.contains("--force"), "{stderr}");
    assert_eq!(setup.caxton(&["store", "restore", "good.db", "--force"]).0, 0);
    let host = setup.start();
    assert_eq!(host.client().post("/counter", r#"{"by": 0}"#).json()["count"], 1);
}

#[test]
fn the_store_can_be_shown_and_compacted_with_and_without_a_host() {
    let host = host(&agent("counter", "counter", ""));
    let (code, _, stderr) = host.caxton(&["store", "show", "--data", "nowhere"]);
    assert!(code == 3 && stderr.contains("there is no store nowhere/caxton.db"), "{stderr}");
    assert!(!host.folder().join("nowhere").exists());
    host.api().send(http::Method::PUT, "/v1/agents/counter/state/large", &[], vec![b'x'; 3 << 20]);
    for _ in 0..3 {
        host.client().post("/counter", "");
        host.api().post("/v1/agents/counter/messages", "");
    }
    let mut host = host;
    host.until_agent("counter", "all are handled", |status| status["handled"] == 6);
    host.api().send(http::Method::DELETE, "/v1/agents/counter/state/large", &[], "");
    let shown = json_of(&host, &["store", "show", "-o", "json"]);
    assert_eq!((&shown["handled"], &shown["queued"], &shown["dead"]), (&json!(3), &json!(0), &json!(0)), "{shown}");
    assert!(shown["commits"]["p99_us"].as_f64() > Some(0.0), "{shown}");
    assert_eq!(shown["agents"][0]["state_bytes"], host.agent("counter")["state_bytes"]);
    let (code, _, stderr) = host.caxton(&["store", "compact"]);
    assert!(code == 4 && stderr.contains("stop it first"), "{stderr}");
    let (_, setup) = host.stop();
    let (code, stdout, stderr) = setup.caxton(&["store", "compact", "-o", "json"]);
    let compacted: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    assert_eq!(code, 0, "{stderr}");
    assert!(compacted["before"].as_u64() > Some(3 << 20) && compacted["after"].as_u64() < Some(1 << 20), "{compacted}");
    let (code, stdout, stderr) = setup.caxton(&["store", "show"]);
    assert!(code == 0 && stdout.contains("commits       -\n"), "{stdout}{stderr}");
    assert_eq!(setup.start().client().post("/counter", r#"{"by": 0}"#).json()["count"], 6);
}

#[test]
fn statistics_match_the_load_and_rates_fall_to_zero() {
    let mut host = host(&(agent("counter", "counter", "") + &agent("rogue", "rogue", "mailbox = { attempts = 1 }")));
    let stats = |host: &Host| host.api().get("/v1/stats").json();
    let before = stats(&host);
    assert_eq!(
        (&before["delivery"]["since_start"], &before["messages"]["handled"]),
        (&json!(null), &json!(0)),
        "{before}"
    );
    let client = host.client();
    for _ in 0..40 {
        client.post("/counter", "");
    }
    host.api().post("/v1/agents/rogue/messages", r#"{"do":"trap"}"#);
    client.post("/rogue", r#"{"do":"sleep","ms":60}"#);
    host.until_agent("rogue", "its message is given up", |status| status["dead_letters"] == 1);
    let found = host.until("a rate", |host| {
        Some(stats(host)).filter(|stats| stats["messages"]["peak_per_second"].as_f64() > Some(0.0))
    });
    let (messages, times) = (&found["messages"], &found["delivery"]["since_start"]);
    assert_eq!(
        (&messages["handled"], &messages["failed"], &messages["accepted"]),
        (&json!(41), &json!(1), &json!(42)),
        "{found}"
    );
    assert_eq!(times["count"], 41, "what failed was not delivered");
    let us = |name: &str| times[name].as_f64().expect("a time");
    assert!(us("p50_us") > 0.0 && us("p50_us") < 60_000.0, "{times}");
    assert!(us("max_us") >= 60_000.0, "the one that slept: {times}");
    assert_eq!(found["delivery"]["last_minute"], *times);
    assert_eq!(found["failures"], json!([{"code": "trap", "count": 1}]), "{found}");
    let dead = &found["dead_letters"][0];
    assert_eq!((&dead["agent"], &dead["count"], &dead["bytes"]), (&json!("rogue"), &json!(1), &json!(13)), "{found}");
    assert!(found["process"]["resident_bytes"].as_u64() > Some(1 << 20), "{found}");
    assert!(found["process"]["cpu_seconds"].as_f64() > Some(0.0), "{found}");
    assert!(found["store"]["commits"]["count"].as_u64() > Some(0), "{found}");
    let idle = host.until("the rate falls to nothing", |host| {
        Some(stats(host)).filter(|stats| stats["messages"]["per_second"] == 0.0)
    });
    assert!(idle["messages"]["peak_per_second"].as_f64() > Some(0.0));
    assert_eq!(idle["delivery"]["since_start"], *times, "nothing is added while nothing happens");
    let (code, text, _) = host.caxton(&["stats"]);
    assert!(code == 0 && text.contains("messages/s    0.0, at most ") && text.contains("\ntrap "), "{text}");
}
