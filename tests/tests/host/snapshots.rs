//! The memory of stateful agents: of any size up to its bound, and not lost when it cannot be saved.

use serde_json::{Value, json};

use caxton_tests::{Host, Setup};

use crate::{BINARY, agent, file, host};

/// The length of a remembered text, below the bound of a message.
const TEXT: usize = 250_000;

/// Makes `session` remember this many texts. Returns the number that it remembers then.
fn remember(host: &Host, texts: usize) -> u64 {
    let client = host.client();
    let mut remembered = 0;
    for _ in 0..texts {
        let headers = [("caxton-conversation", "c")];
        let reply = client.send(http::Method::POST, "/session", &headers, "x".repeat(TEXT));
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
        remembered = reply.json()["remembered"].as_u64().expect("a count");
    }
    remembered
}

fn session(more: &str) -> String {
    agent("session", "session", more)
}

/// The events of one kind.
fn events(host: &Host, kind: &str) -> Vec<Value> {
    let all = host.api().get("/v1/events?limit=1000").json();
    all.as_array().expect("a list").iter().filter(|event| event["kind"] == kind).cloned().collect()
}

/// Keeps a memory far above the bound of a message, and above one commit.
#[test]
fn a_large_memory_survives_idling_a_kill_a_reload_and_a_stop() {
    let settings = "instances = { idle = \"1s\" }\n";
    let mut host = host(&session(settings));
    assert_eq!(remember(&host, 30), 30);
    host.until_agent("session", "it is saved at rest", |status| status["instances"] == 0);
    let mut host = host.kill().start();
    assert_eq!(remember(&host, 1), 31);
    host.edit(&file(&session(&format!("{settings}config = {{ keep = \"500\" }}"))));
    host.until_agent("session", "the new revision runs", |status| status["revision"] == "session@2");
    assert_eq!(remember(&host, 1), 32);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let host = setup.start();
    assert_eq!(remember(&host, 1), 33);
    assert_eq!(events(&host, "snapshot.not-saved"), [Value::Null; 0]);
    let (code, said, _) = host.caxton(&["store", "check"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_memory_above_its_limit_stays_in_its_instance_until_the_limit_is_raised() {
    let settings = |max: &str| format!("instances = {{ idle = \"1s\" }}\nsnapshot = {{ max = \"{max}\" }}\n");
    let mut host = host(&session(&settings("1MB")));
    assert_eq!(remember(&host, 3), 3);
    host.until_agent("session", "it is saved at rest", |status| status["instances"] == 0);
    assert_eq!(remember(&host, 3), 6);
    let failed = host.until("a save fails", |host| events(host, "snapshot.not-saved").first().cloned());
    let why = failed["data"]["reason"].as_str().expect("a reason");
    assert!(why.contains("more than snapshot.max (1000000 bytes)"), "{why}");
    let metrics = host.api().get("/metrics").text();
    assert!(metrics.contains("caxton_snapshot_failures_total{agent=\"session\",what=\"save\"}"), "{metrics}");
    assert_eq!(remember(&host, 1), 7, "it goes on");
    assert_eq!(host.agent("session")["instances"], 1);
    // A reload needs the memory: the new revision is refused, and nothing happens to the one that runs.
    host.edit(&file(&session(&format!("{}config = {{ keep = \"500\" }}", settings("1MB")))));
    host.until_agent("session", "the handoff is refused", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("snapshot.max"))
    });
    assert_eq!(host.agent("session")["revision"], "session@1");
    assert_eq!(remember(&host, 1), 8);
    // In place.
    host.edit(&file(&session(&settings("10MB"))));
    host.until_agent("session", "it is saved at rest", |status| status["instances"] == 0);
    assert_eq!(host.agent("session")["revision"], "session@1");
    assert_eq!(remember(&host, 1), 9);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    assert_eq!(remember(&setup.start(), 1), 10);
}

#[test]
fn a_stop_that_loses_memory_reports_it_and_the_last_snapshot_remains() {
    let settings = |max: &str| session(&format!("instances = {{ idle = \"1s\" }}\nsnapshot = {{ max = \"{max}\" }}\n"));
    let mut host = host(&settings("1MB"));
    assert_eq!(remember(&host, 3), 3);
    host.until_agent("session", "it is saved at rest", |status| status["instances"] == 0);
    assert_eq!(remember(&host, 3), 6);
    host.signal(rustix::process::Signal::TERM);
    assert_eq!(host.ended(), 1);
    let said = host.output();
    assert!(said.contains("did not save its memory") && said.contains("lost: session"), "{said}");
    let host = host.kill().start();
    assert_eq!(remember(&host, 1), 4, "as it was saved last");
    assert_eq!(events(&host, "host.stopped")[0]["data"]["not_saved"], json!(["session"]));
}

#[test]
fn a_save_that_fails_or_traps_is_reported() {
    for (config, why) in [
        ("save = \"not today\"", "it refused to save its memory: not today"),
        ("trap = \"save\"", "and its instance ended with it"),
    ] {
        let mut host = host(&agent(
            "fragile",
            "fragile",
            &format!("instances = {{ idle = \"1s\" }}\nsnapshot = {{ save = \"idle\" }}\nconfig = {{ {config} }}\n"),
        ));
        host.client().post("/fragile", "first");
        let failed = host.until("the save fails", |host| events(host, "snapshot.not-saved").first().cloned());
        assert!(failed["data"]["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{failed}");
    }
}

#[test]
fn a_snapshot_that_cannot_be_restored_is_kept() {
    let declare = |config: &str| {
        let settings = "instances = { idle = \"1s\" }\nmailbox = { attempts = 1 }\n";
        agent("fragile", "fragile", &format!("{settings}{config}"))
    };
    let mut host = host(&declare(""));
    host.client().post("/fragile", "kept");
    host.until_agent("fragile", "it is saved at rest", |status| status["instances"] == 0);
    host.edit(&file(&declare("config = { restore = \"no thanks\" }")));
    let failed = host.until("a restore fails", |host| events(host, "snapshot.not-restored").first().cloned());
    assert!(failed["data"]["reason"].as_str().is_some_and(|why| why.contains("no thanks")), "{failed}");
    host.until_agent("fragile", "the new revision is refused", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("no thanks"))
    });
    assert_eq!(host.client().post("/fragile", "next").text(), "kept");
}

/// Undoes to a revision that cannot restore its saved memory: the current revision goes on with all of its own.
#[test]
fn an_undo_that_cannot_restore_changes_nothing() {
    let declare = |config: &str| agent("fragile", "fragile", &format!("rollback = {{ automatic = false }}\n{config}"));
    let mut host = host(&declare("config = { dislikes = \"handed\" }"));
    host.client().post("/fragile", "handed");
    host.edit(&file(&declare("config = { other = \"x\" }")));
    host.until_agent("fragile", "the second runs", |status| status["revision"] == "fragile@2");
    assert_eq!(host.client().post("/fragile", "newest").text(), "handed");
    host.caxton(&["rollout", "undo", "fragile"]);
    host.until("the memory is not taken up", |host| events(host, "snapshot.not-restored").first().cloned());
    host.until_agent("fragile", "the second goes on", |status| status["revision"] == "fragile@2");
    assert_eq!(host.client().post("/fragile", "last").text(), "newest");
}

#[test]
fn check_reports_snapshot_limits_that_cannot_hold() {
    let check = |toml: &str| {
        let setup = Setup::new(BINARY, &file(toml));
        let (code, out, err) = setup.caxton(&["check", "--file", "caxton.toml"]);
        (code, out + &err)
    };
    let (code, said) = check(&session("snapshot = { max = \"128MiB\" }"));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("snapshot.max = 128MiB is more than limits.memory = 64MiB"), "{said}");
    let (code, said) = check(&agent("echo", "echo", "snapshot = { max = \"1MiB\" }"));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("it keeps nothing in its memory"), "{said}");
    let (code, said) = check(&session("limits = { memory = \"256MiB\" }"));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("note: it may have more in its memory (256MiB, limits.memory) than it may save"), "{said}");
    let (code, said) = check(&format!("[defaults.snapshot]\nmax = \"1MiB\"\n{}", agent("echo", "echo", "")));
    assert_eq!(code, 0, "{said}");
}
