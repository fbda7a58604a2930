//! Agents that keep state in their memory.

use serde_json::json;

use crate::{agent, file, host};

fn remember(host: &caxton_tests::Host, text: &str) -> serde_json::Value {
    host.client().send(http::Method::POST, "/session", &[("caxton-conversation", "c")], text.to_owned()).json()
}

#[test]
fn memory_is_there_after_a_restart() {
    let host = host(&agent("session", "session", ""));
    assert_eq!(remember(&host, "one")["remembered"], 1);
    assert_eq!(remember(&host, "two")["remembered"], 2);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    assert_eq!(remember(&setup.start(), "three")["remembered"], 3);
}

#[test]
fn memory_is_saved_when_its_instance_is_idle() {
    let mut host = host(&agent("session", "session", "instances = { idle = \"1s\" }"));
    assert_eq!(remember(&host, "one")["remembered"], 1);
    host.until_agent("session", "its instance ends", |status| status["instances"] == 0);
    // Not even a power cut takes what was saved.
    let host = host.kill().start();
    assert_eq!(remember(&host, "two")["remembered"], 2);
}

#[test]
fn a_new_revision_restores_the_memory_of_the_old_one() {
    let mut host = host(&agent("session", "session", ""));
    for text in ["one", "two", "three"] {
        remember(&host, text);
    }
    host.edit(&file(&agent("session", "session", "limits = { memory = \"32MiB\" }")));
    host.until_agent("session", "the new revision runs", |status| status["revision"] == "session@2");
    assert_eq!(remember(&host, "four")["remembered"], 4);
}

#[test]
fn a_failed_restore_leaves_the_old_revision_with_its_memory() {
    let fragile = |config: &str| agent("fragile", "fragile", config);
    let mut host = host(&fragile(""));
    let client = host.client();
    client.post("/fragile", "first");
    host.edit(&file(&fragile("config = { restore = \"no thanks\" }")));
    host.until_agent("fragile", "the candidate fails", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("no thanks"))
    });
    assert_eq!(host.agent("fragile")["revision"], "fragile@1");
    assert_eq!(client.post("/fragile", "second").text(), "first", "its memory is as it was");
    host.edit(&file(&fragile("config = { other = \"x\" }")));
    host.until_agent("fragile", "a good revision runs", |status| status["revision"] == "fragile@3");
    assert_eq!(client.post("/fragile", "third").text(), "second");
}

/// Kills the host while the candidate restores the memory, which is on the disk by then.
#[test]
fn a_host_killed_in_a_handoff_has_the_memory_in_the_old_revision() {
    let limits = "limits = { cpu = \"60s\", time = \"60s\" }\n";
    let fragile = |lingers: &str| agent("fragile", "fragile", &format!("{limits}{lingers}"));
    let mut host = host(&fragile(""));
    host.client().post("/fragile", "first");
    host.edit(&file(&fragile("config = { lingers = \"40000\" }")));
    host.until("the memory is on the disk", |host| {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let store = rusqlite::Connection::open_with_flags(host.folder().join(".caxton/caxton.db"), flags).ok()?;
        let sql = "SELECT data FROM handoff WHERE agent = 'fragile' AND revision = 1";
        store.query_row(sql, [], |row| row.get::<_, Vec<u8>>(0)).ok()
    });
    assert_eq!(host.agent("fragile")["revision"], "fragile@1", "the candidate still restores");
    let setup = host.kill();
    // It goes on where the host ended, this time without haste on either side.
    setup.edit(&file(&fragile("config = { lingers = \"1\" }")));
    let mut host = setup.start();
    host.until_agent("fragile", "a good revision runs", |status| status["revision"] == "fragile@3");
    assert_eq!(host.client().post("/fragile", "second").text(), "first");
}

#[test]
fn a_revision_that_cannot_save_stays() {
    let fragile = |config: &str| agent("fragile", "fragile", config);
    let mut host = host(&fragile("snapshot = { save = \"idle\" }\nconfig = { save = \"not now\" }"));
    let client = host.client();
    client.post("/fragile", "first");
    host.edit(&file(&fragile("snapshot = { save = \"idle\" }\nconfig = { other = \"x\" }")));
    host.until_agent("fragile", "the handoff fails", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("not now"))
    });
    let reply = client.post("/fragile", "second");
    assert_eq!((reply.text().as_str(), reply.header("caxton-revision")), ("first", "fragile@1"));
}

/// Takes as long as ten failures with the pauses between them.
#[test]
fn the_last_good_revision_replaces_one_that_can_no_longer_start() {
    let settings = "rollback = { automatic = false }\ninstances = { idle = \"1s\" }\nmailbox = { attempts = 20, backoff = { max = \"1s\" } }\n";
    let route = "[[agents.fragile.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let declare = |more: &str| agent("fragile", "fragile", &format!("{settings}{more}")) + route;
    let mut host = host(&declare(""));
    let client = host.client();
    client.post("/fragile", "good");
    host.edit(&file(&declare("config = { dislikes = \"bad\" }")));
    host.until_agent("fragile", "the second runs", |status| status["revision"] == "fragile@2");
    assert_eq!(client.post("/fragile", "bad").text(), "good");
    host.until_agent("fragile", "its memory is saved", |status| status["instances"] == 0);
    assert_eq!(client.post("/later", "after").status.as_u16(), 202);
    host.until_agent("fragile", "the first runs again", |status| status["revision"] == "fragile@1");
    let why = host.agent("fragile")["waiting"].as_str().expect("it says why").to_owned();
    assert!(why.contains("config.dislikes"), "{why}");
    host.until_agent("fragile", "the message is handled", |status| status["handled"] == 3);
    assert_eq!(client.post("/fragile", "next").text(), "after");
}

#[test]
fn calls_during_a_handoff_wait_and_are_answered() {
    let host = host(&agent("session", "session", ""));
    let address = host.http.clone();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let caller = std::thread::spawn(move || {
        let client = caxton_tests::Client::new(&address, None);
        let mut answers = Vec::new();
        while stopped.try_recv().is_err() {
            let reply = client.send(http::Method::POST, "/session", &[("caxton-conversation", "c")], "x");
            answers.push((reply.status.as_u16(), reply.json()["remembered"].as_u64().unwrap_or(0)));
        }
        answers
    });
    let mut host = host;
    for (revision, memory) in [(2, "32MiB"), (3, "48MiB"), (4, "16MiB")] {
        host.edit(&file(&agent("session", "session", &format!("limits = {{ memory = \"{memory}\" }}"))));
        let wanted = json!(format!("session@{revision}"));
        host.until_agent("session", "the new revision runs", |status| status["revision"] == wanted);
    }
    stop.send(()).expect("the caller still calls");
    let answers = caller.join().expect("no call failed");
    let expected: Vec<(u16, u64)> = (1..=answers.len() as u64).map(|count| (200, count)).collect();
    let kept = 1_000;
    let cut: Vec<(u16, u64)> = expected.into_iter().map(|(status, count)| (status, count.min(kept))).collect();
    assert_eq!(answers, cut, "every call is answered once, in order, with all that was said before");
    let metrics = caxton_tests::Client::new(&host.admin, None).get("/metrics").text();
    assert!(metrics.contains("caxton_handoff_seconds_count{agent=\"session\"} 3"), "{metrics}");
}
