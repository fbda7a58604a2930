//! The analysis of a candidate against stable, which runs beside it or ran before.

use caxton_tests::Host;
use serde_json::{Value, json};

use crate::{agent, file, host};

const WELL: &str = r#"{"do":"reply","text":"well"}"#;
const BADLY: &str = r#"{"do":"fail","cause":"fault"}"#;

/// The agent `probe` of which no breaker opens, with `more` settings; `version` makes another revision of it.
fn probe(version: u32, more: &str) -> String {
    agent("probe", "rogue", &format!("config = {{ version = \"{version}\" }}\nbreaker = {{ faults = 100 }}\n{more}"))
}

fn newest_rollout(host: &Host) -> Value {
    host.api().get("/v1/rollouts/probe").json()[0].clone()
}

/// Makes calls, one in `one_in` of which fails on every revision.
fn call(host: &Host, count: usize, one_in: usize) {
    let client = host.client();
    for nth in 0..count {
        let (body, expected) = if nth % one_in == 0 { (BADLY, 500) } else { (WELL, 200) };
        let status = client.post("/probe", body).status.as_u16();
        assert_eq!(status, expected, "a call of {body}");
    }
}

/// Calls, a few at a time, until the newest rollout has ended.
fn call_until_ended(host: &mut Host, one_in: usize) -> Value {
    host.until("the rollout ends", |host| {
        call(host, 2 * one_in, one_in);
        Some(newest_rollout(host)).filter(|rollout| rollout["to"] == "probe@2" && rollout["ended"] == true)
    })
}

const CANARY: &str = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1s\" }] }\n";

#[test]
fn a_candidate_that_fails_as_often_as_stable_stays() {
    let rules = format!("{CANARY}rollback = {{ min-messages = 20, slower = \"10000%\" }}");
    let mut host = host(&probe(1, &rules));
    host.edit(&file(&probe(2, &rules)));
    let ended = call_until_ended(&mut host, 5);
    assert_eq!((&ended["status"], &ended["why"]), (&json!("completed"), &json!("probe@2 runs")), "{ended}");
}

#[test]
fn a_candidate_that_fails_more_often_than_stable_is_rolled_back() {
    let rules = format!("{CANARY}rollback = {{ min-messages = 20, slower = \"10000%\" }}\n");
    // What is told to nobody but the new revision: its component answers these calls, and the old one does not.
    let toml = |guest| {
        file(&agent("probe", guest, &format!("breaker = {{ faults = 100 }}\n{rules}config = {{ by = \"{guest}\" }}")))
    };
    let mut host = Host::start(crate::BINARY, &toml("echo"));
    host.edit(&toml("rogue"));
    let ended = host.until("the rollout ends", |host| {
        let client = host.client();
        (0..5).for_each(|_| drop(client.post("/probe", BADLY)));
        Some(newest_rollout(host)).filter(|rollout| rollout["ended"] == true)
    });
    let why = ended["why"].as_str().unwrap_or_default();
    assert_eq!(ended["status"], "rolled-back", "{ended}");
    assert!(why.starts_with("errors: ") && why.contains(" 0 of "), "{why}");
}

#[test]
fn an_absolute_bound_rolls_back_a_revision_as_bad_as_stable() {
    let rules = format!("{CANARY}rollback = {{ min-messages = 20, slower = \"10000%\", errors-above = \"10%\" }}");
    let mut host = host(&probe(1, &rules));
    host.edit(&file(&probe(2, &rules)));
    let ended = call_until_ended(&mut host, 5);
    let why = ended["why"].as_str().unwrap_or_default();
    assert!(ended["status"] == "rolled-back" && why.contains("more than 10% (`errors-above`)"), "{ended}");
}

/// The settings of a rollout that moves all traffic at once, so that no old revision runs beside the new one.
const AT_ONCE: &str = "deploy = { strategy = \"immediate\" }\nrollback = { min-messages = 20 }";

#[test]
fn the_last_figures_of_stable_are_the_baseline_when_it_does_not_run() {
    let mut host = host(&probe(1, AT_ONCE));
    call(&host, 100, 5);
    host.edit(&file(&probe(2, AT_ONCE)));
    host.until_agent("probe", "the new one has all traffic", |status| status["revision"] == "probe@2");
    let ended = call_until_ended(&mut host, 5);
    assert_eq!(ended["status"], "completed", "{ended}");
}

#[test]
fn the_baseline_survives_a_restart() {
    let host = host(&probe(1, AT_ONCE));
    call(&host, 100, 5);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    setup.edit(&file(&probe(2, AT_ONCE)));
    let mut host = setup.start();
    host.until_agent("probe", "the new one has all traffic", |status| status["revision"] == "probe@2");
    let ended = call_until_ended(&mut host, 5);
    assert_eq!(ended["status"], "completed", "{ended}");
}

#[test]
fn a_candidate_worse_than_the_stored_baseline_is_rolled_back() {
    let mut host = host(&probe(1, AT_ONCE));
    call(&host, 200, 100);
    host.edit(&file(&probe(2, AT_ONCE)));
    host.until_agent("probe", "the new one has all traffic", |status| status["revision"] == "probe@2");
    let ended = call_until_ended(&mut host, 2);
    let why = ended["why"].as_str().unwrap_or_default();
    assert!(
        ended["status"] == "rolled-back" && why.contains("with the revision before it 2 of its last 200"),
        "{ended}"
    );
}

#[test]
fn without_a_baseline_the_absolute_bound_applies() {
    let mut host = host(&probe(1, AT_ONCE));
    host.edit(&file(&probe(2, AT_ONCE)));
    host.until_agent("probe", "the new one has all traffic", |status| status["revision"] == "probe@2");
    let ended = call_until_ended(&mut host, 5);
    let why = ended["why"].as_str().unwrap_or_default();
    assert!(ended["status"] == "rolled-back" && why.contains("more than 5%"), "{ended}");
}

/// The agent `probe`, whose revisions do different things with the same call.
fn doing(action: &str, more: &str) -> String {
    agent(
        "probe",
        "rogue",
        &format!("config = {{ action = '{action}' }}\nbreaker = {{ faults = 100 }}\n{CANARY}{more}"),
    )
}

const DO: &str = r#"{"do":"configured"}"#;
const QUICK: &str = r#"{"do":"sleep","ms":1}"#;
const SLOW: &str = r#"{"do":"sleep","ms":300}"#;

/// Calls both revisions until the rollout has ended. Returns its status and reason.
fn judged(host: &mut Host) -> (String, String) {
    let ended = host.until("the rollout ends", |host| {
        let client = host.client();
        (0..5).for_each(|_| drop(client.post("/probe", DO)));
        Some(newest_rollout(host)).filter(|rollout| rollout["to"] == "probe@2" && rollout["ended"] == true)
    });
    let text = |key: &str| ended[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("why"))
}

#[test]
fn a_slower_candidate_below_the_latency_bound_stays() {
    for (floor, expected) in [("10ms", "slower: "), ("10s", "probe@2 runs")] {
        let rules = format!("rollback = {{ min-messages = 10, slower-min = \"{floor}\" }}");
        let mut host = host(&doing(QUICK, &rules));
        host.edit(&file(&doing(SLOW, &rules)));
        let (status, why) = judged(&mut host);
        assert!(why.starts_with(expected), "{floor}: {status}: {why}");
    }
}

#[test]
fn fast_failures_do_not_make_successes_look_slow() {
    let rules = "rollback = { min-messages = 10, slower-min = \"0s\" }";
    let mut host = host(&doing(r#"{"do":"fail"}"#, rules));
    host.edit(&file(&doing(SLOW, rules)));
    assert_eq!(judged(&mut host), ("completed".to_owned(), "probe@2 runs".to_owned()));
}

const BREAKS_IT: &str = r#"{"do":"set","key":"spoiled","value":"1"}"#;
const UNLESS_BROKEN: &str = r#"{"do":"unless","key":"spoiled"}"#;

#[test]
fn a_candidate_that_makes_stable_fail_is_rolled_back() {
    let rules = "rollback = { min-messages = 20 }";
    let mut host = host(&doing(UNLESS_BROKEN, rules));
    let client = host.client();
    assert!((0..60).all(|_| client.post("/probe", DO).status.as_u16() == 200));
    host.edit(&file(&doing(BREAKS_IT, rules)));
    let (status, why) = judged(&mut host);
    assert_eq!(status, "rolled-back", "{why}");
    // The sixty, and those that came before the new one had traffic.
    assert!(why.starts_with("stable: the running revision began to fail: ") && why.contains(", 0 of "), "{why}");
}

#[test]
fn a_candidate_stays_when_stable_fails_as_before() {
    let rules = format!("{CANARY}rollback = {{ min-messages = 20, slower = \"10000%\" }}");
    let mut host = host(&probe(1, &rules));
    call(&host, 100, 5);
    host.edit(&file(&probe(2, &rules)));
    let ended = call_until_ended(&mut host, 5);
    assert_eq!((&ended["status"], &ended["why"]), (&json!("completed"), &json!("probe@2 runs")), "{ended}");
}
