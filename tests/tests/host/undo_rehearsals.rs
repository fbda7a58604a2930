//! The rehearsal before an undo: the earlier revision may not read the state that the later one wrote.

use caxton_tests::Host;
use serde_json::{Value, json};

use crate::{agent, file, host};

/// Things that are remembered, and messages that are rehearsed.
const THINGS: u64 = 25;

/// An agent that keeps its state in this format.
fn formats(format: u32, config: &str, rollback: &str) -> String {
    let config = format!("config = {{ format = \"{format}\"{config} }}");
    let rollback = format!("rollback = {{ rehearse = {THINGS}{rollback} }}");
    agent("formats", "formats", &format!("deploy = {{ strategy = \"immediate\" }}\n{config}\n{rollback}\n"))
}

/// Stores a thing and returns how many there are.
fn remember(host: &Host, thing: u64) -> u64 {
    let reply = host.client().post("/formats", json!({ "remember": format!("thing {thing}") }).to_string());
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    reply.json()["have"].as_u64().expect("a number")
}

fn remember_all(host: &Host) {
    (1..=THINGS).for_each(|thing| assert_eq!(remember(host, thing), thing));
}

/// An agent of which the second format has remembered all, after the first had nothing.
fn with_all_in_the_second(rollback: &str) -> Host {
    let mut host = host(&formats(1, "", rollback));
    host.edit(&file(&formats(2, "", rollback)));
    host.until_agent("formats", "the second runs", |status| status["revision"] == "formats@2");
    remember_all(&host);
    host
}

/// Returns the report of the last rehearsal.
fn last_rehearsal(host: &mut Host, agent: &str, revision: u64) -> Value {
    host.until("it is rehearsed", |host| {
        let events = host.api().get(&format!("/v1/events?agent={agent}&limit=1000")).json();
        let events = events.as_array().cloned().unwrap_or_default();
        let of = |event: &&Value| event["kind"] == "rollout.rehearsed" && event["data"]["revision"] == revision;
        events.iter().rev().find(of).map(|event| event["data"].clone())
    })
}

/// The newest rollout when it has ended.
fn until_ended(host: &mut Host, agent: &str, strategy: &str) -> Value {
    host.until("the end", |host| {
        let newest = host.api().get(&format!("/v1/rollouts/{agent}")).json()[0].clone();
        (newest["strategy"] == strategy && newest["ended"] == true).then_some(newest)
    })
}

fn undo(host: &Host, more: &[&str]) {
    let (code, _, said) = host.caxton(&[&["rollout", "undo"], more].concat());
    assert_eq!(code, 0, "{said}");
}

#[test]
fn an_undo_to_a_revision_that_cannot_read_the_state_is_reported() {
    let mut host = with_all_in_the_second("");
    undo(&host, &["formats"]);
    let ended = until_ended(&mut host, "formats", "undo");
    assert_eq!(ended["status"], "completed", "nothing says how many have to be alike: {ended}");
    // It builds up anew what it cannot read, and answers each message as it was answered then: that is not alike.
    let told = last_rehearsal(&mut host, "formats", 1);
    let counts = ["messages", "passed", "alike", "otherwise", "not_compared"].map(|name| told[name].as_u64());
    assert_eq!(counts, [Some(THINGS), Some(THINGS), Some(1), Some(THINGS - 1), Some(0)], "{told}");
    let first = &told["differences"][0];
    assert_eq!([&first["path"], &first["stable"], &first["candidate"]], ["reply.have", "25", "1"], "{told}");
    assert_eq!((&ended["rehearsed"], &ended["rehearsed_alike"]), (&json!(THINGS), &json!(1)), "{ended}");
    host.until_output("24 of 25 messages were answered otherwise, the first of them ");
    let (code, table, said) = host.caxton(&["rollout", "differences", "formats"]);
    assert_eq!(code, 0, "{said}");
    let id = first["message"].as_str().expect("an id");
    assert!(table.contains(id) && table.contains("reply.have"), "{table}");
    let (_, text, _) = host.caxton(&["rollout", "status", "formats"]);
    assert!(text.contains("1 of 25 rehearsed messages were answered alike"), "{text}");
    assert_eq!(remember(&host, 1), 1, "as it was told");
}

#[test]
fn an_undo_to_a_revision_that_cannot_read_the_state_is_refused_where_replies_must_match() {
    let mut host = with_all_in_the_second(", match = \"90%\"");
    undo(&host, &["formats"]);
    let ended = until_ended(&mut host, "formats", "undo");
    assert_eq!(ended["status"], "failed", "{ended}");
    let why = ended["why"].as_str().expect("a reason");
    for part in [
        "the rehearsal failed: 24 of 25 messages were answered otherwise, the first of them ",
        ": reply.have is 1 and not 25; 90% have to be alike (`rollback.match`)",
        "`caxton rollout undo formats --no-rehearse` goes back all the same",
    ] {
        assert!(why.contains(part), "{why}: {part}");
    }
    assert!(last_rehearsal(&mut host, "formats", 1)["failed"].as_str().is_some_and(|why| why.contains("24 of 25")));
    // Nothing is lost and nothing is in the way of what runs.
    let status = host.agent("formats");
    assert_eq!((&status["revision"], &status["obstacle"]), (&json!("formats@2"), &json!(null)), "{status}");
    assert_eq!(remember(&host, 1), THINGS);
    let mut host = host.kill().start();
    assert_eq!((remember(&host, 2), &host.agent("formats")["revision"]), (THINGS, &json!("formats@2")));
    undo(&host, &["formats", "--no-rehearse"]);
    host.until_agent("formats", "the first runs", |status| status["revision"] == "formats@1");
    assert_eq!(remember(&host, 1), 1);
}

#[test]
fn an_undo_passes_when_only_times_and_counts_differ() {
    let more = ", more = \"yes\"";
    let all = ", match = \"100%\"";
    let mut host = host(&formats(2, more, all));
    remember_all(&host);
    host.edit(&file(&formats(2, &format!("{more}, n = \"2\""), all)));
    host.until_agent("formats", "the second runs", |status| status["revision"] == "formats@2");
    remember_all_again(&host);
    undo(&host, &["formats"]);
    let ended = until_ended(&mut host, "formats", "undo");
    assert_eq!(ended["status"], "completed", "{ended}");
    let told = last_rehearsal(&mut host, "formats", 1);
    assert_eq!((&told["alike"], &told["otherwise"]), (&json!(THINGS), &json!(0)), "{told}");
    assert!(told["by_nature"].as_array().is_some_and(|paths| paths.contains(&json!("reply.at"))), "{told}");
    assert!(!told["by_nature"].to_string().contains("seen"), "a count goes on in both: {told}");
    // By hand the same is told.
    let guest = caxton_tests::guest("formats").display().to_string();
    let (code, _, said) = host.caxton(&["rehearse", "formats", "--component", &guest]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("it answered 25 of 25 as formats@1 does"), "{said}");
    assert!(said.contains("differs by nature: ") && said.contains("reply.at"), "{said}");
    let other = caxton_tests::guest("echo").display().to_string();
    let (code, told, said) = host.caxton(&["rehearse", "formats", "--component", &other, "-o", "json"]);
    assert_eq!(code, 1, "{told}{said}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["otherwise"], &told["failed"]), (&json!(THINGS), &json!([])), "{told}");
    assert!(told["refused"].as_str().is_some_and(|why| why.contains("25 of 25 messages")), "{told}");
    assert_eq!(told["differences"].as_array().map(Vec::len), Some(25), "{told}");
}

fn remember_all_again(host: &Host) {
    (1..=THINGS).for_each(|thing| assert_eq!(remember(host, thing), THINGS));
}

/// The newest revision answers wrongly, and so differs from every answer that was given before.
#[test]
fn an_undo_from_a_revision_with_wrong_replies_is_not_refused() {
    let echo = |guest: &str, rollback: &str| {
        let deploy = "deploy = { strategy = \"immediate\" }\nreload = { strategy = \"immediate\" }\n";
        file(&agent("echo", guest, &format!("{deploy}rollback = {{ rehearse = 5{rollback} }}\n")))
    };
    let mut host = Host::start(crate::BINARY, &echo("echo", ""));
    for nth in 0..5 {
        let action = json!({ "do": "reply", "text": format!("{nth}") }).to_string();
        assert_eq!(host.client().post("/echo", action.clone()).text(), action);
    }
    host.edit(&echo("rogue", ""));
    host.until_agent("echo", "the second runs", |status| status["revision"] == "echo@2");
    let told = last_rehearsal(&mut host, "echo", 2);
    assert_eq!((&told["alike"], &told["otherwise"]), (&json!(0), &json!(5)), "{told}");
    host.edit(&echo("rogue", ", match = \"100%\""));
    host.until("the bound is in force", |host| {
        (host.api().get("/v1/config/diff").json()["changes"] == json!([])).then_some(())
    });
    undo(&host, &["echo"]);
    let ended = until_ended(&mut host, "echo", "undo");
    assert_eq!(ended["status"], "completed", "{ended}");
    let told = last_rehearsal(&mut host, "echo", 1);
    assert_eq!((&told["alike"], &told["otherwise"]), (&json!(5), &json!(0)), "as they were answered then: {told}");
}

/// A message that the running revision fails at as well says nothing of the earlier one.
#[test]
fn messages_that_fail_on_both_revisions_do_not_block_an_undo() {
    let settings = |n: u32| {
        let rollback = "rollback = { rehearse = 10, match = \"100%\" }\nmailbox = { backoff = { first = \"100ms\" } }";
        let deploy = "deploy = { strategy = \"immediate\" }";
        file(&agent("rogue", "rogue", &format!("{deploy}\n{rollback}\nconfig = {{ n = \"{n}\" }}\n")))
    };
    let mut host = Host::start(crate::BINARY, &settings(1));
    host.edit(&settings(2));
    host.until_agent("rogue", "the second runs", |status| status["revision"] == "rogue@2");
    let (code, _, said) = host.caxton(&["send", "rogue", r#"{"do":"fail-until","attempt":2}"#]);
    assert_eq!(code, 0, "{said}");
    host.until_agent("rogue", "the second attempt is done", |status| status["handled"] == 1);
    undo(&host, &["rogue"]);
    let ended = until_ended(&mut host, "rogue", "undo");
    assert_eq!(ended["status"], "completed", "{ended}");
    let told = last_rehearsal(&mut host, "rogue", 1);
    assert_eq!(
        (&told["messages"], &told["set_aside"], &told["failed"]),
        (&json!(1), &json!(1), &json!(null)),
        "{told}"
    );
}
