//! A data folder of an earlier version: it starts as it was left, and everything that it keeps can be gone back to.

use std::path::Path;
use std::process::Command;

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use crate::BINARY;

/// A folder that a host left which did not keep settings sparse yet, with its file: packed, since most of it is
/// components. Its agents:
///
/// | | |
/// |---|---|
/// | `counter` | three revisions with other settings, counted 2, 3 and 4 |
/// | `session` | three revisions with other settings, each of which was told something |
/// | `web` | two revisions with other bytes |
/// | `many` | eight revisions, by all strategies |
/// | `half` | a canary that waits half way |
/// | `refused` | a canary that was aborted, and is declared |
/// | `waits` | a mailbox that is paused, with two messages |
const FOLDER: &str = "data/before-sparse-settings.tar.gz";

fn setup_of_earlier_version() -> Setup {
    let setup = Setup::new(BINARY, "");
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER);
    let unpacked = Command::new("tar").arg("-xzf").arg(packed).arg("-C").arg(setup.folder()).status();
    assert!(unpacked.expect("tar starts").success());
    setup
}

/// The newest rollout of each agent: whose, which, how far.
fn rollouts(host: &Host) -> Vec<(String, u64, String)> {
    let all = host.api().get("/v1/rollouts").json();
    let told = |rollout: &Value| {
        let text = |key: &str| rollout[key].as_str().unwrap_or_default().to_owned();
        (text("agent"), rollout["rollout"].as_u64().unwrap_or_default(), text("status"))
    };
    all.as_array().into_iter().flatten().map(told).collect()
}

fn check_unchanged(host: &Host) {
    let revision = |name: &str| host.agent(name)["revision"].as_str().unwrap_or_default().to_owned();
    let names = ["counter", "session", "web", "many", "half", "refused", "waits"];
    let expected = ["counter@3", "session@3", "web@2", "many@8", "half@1", "refused@1", "waits@1"];
    assert_eq!(names.map(revision), expected);
    let known = [
        ("counter", 2, "completed"),
        ("half", 1, "paused"),
        ("many", 7, "completed"),
        ("refused", 1, "cancelled"),
        ("session", 2, "completed"),
        ("web", 1, "completed"),
    ];
    assert_eq!(rollouts(host), known.map(|(name, id, status)| (name.to_owned(), id, status.to_owned())));
    let (code, out, words) = host.caxton(&["diff", "-o", "json"]);
    assert_eq!(code, 0, "{words}");
    let found: Value = serde_json::from_str(&out).expect("JSON");
    let kinds: Vec<(&str, &str)> = found["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| (change["agent"].as_str().unwrap_or("-"), change["change"].as_str().unwrap_or("-")))
        .collect();
    assert_eq!(kinds, [("half", "under-way"), ("refused", "refused")], "{out}");
}

fn command(host: &Host, arguments: &[&str]) {
    let (code, out, words) = host.caxton(arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{words}");
}

#[test]
fn a_folder_of_an_earlier_version_starts_without_a_rollout_and_goes_on() {
    let host = setup_of_earlier_version().start();
    check_unchanged(&host);
    // Kept anew by this version, it is the same.
    let mut host = host.stop().1.start();
    check_unchanged(&host);
    let client = host.client();
    assert_eq!(client.post("/counter", r#"{"by": 1}"#).json()["count"], 10);
    command(&host, &["mailbox", "resume", "waits"]);
    host.until_agent("waits", "what waited is handled", |status| status["handled"] == 2);
    command(&host, &["rollout", "promote", "half"]);
    host.until_agent("half", "its rollout goes on", |status| status["revision"] == "half@2");
    command(&host, &["rollout", "retry", "refused"]);
    host.until("what was refused is tried again", |host| {
        rollouts(host).contains(&("refused".to_owned(), 2, "paused".to_owned())).then_some(())
    });
}

#[test]
fn an_undo_reaches_revisions_stored_by_an_earlier_version() {
    let mut host = setup_of_earlier_version().start();
    let client = host.client();
    assert_eq!(client.post("/session", "four").json()["total"], 4);
    command(&host, &["rollout", "undo", "counter"]);
    host.until_agent("counter", "the one before runs", |status| status["revision"] == "counter@2");
    host.until("its undo is done", |host| {
        rollouts(host).contains(&("counter".to_owned(), 3, "completed".to_owned())).then_some(())
    });
    command(&host, &["rollout", "undo", "counter", "--to", "1"]);
    host.until_agent("counter", "the first runs", |status| status["revision"] == "counter@1");
    assert_eq!(client.post("/counter", r#"{"by": 1}"#).json()["count"], 10, "what it keeps is the agent's");
    // The memory is that which the second handed over, with what it was told.
    command(&host, &["rollout", "undo", "session"]);
    host.until_agent("session", "the one before runs", |status| status["revision"] == "session@2");
    assert_eq!(client.post("/session", "three again").json()["total"], 3);
    command(&host, &["rollout", "undo", "web"]);
    host.until_agent("web", "the bytes before run", |status| status["revision"] == "web@1");
    let reply = client.get("/web");
    assert_eq!((reply.status.as_u16(), reply.header("caxton-revision")), (200, "web@1"), "{}", reply.text());
    assert_ne!(host.agent("web")["digest"], json!(null));
}
