//! Keys with a time to live: gone for everybody at once, from the disk soon, and kept over restarts and in rehearsals.

use ::http::Method;
use caxton_tests::Host;
use serde_json::{Value, json};

use crate::{agent, host};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn rogue() -> Host {
    host(&agent("rogue", "rogue", ""))
}

fn act(host: &Host, action: &Value) -> Value {
    let answer = host.client().post("/rogue", action.to_string());
    assert_eq!(answer.status.as_u16(), 200, "{action}: {}", answer.text());
    answer.json()
}

fn set_for(host: &Host, key: &str, value: &str, ms: u64) {
    assert_eq!(act(host, &json!({ "do": "set-for", "key": key, "value": value, "ms": ms }))["written"], 1);
}

/// The value of a key as the agent reads it.
fn get(host: &Host, key: &str) -> Value {
    act(host, &json!({ "do": "get", "key": key }))["value"].clone()
}

fn keys(host: &Host) -> Value {
    act(host, &json!({ "do": "keys" }))["keys"].clone()
}

/// Returns the keys as an operator lists them, with the times at which they expire.
fn list_keys(host: &Host) -> Vec<(String, Option<u64>)> {
    let (code, out, words) = host.caxton(&["state", "ls", "rogue", "-o", "json"]);
    assert_eq!(code, 0, "{words}");
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    let entry = |entry: &Value| (entry["key"].as_str().unwrap_or_default().to_owned(), entry["expires_at"].as_u64());
    listed["keys"].as_array().into_iter().flatten().map(entry).collect()
}

fn bytes(host: &Host) -> u64 {
    host.agent("rogue")["state_bytes"].as_u64().expect("a number")
}

#[test]
fn an_expired_key_is_invisible_at_once_and_soon_deleted_from_disk() {
    let mut host = rogue();
    set_for(&host, "session", "ann", HOUR);
    set_for(&host, "short", "bert", 10 * MINUTE);
    act(&host, &json!({ "do": "set", "key": "stays", "value": "1" }));
    assert_eq!(keys(&host), json!(["session", "short", "stays"]));
    let before = list_keys(&host);
    assert!(before[0].1 > before[1].1 && before[1].1.is_some() && before[2].1.is_none(), "{before:?}");
    assert_eq!(bytes(&host), 25);
    host.order("clock 601");
    assert_eq!((get(&host, "short"), get(&host, "session")), (Value::Null, json!("ann")));
    assert_eq!(keys(&host), json!(["session", "stays"]));
    assert_eq!(list_keys(&host), [before[0].clone(), before[2].clone()]);
    let (code, _, words) = host.caxton(&["state", "get", "rogue", "short"]);
    assert_eq!(code, 3, "{words}");
    assert_eq!(host.caxton(&["state", "rm", "rogue", "short"]).0, 3);
    host.until("it is removed from the disk", |host| (bytes(host) == 16).then_some(()));
    let (code, out, _) = host.caxton(&["store", "check"]);
    assert_eq!(code, 0, "{out}");
    // What is not read at all goes too.
    host.order("clock 3601");
    host.until("it is removed from the disk", |host| (bytes(host) == 6).then_some(()));
    assert_eq!(host.caxton(&["state", "ls", "rogue"]).1.lines().count(), 2, "a head and a key");
}

#[test]
fn a_write_clears_the_time_to_live_and_an_increment_keeps_it() {
    let host = rogue();
    for key in ["set", "counted", "anew", "removed"] {
        set_for(&host, key, "1", MINUTE);
    }
    act(&host, &json!({ "do": "set", "key": "set", "value": "2" }));
    assert_eq!(act(&host, &json!({ "do": "increment", "key": "counted" }))["sum"], 2);
    assert_eq!(host.caxton(&["state", "set", "rogue", "anew", "3"]).0, 0);
    act(&host, &json!({ "do": "remove", "key": "removed" }));
    let times: Vec<bool> = list_keys(&host).iter().map(|(_, at)| at.is_some()).collect();
    assert_eq!(times, [false, true, false], "anew, counted, set");
    host.order("clock 61");
    assert_eq!((get(&host, "set"), get(&host, "anew"), get(&host, "counted")), (json!("2"), json!("3"), Value::Null));
    assert_eq!(act(&host, &json!({ "do": "increment", "key": "counted" }))["sum"], 1, "it begins again");
    assert_eq!(list_keys(&host)[1], ("counted".to_owned(), None), "and stays");
}

#[test]
fn a_handler_sees_its_own_expiring_writes() {
    let host = rogue();
    let told = act(
        &host,
        &json!({ "do": "steps", "steps": [
            { "do": "set-for", "key": "n", "value": "5", "ms": HOUR },
            { "do": "increment", "key": "n" },
            { "do": "set-for", "key": "over", "value": "1", "ms": 0 },
            { "do": "get", "key": "over" },
            { "do": "keys" },
            { "do": "increment", "key": "over", "by": 7 },
        ] }),
    );
    assert_eq!((&told[1]["sum"], &told[3]["value"]), (&json!(6), &Value::Null), "{told}");
    assert_eq!((&told[4]["keys"], &told[5]["sum"]), (&json!(["n"]), &json!(7)), "{told}");
    let listed = list_keys(&host);
    assert!(listed[0].1.is_some() && listed[1] == ("over".to_owned(), None), "{listed:?}");
}

#[test]
fn times_to_live_continue_over_restarts() {
    let host = rogue();
    set_for(&host, "far", "1", HOUR);
    set_for(&host, "over", "1", 1);
    let before = list_keys(&host);
    let mut host = host.kill().start();
    assert_eq!(keys(&host), json!(["far"]));
    assert_eq!(list_keys(&host), before[..1]);
    host.until("what was over is removed", |host| (bytes(host) == 4).then_some(()));
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    // The part of a backup that the time is.
    assert_eq!(setup.caxton(&["store", "backup", "copy.db"]).0, 0);
    assert_eq!(setup.caxton(&["store", "restore", "copy.db", "--force"]).0, 0);
    let host = setup.start();
    assert_eq!(list_keys(&host), before[..1]);
    host.order("clock 3601");
    assert_eq!(keys(&host), json!([]));
}

#[test]
fn a_rehearsal_sees_times_to_live_and_changes_none() {
    let toml = |more: &str| {
        agent("rogue", "rogue", &format!("rollback = {{ rehearse = 10 }}\n{more}"))
            + "[agents.rogue.deploy]\nstrategy = \"immediate\"\n"
    };
    let mut host = host(&toml(""));
    set_for(&host, "live", "1", HOUR);
    set_for(&host, "over", "1", 10 * MINUTE);
    // Handled once more by the next revision, on a copy.
    let reads = json!({ "do": "steps", "steps": [
        { "do": "increment", "key": "live" },
        { "do": "set-for", "key": "own", "value": "1", "ms": MINUTE },
    ] });
    act(&host, &reads);
    host.order("clock 601");
    let before = list_keys(&host);
    host.edit(&format!("caxton = 1\n{}", toml("config = { language = \"en\" }")));
    host.until_agent("rogue", "the next revision runs", |status| status["revision"] == "rogue@2");
    assert_eq!(list_keys(&host), before, "what was rehearsed is on a copy");
    assert_eq!(get(&host, "live"), "2");
}

/// A limiter at `/limited`, and an agent behind it.
fn limiter(backend: &str) -> Host {
    let config = format!("config = {{ limit = \"3\", window = \"60\", backend = \"{backend}\" }}");
    let allow = "allow = { send = [\"echo\", \"rogue\"] }";
    let own = agent("limited", "limiter", &format!("{config}\n{allow}"));
    host(&format!("{own}{}{}", agent("echo", "echo", ""), agent("rogue", "rogue", "")))
}

#[test]
fn a_limiter_counts_in_keys_that_expire() {
    let mut host = limiter("echo");
    let client = host.client();
    let call = |key: &str| {
        let answer = client.send(Method::POST, "/limited", &[("x-api-key", key)], "hello");
        (answer.status.as_u16(), answer.header("x-remaining").to_owned())
    };
    for left in ["2", "1", "0"] {
        assert_eq!(call("ann"), (200, left.to_owned()));
    }
    assert_eq!(call("ann"), (429, "0".to_owned()));
    assert_eq!(call("bert"), (200, "2".to_owned()), "each has a count");
    host.order("clock 61");
    assert_eq!(call("ann"), (200, "2".to_owned()), "the next window");
    host.until_agent("limited", "the others' counts are gone", |status| status["state_bytes"] == 10);
}

#[test]
fn a_limiter_counts_failed_requests() {
    let host = limiter("rogue");
    let client = host.client();
    for _ in 0..3 {
        let answer = client.send(Method::POST, "/limited", &[("x-api-key", "ann")], r#"{"do":"trap"}"#);
        assert_eq!(answer.status.as_u16(), 503, "{}", answer.text());
    }
    let answer = client.send(Method::POST, "/limited", &[("x-api-key", "ann")], r#"{"do":"trap"}"#);
    assert_eq!(answer.status.as_u16(), 429);
    assert_eq!(host.caxton(&["state", "get", "limited", "count/ann"]).1.trim(), "3");
    // Also those that come at once, each once.
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let address = host.http.clone();
            std::thread::spawn(move || {
                let client = caxton_tests::Client::new(&address, None);
                let call =
                    |_: &u32| client.send(Method::POST, "/limited", &[("x-api-key", "bert")], "{}").status.as_u16();
                (0..5).map(|number| call(&number)).filter(|status| *status != 429).count()
            })
        })
        .collect();
    let through: usize = callers.into_iter().map(|caller| caller.join().expect("it ends")).sum();
    assert_eq!((through, host.caxton(&["state", "get", "limited", "count/bert"]).1.trim()), (3, "3"));
}

#[test]
fn a_key_that_is_set_by_hand_may_have_a_time_to_live() {
    let host = rogue();
    let (code, _, words) = host.caxton(&["state", "set", "rogue", "note", "closed", "--ttl", "10m"]);
    assert!(code == 0 && words.contains("gone in 10m"), "{words}");
    assert_eq!(get(&host, "note"), json!("closed"));
    let at = list_keys(&host)[0].1.expect("it has a time");
    let (_, out, words) = host.caxton(&["state", "get", "rogue", "note"]);
    assert_eq!((out.as_str(), words.contains("note is gone at 2")), ("closed", true), "{words}");
    let (_, out, _) = host.caxton(&["state", "get", "rogue", "note", "-o", "json"]);
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(shown, json!({ "key": "note", "bytes": 6, "value": "closed", "expires_at": at }));
    host.order("clock 601");
    assert_eq!((get(&host, "note"), host.caxton(&["state", "get", "rogue", "note"]).0), (Value::Null, 3));
    // Without a time it stays, and says nothing of one.
    assert_eq!(host.caxton(&["state", "set", "rogue", "note", "open"]).0, 0);
    let (_, out, words) = host.caxton(&["state", "get", "rogue", "note"]);
    assert!(out == "open" && words.is_empty(), "{out} {words}");
    let (code, _, words) = host.caxton(&["state", "set", "rogue", "note", "open", "--ttl", "10"]);
    assert!(code == 2 && words.contains("--ttl: the unit after `10` is missing"), "{code} {words}");
}
