//! Migrations of state: versions of its format, the conversion, and the way back.

use std::path::Path;

use caxton_tests::Host;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::{BINARY, agent, file};

/// The agent `notes` in a format, by a guest; `more` are keys of its table and whole tables.
fn notes(guest: &str, format: &str, more: &str) -> String {
    let deploy =
        if more.contains("deploy") { "" } else { "deploy = { strategy = \"blue-green\", keep-warm = \"0s\" }\n" };
    file(&agent("notes", guest, &format!("state = {{ {format} }}\nlimits = {{ writes = 5000 }}\n{deploy}{more}")))
}

fn version_1(more: &str) -> String {
    notes("shapes-old", "version = 1", more)
}

fn version_2(more: &str) -> String {
    notes("shapes-new", "version = 2", more)
}

fn ask(host: &Host, content: &Value) -> Value {
    let reply = host.client().post("/notes", content.to_string());
    assert_eq!(reply.status.as_u16(), 200, "{content}: {}", reply.text());
    serde_json::from_str(&reply.text()).unwrap_or(Value::Null)
}

/// Starts a host of version 1 with this many notes.
fn start_with_notes(count: u64) -> Host {
    let host = Host::start(BINARY, &version_1(""));
    ask(&host, &json!({ "do": "fill", "from": 0, "count": count }));
    host
}

fn newest_rollout(host: &Host) -> Value {
    host.api().get("/v1/rollouts/notes").json()[0].clone()
}

/// Waits until the rollout to a revision has moved its traffic, or ended. Returns it.
fn until_moved(host: &mut Host, to: &str) -> Value {
    host.until(&format!("the rollout to {to} moves"), |host| {
        Some(newest_rollout(host))
            .filter(|rollout| rollout["to"] == to && (rollout["moved"] == true || rollout["ended"] == true))
    })
}

/// Waits until the rollout to a revision has ended: an undo before that takes it back and begins no rollout of its own.
fn until_ended(host: &mut Host, to: &str) {
    host.until(&format!("the rollout to {to} ends"), |host| {
        Some(newest_rollout(host)).filter(|rollout| rollout["to"] == to && rollout["ended"] == true)
    });
}

fn events(host: &Host, kind: &str) -> Vec<Value> {
    let events = host.api().get("/v1/events?agent=notes&limit=1000").json();
    let events = events.as_array().expect("a list").iter();
    events.filter(|event| event["kind"] == kind).map(|event| event["data"].clone()).collect()
}

#[test]
fn a_state_is_migrated_once_and_restored_by_an_undo() {
    // With fewer messages than the usual minimum the rollout would be watched for minutes before it ends.
    let unwatched = "rollback = { min-messages = 0 }\n";
    let mut host = Host::start(BINARY, &version_1(unwatched));
    ask(&host, &json!({ "do": "fill", "from": 0, "count": 1_500 }));
    host.edit(&version_2(unwatched));
    until_ended(&mut host, "notes@2");
    assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 1_500, "other": 0 }));
    let kept = events(&host, "state.kept");
    assert_eq!((kept.len(), &kept[0]["keys"], &kept[0]["versions"]), (1, &json!(1_500), &json!([1])), "{kept:?}");
    let migrated = &events(&host, "state.migrated")[0];
    assert_eq!((&migrated["keys"], &migrated["steps"]), (&json!(1_500), &json!(4)), "{migrated}");
    for n in 0..24 {
        ask(&host, &json!({ "do": "put", "n": n, "text": "later" }));
    }
    // An undo says what stands in its way, and what the way out costs.
    let (code, _, why) = host.caxton(&["rollout", "undo", "notes"]);
    assert!(code == 4 && why.contains("cannot read version 2"), "{code} {why}");
    assert!(why.contains("--restore-state") && why.contains("(1500 keys)") && why.contains("24 keys"), "{why}");
    let (code, _, why) = host.caxton(&["rollout", "undo", "notes", "--restore-state"]);
    assert_eq!(code, 0, "{why}");
    until_ended(&mut host, "notes@1");
    assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 1_500, "other": 0 }));
    assert_eq!(ask(&host, &json!({ "do": "get", "n": 3 }))["text"], "note 3");
    // What was written meanwhile is kept in turn.
    let (code, _, why) = host.caxton(&["rollout", "undo", "notes", "--to", "2", "--restore-state"]);
    assert_eq!(code, 0, "{why}");
    until_ended(&mut host, "notes@2");
    assert_eq!(ask(&host, &json!({ "do": "get", "n": 3 }))["text"], "later");
}

#[test]
fn a_migration_that_fails_leaves_the_state_as_it_was() {
    let mut host = start_with_notes(900);
    let config = |text: &str| version_2(&format!("config = {{ step = \"400\", {text} }}"));
    let cases = [
        ("fail-at = \"850\"", "is the one to fail at"),
        ("like = \"traps\"", "trap"),
        ("like = \"loops\"", "cpu"),
        ("like = \"sends\"", "sends"),
    ];
    for (nth, (text, reason)) in cases.into_iter().enumerate() {
        host.edit(&config(text));
        let id = nth as u64 + 1;
        let ended = host.until("the rollout ends", |host| {
            Some(newest_rollout(host)).filter(|rollout| rollout["rollout"] == id && rollout["ended"] == true)
        });
        let why = ended["why"].as_str().unwrap_or_default();
        assert!(ended["status"] == "failed" && why.contains("its migration failed"), "{text}: {ended}");
        assert!(why.contains(reason), "{text}: {why}");
        assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 900, "other": 0 }), "{text}");
        assert_eq!(host.agent("notes")["revision"], "notes@1");
    }
    host.edit(&version_2(""));
    let done = until_moved(&mut host, "notes@6");
    assert_eq!(done["moved"], true, "{done}");
    assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 900, "other": 0 }));
}

#[test]
fn an_unreadable_state_format_is_refused_by_check_and_apply() {
    let host = start_with_notes(3);
    for (toml, strategy, why) in [
        (version_2("deploy = { strategy = \"rolling\" }"), "rolling", "use `strategy = \"blue-green\"`"),
        (version_2("deploy = { strategy = \"canary\" }"), "canary", "use `strategy = \"blue-green\"`"),
        (notes("shapes-old", "version = 2", ""), "blue-green", "name it in `state.reads`"),
    ] {
        host.edit(&toml);
        let (code, _, said) = host.caxton(&["check"]);
        assert!(code == 2 && said.contains(why), "{strategy}: {code} {said}");
        let (code, _, said) = host.caxton(&["apply"]);
        assert!(code != 0 && said.contains(why), "{strategy}: {code} {said}");
        assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 3, "other": 0 }), "{strategy}");
        assert_eq!(host.agent("notes")["revision"], "notes@1", "{strategy}");
    }
    // A host that begins with such a file goes on with what ran.
    let mut host = host.kill().start();
    host.until_agent("notes", "what ran runs", |status| status["revision"] == "notes@1");
    assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 3, "other": 0 }));
    // The way out that is told.
    host.edit(&notes("shapes-old", "version = 1, reads = [2]", ""));
    let (code, _, said) = host.caxton(&["apply"]);
    assert_eq!(code, 0, "what failed before is no matter any more: {said}");
    let (code, _, said) = host.caxton(&["check"]);
    assert_eq!(code, 0, "{said}");
}

/// The number of notes in each form, as the store has them, and whether they are being converted.
fn sample(folder: &Path) -> (u64, bool) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let store = Connection::open_with_flags(folder.join(".caxton/caxton.db"), flags).expect("the store is there");
    let converted = "SELECT count(*) FROM state WHERE agent = 'notes' AND substr(value, 1, 1) = x'7b'";
    let unfinished = "SELECT EXISTS (SELECT 1 FROM state_copy WHERE unfinished)";
    let count: i64 = store.query_row(converted, [], |row| row.get(0)).expect("notes");
    (count.unsigned_abs(), store.query_row(unfinished, [], |row| row.get(0)).expect("a copy"))
}

#[test]
fn a_killed_migration_continues_before_any_message() {
    // On a busy machine the host may be past the moment by the time that it is killed: then there is another round.
    for _ in 0..5 {
        let mut host = start_with_notes(4_000);
        host.edit(&version_2("config = { step = \"5\" }"));
        let folder = host.folder().to_owned();
        host.until_at_once("some are converted", || sample(&folder).0 > 0);
        let setup = host.kill();
        let (converted, unfinished) = sample(&folder);
        let host = setup.start();
        let audit = ask(&host, &json!({ "do": "audit" }));
        assert!(audit == json!({ "own": 4_000, "other": 0 }), "{audit}");
        if unfinished && converted < 4_000 {
            return;
        }
    }
    panic!("no host was killed in the middle");
}

#[test]
fn messages_wait_for_the_end_of_a_migration() {
    let mut host = start_with_notes(3_000);
    let address = host.http.clone();
    let caller = std::thread::spawn(move || {
        let client = caxton_tests::Client::new(&address, None);
        let put =
            |n: u64| client.post("/notes", json!({ "do": "put", "n": n, "text": format!("put {n}") }).to_string());
        (0..400).map(|n| put(n).status.as_u16()).collect::<Vec<_>>()
    });
    host.edit(&version_2("config = { step = \"50\" }"));
    until_moved(&mut host, "notes@2");
    let answers = caller.join().expect("it calls");
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 3_000, "other": 0 }));
    for n in [0, 200, 399] {
        assert_eq!(ask(&host, &json!({ "do": "get", "n": n }))["text"], format!("put {n}"));
    }
}

/// Starts a host that migrates this many notes, each in a step of its own.
fn start_migrating(count: u64) -> Host {
    let mut host = start_with_notes(count);
    host.edit(&version_2("config = { step = \"1\" }"));
    let folder = host.folder().to_owned();
    host.until_at_once("some are converted", || sample(&folder).0 > 0);
    host
}

#[test]
fn an_abort_or_an_edit_in_a_migration_leaves_the_state_as_it_was() {
    for abort in [true, false] {
        let mut host = start_migrating(4_000);
        if abort {
            let (code, _, said) = host.caxton(&["rollout", "abort", "notes"]);
            assert_eq!(code, 0, "{said}");
        } else {
            host.edit(&version_1(""));
        }
        let ended = host
            .until("the rollout ends", |host| Some(newest_rollout(host)).filter(|rollout| rollout["ended"] == true));
        assert_eq!(ended["status"], "cancelled", "{ended}");
        assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 4_000, "other": 0 }), "{ended}");
        assert_eq!(host.agent("notes")["revision"], "notes@1");
    }
}

#[test]
fn a_half_converted_state_is_restored_when_the_declaration_changed() {
    let echo = file(&agent("echo", "echo", ""));
    // The file that it begins with, and the one after that.
    for (first, then) in [(version_1(""), None), (echo, Some(version_1("")))] {
        let setup = start_migrating(4_000).kill();
        setup.edit(&first);
        let mut host = setup.start();
        if let Some(then) = then {
            host.edit(&then);
        }
        host.until("the old revision runs", |host| {
            let reply = host.client().post("/notes", json!({ "do": "audit" }).to_string());
            (reply.status.as_u16() == 200).then(|| assert_eq!(reply.json(), json!({ "own": 4_000, "other": 0 })))
        });
        let host = host.kill().start();
        assert_eq!(ask(&host, &json!({ "do": "audit" })), json!({ "own": 4_000, "other": 0 }), "after another restart");
    }
}

#[test]
fn a_file_is_checked_against_the_revision_that_has_the_traffic() {
    let warm = "deploy = { strategy = \"blue-green\", keep-warm = \"10m\" }";
    let mut host = start_with_notes(3);
    host.edit(&notes("shapes-old", "version = 1, reads = [2]", warm));
    until_moved(&mut host, "notes@2");
    assert_eq!(newest_rollout(&host)["ended"], false, "the one before is warm");
    host.edit(&notes("shapes-old", "version = 2, reads = [1]", "deploy = { strategy = \"canary\" }"));
    let (code, _, said) = host.caxton(&["check"]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn compatible_formats_share_traffic_and_an_undo_needs_no_stored_copy() {
    let split =
        "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1s\" }] }\nrollback = { min-messages = 0 }";
    let mut host = Host::start(BINARY, &notes("shapes-old", "version = 1, reads = [2]", ""));
    ask(&host, &json!({ "do": "fill", "from": 0, "count": 10 }));
    host.edit(&notes("shapes-old", "version = 2, reads = [1]", split));
    until_ended(&mut host, "notes@2");
    ask(&host, &json!({ "do": "put", "n": 3, "text": "later" }));
    let kept = events(&host, "state.kept");
    assert_eq!((kept.len(), &kept[0]["keys"]), (1, &json!(10)), "{kept:?}");
    let (code, _, said) = host.caxton(&["rollout", "undo", "notes", "--to", "notes@1", "--no-rehearse"]);
    assert_eq!(code, 0, "{said}");
    until_moved(&mut host, "notes@1");
    assert_eq!(ask(&host, &json!({ "do": "get", "n": 3 }))["text"], "later", "nothing was put back");
}

#[test]
fn memory_is_discarded_by_a_migration_and_restored_by_an_undo() {
    let session = |more: &str| file(&agent("session", "session", more));
    let remember = |host: &Host, text: &str| {
        let headers = [("caxton-conversation", "c")];
        host.client().send(http::Method::POST, "/session", &headers, text.to_owned()).json()["remembered"].clone()
    };
    let mut host = Host::start(BINARY, &session(""));
    (1..=3).for_each(|nth| assert_eq!(remember(&host, "old"), nth));
    host.edit(&session("state = { version = 1, reads = [0] }"));
    host.until_agent("session", "the new version runs", |status| status["revision"] == "session@2");
    assert_eq!((remember(&host, "new"), remember(&host, "new")), (json!(4), json!(5)));
    let (code, _, said) = host.caxton(&["rollout", "undo", "session"]);
    assert!(code == 4 && said.contains("cannot read version 1"), "{said}");
    let (code, _, said) = host.caxton(&["rollout", "undo", "session", "--restore-state"]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("session", "the old version runs", |status| status["revision"] == "session@1");
    assert_eq!(remember(&host, "again"), 4, "what it remembered when it was replaced");
}

#[test]
fn http_calls_wait_for_a_migration_and_none_is_lost() {
    let web = |version: u32| {
        let settings = format!(
            "state = {{ version = {version} }}\ndeploy = {{ strategy = \"blue-green\", keep-warm = \"0s\" }}\n\
             allow = {{ send = [\"echo\"] }}\nconfig = {{ peer = \"echo\" }}"
        );
        let echo = agent("echo", "echo", "");
        file(&(agent("notes", "web-agent", &settings) + "[[agents.notes.http]]\nroute = \"/web/{*rest}\"\n" + &echo))
    };
    let mut host = Host::start(BINARY, &web(1));
    let address = host.http.clone();
    let caller = std::thread::spawn(move || {
        let client = caxton_tests::Client::new(&address, None);
        let call = |_| client.get("/web/status?code=200");
        (0..300).map(call).map(|reply| (reply.status.as_u16(), reply.text())).collect::<Vec<_>>()
    });
    host.edit(&web(2));
    until_moved(&mut host, "notes@2");
    let answers = caller.join().expect("it calls");
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    // 300 calls counted one each, and the migration from version 1 added one in each of its two steps.
    assert_eq!(host.client().get("/web/status?code=200").text().trim(), "303");
    assert_eq!(events(&host, "state.migrated")[0]["steps"], 2);
}
