//! Declarations that are refused or cannot start: none runs in part, and all reports on them agree.

use caxton_tests::{Client, Host, Setup, guest};
use serde_json::{Value, json};

use crate::{BINARY, agent, file, host};

/// Checks that all reports on an agent agree: `ps`, the host's status, the probe, the metrics, `diff` and `apply`.
fn check_reports_agree(host: &Host, name: &str, obstacle: &str, why: &str) {
    let status = host.agent(name);
    assert_eq!(status["obstacle"], obstacle, "{status}");
    assert!(status["waiting"].as_str().is_some_and(|waiting| waiting.contains(why)), "{status}");
    let told = host.api().get("/v1/host").json();
    assert_eq!(told["in_sync"], false, "{told}");
    let waits = |waiting: &&Value| waiting["agent"] == name && waiting["obstacle"] == obstacle;
    assert!(told["waiting"].as_array().into_iter().flatten().any(|waiting| waits(&waiting)), "{told}");
    let probes = Client::new(&host.admin, None);
    let ready = probes.get("/readyz");
    assert_eq!(ready.status.as_u16(), 503, "{}", ready.text());
    let reason = |reason: &Value| reason.as_str().is_some_and(|text| text.starts_with(name) && text.contains(why));
    assert!(ready.json()["reasons"].as_array().into_iter().flatten().any(reason), "{}", ready.text());
    let metrics = probes.get("/metrics").text();
    for line in [
        "caxton_ready 0".to_owned(),
        "caxton_in_sync 0".to_owned(),
        format!("caxton_obstructed{{agent=\"{name}\"}} 1"),
        format!("caxton_obstacles{{obstacle=\"{obstacle}\"}} 1"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in:\n{metrics}");
    }
    let (_, _, words) = host.caxton(&["ps"]);
    assert!(words.contains("the file and the host differ"), "{words}");
    let (code, out, words) = host.caxton(&["diff", "-o", "json"]);
    assert_eq!(code, 0, "{words}");
    let changes: Value = serde_json::from_str(&out).expect("JSON");
    let change = changes["changes"].as_array().into_iter().flatten().find(|change| change["agent"] == name);
    let change = change.unwrap_or_else(|| panic!("{name} is no change: {out}"));
    assert_eq!(change["change"], obstacle, "{out}");
    assert!(change["details"].to_string().contains(why), "{out}");
    let (code, _, words) = host.caxton(&["apply"]);
    assert!([1, 6].contains(&code), "{code}: {words}");
    assert!(words.contains("not everything is as declared"), "{words}");
}

/// Checks that no agent has an obstacle.
fn check_no_obstacle(host: &mut Host) {
    let probes = Client::new(&host.admin, None);
    host.until("it is ready", |_| (probes.get("/readyz").status.as_u16() == 200).then_some(()));
    let metrics = probes.get("/metrics").text();
    assert!(metrics.contains("\ncaxton_ready 1\n") && metrics.contains("{obstacle=\"missing\"} 0\n"), "{metrics}");
    let (code, out, words) = host.caxton(&["diff", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON"), json!({"changes": []}), "{out}{words}");
    assert_eq!(code, 0);
}

fn canary(steps: &str, n: u32) -> String {
    // With no messages to judge by it comes to its pause at once.
    let deploy =
        format!("deploy = {{ strategy = \"canary\", steps = [{steps}] }}\nrollback = {{ min-messages = 0 }}\n");
    agent("echo", "echo", &format!("{deploy}config = {{ n = \"{n}\" }}\n"))
}

fn until_paused(host: &mut Host) {
    host.until("the canary waits", |host| {
        let newest = host.api().get("/v1/rollouts/echo").json()[0].clone();
        (newest["status"] == "paused").then_some(())
    });
}

#[test]
fn a_refusal_applies_to_the_content_under_any_strategy() {
    let paused = "{ weight = 10, for = \"0s\" }, { pause = true }";
    let mut host = host(&canary(paused, 1));
    host.edit(&file(&canary(paused, 2)));
    until_paused(&mut host);
    assert_eq!(host.caxton(&["rollout", "abort", "echo"]).0, 0);
    host.until_agent("echo", "it is refused", |status| status["obstacle"] == "refused");
    check_reports_agree(&host, "echo", "refused", "is not tried again until it changes or `caxton rollout retry`");
    let same = "config = { n = \"2\" }\n";
    for other in [
        canary("{ weight = 50, for = \"1s\" }", 2),
        canary("{ weight = 10, for = \"1m\" }, { pause = true }", 2),
        agent("echo", "echo", &format!("deploy = {{ strategy = \"immediate\" }}\n{same}")),
        agent("echo", "echo", &format!("deploy = {{ strategy = \"rolling\", timeout = \"1m\" }}\n{same}")),
        agent("echo", "echo", &format!("deploy = {{ strategy = \"blue-green\" }}\nmailbox = {{ depth = 9 }}\n{same}")),
        agent("echo", "echo", &format!("rollback = {{ min-messages = 0 }}\n{same}")),
    ] {
        host.edit(&file(&other));
        let (code, out, words) = host.caxton(&["apply"]);
        assert_eq!(code, 6, "{other}: {out}{words}");
        let status = host.agent("echo");
        assert_eq!((&status["revision"], &status["obstacle"]), (&json!("echo@1"), &json!("refused")), "{status}");
        let rollouts = host.api().get("/v1/rollouts/echo").json();
        assert_eq!(rollouts.as_array().map(Vec::len), Some(1), "nothing of it was started: {rollouts}");
    }
    check_reports_agree(&host, "echo", "refused", "aborted by");
    assert_eq!(host.caxton(&["rollout", "retry", "echo"]).0, 0);
    host.until_agent("echo", "it runs", |status| status["revision"] != "echo@1");
    // What is watched is no obstacle.
    host.until_agent("echo", "all is well", |status| status["obstacle"].is_null());
}

#[test]
fn a_refused_revision_stays_refused_after_other_rollouts() {
    let paused = "{ weight = 10, for = \"0s\" }, { pause = true }";
    let immediate = |n: u32| {
        agent("echo", "echo", &format!("deploy = {{ strategy = \"immediate\" }}\nconfig = {{ n = \"{n}\" }}\n"))
    };
    let mut host = host(&canary(paused, 1));
    host.edit(&file(&canary(paused, 2)));
    until_paused(&mut host);
    assert_eq!(host.caxton(&["rollout", "abort", "echo"]).0, 0);
    host.edit(&file(&immediate(3)));
    let runs_three = |status: &Value| status["revision"].as_str().is_some_and(|id| id != "echo@1");
    host.until_agent("echo", "another runs", runs_three);
    let revision = host.agent("echo")["revision"].clone();
    host.edit(&file(&immediate(2)));
    host.until_agent("echo", "it is refused still", |status| status["obstacle"] == "refused");
    assert_eq!(host.agent("echo")["revision"], revision);
    // The last rollout went well; what is declared was refused all the same.
    assert_eq!(host.caxton(&["rollout", "retry", "echo"]).0, 0);
    host.until_agent("echo", "it runs", |status| status["revision"] != revision && status["obstacle"].is_null());
}

#[test]
fn an_undone_revision_is_reported_and_can_be_retried() {
    let settings = |n: u32| {
        agent("echo", "echo", &format!("deploy = {{ strategy = \"immediate\" }}\nconfig = {{ n = \"{n}\" }}\n"))
    };
    let mut host = host(&settings(1));
    host.edit(&file(&settings(2)));
    host.until_agent("echo", "the second runs", |status| status["revision"] == "echo@2");
    assert_eq!(host.caxton(&["rollout", "undo", "echo"]).0, 0);
    host.until_agent("echo", "the first runs", |status| {
        status["revision"] == "echo@1" && status["obstacle"] == "refused"
    });
    host.until("the undo is done", |host| {
        (host.api().get("/v1/rollouts/echo").json()[0]["ended"] == true).then_some(())
    });
    check_reports_agree(&host, "echo", "refused", "undone by");
    assert_eq!(host.caxton(&["rollout", "retry", "echo"]).0, 0);
    host.until_agent("echo", "it runs again", |status| status["revision"] != "echo@1" && status["obstacle"].is_null());
}

#[test]
fn all_reports_agree_on_a_revision_that_cannot_start() {
    // One that never ran, and one beside which an earlier revision runs.
    let first = host(&agent("echo", "by-record", ""));
    check_reports_agree(&first, "echo", "failed", "no-world");
    let mut second = host(&agent("echo", "echo", ""));
    second.edit(&file(&agent("echo", "slow-start", "")));
    second.until_agent("echo", "the candidate fails", |status| status["obstacle"] == "failed");
    assert_eq!(second.client().post("/echo", "old").text(), "old");
    check_reports_agree(&second, "echo", "failed", "cpu-exceeded");
}

/// An agent of the file `dist/NAME` with this setting, and with a route of its own.
fn declaration(component: &str, n: u32, more: &str) -> String {
    let settings = format!("deploy = {{ strategy = \"immediate\" }}\nconfig = {{ n = \"{n}\" }}\n{more}");
    format!("[agents.rogue]\ncomponent = \"{component}\"\n{settings}\n[[agents.rogue.http]]\nroute = \"/rogue\"\n")
}

fn config(host: &Host) -> Value {
    host.client().post("/rogue", r#"{"do": "config"}"#).json()
}

fn install(host: &std::path::Path, name: &str) {
    let temporary = host.join("component.new");
    std::fs::copy(guest("rogue"), &temporary).expect("the guest can be copied");
    std::fs::rename(temporary, host.join(name)).expect("the folder can be written to");
}

#[test]
fn a_declaration_is_taken_up_whole_or_not_at_all() {
    let setup = Setup::new(BINARY, &file(&declaration("a.wasm", 1, "")));
    install(setup.folder(), "a.wasm");
    let mut host = setup.start();
    let before = config(&host);
    assert!(before.to_string().contains("\"1\""), "{before}");
    // Another path, and settings that need a new revision and that apply in place.
    host.edit(&file(&declaration("b.wasm", 2, "mailbox = { depth = 7 }\n")));
    host.until_agent("rogue", "it is not there", |status| status["obstacle"] == "missing");
    let why = "b.wasm is not there; build it (`caxton up --build`) or mend the path; until then nothing of the agent's \
               declaration is taken up";
    check_reports_agree(&host, "rogue", "missing", why);
    assert_eq!(config(&host), before, "the old bytes have the old settings");
    let status = host.agent("rogue");
    assert_eq!((&status["revision"], &status["component"]), (&json!("rogue@1"), &json!("b.wasm")), "{status}");
    let rollouts = host.api().get("/v1/rollouts/rogue").json();
    assert_eq!(rollouts, json!([]), "nothing began");
    install(host.folder(), "b.wasm");
    host.until_agent("rogue", "all of it is taken up", |status| status["revision"] == "rogue@2");
    assert!(config(&host).to_string().contains("\"2\""));
    assert_eq!(host.agent("rogue")["mailbox_bound"], 7);
    // The same path, whose file is taken away before the settings change.
    std::fs::remove_file(host.folder().join("b.wasm")).expect("it is there");
    host.until_agent("rogue", "it is not there", |status| status["obstacle"] == "missing");
    host.edit(&file(&declaration("b.wasm", 3, "mailbox = { depth = 7 }\n")));
    host.until_agent("rogue", "nothing is taken up", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("until then nothing"))
    });
    assert!(config(&host).to_string().contains("\"2\""));
    // What belongs to no revision can still be changed for the one that runs.
    host.edit(&file(&declaration("b.wasm", 2, "mailbox = { depth = 8 }\n")));
    host.until_agent("rogue", "the bound is another", |status| status["mailbox_bound"] == 8);
    install(host.folder(), "b.wasm");
    host.until_agent("rogue", "all is well", |status| status["obstacle"].is_null());
    assert_eq!(host.agent("rogue")["revision"], "rogue@2", "these bytes with these settings ran all the time");
    check_no_obstacle(&mut host);
}

#[test]
fn a_component_path_that_is_not_a_file_is_reported_as_missing() {
    let setup = Setup::new(BINARY, &file(&declaration("a.wasm", 1, "")));
    install(setup.folder(), "a.wasm");
    let mut host = setup.start();
    std::fs::create_dir(host.folder().join("folder.wasm")).expect("the folder can be written to");
    host.edit(&file(&declaration("folder.wasm", 2, "")));
    host.until_agent("rogue", "it is no file", |status| status["obstacle"] == "missing");
    check_reports_agree(&host, "rogue", "missing", "folder.wasm is not a file");
    assert!(config(&host).to_string().contains("\"1\""));
    // A host that starts with such a declaration goes on with what it kept.
    let mut host = host.stop().1.start();
    host.until_agent("rogue", "it runs", |status| status["revision"] == "rogue@1");
    assert!(config(&host).to_string().contains("\"1\""));
    check_reports_agree(&host, "rogue", "missing", "folder.wasm is not a file");
}

#[test]
fn a_missing_declaration_is_reported_by_the_probe() {
    let mut host = host(&agent("echo", "echo", ""));
    std::fs::remove_file(host.folder().join("caxton.toml")).expect("it is there");
    let probes = Client::new(&host.admin, None);
    host.until("the probe fails", |_| (probes.get("/readyz").status.as_u16() == 503).then_some(()));
    assert!(probes.get("/readyz").text().contains("caxton.toml"));
    assert_eq!(host.client().post("/echo", "on").text(), "on");
    host.edit(&file(&agent("echo", "echo", "")));
    check_no_obstacle(&mut host);
}
