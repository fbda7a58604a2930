//! The texts for operators, which name the problem and the remedy.

use serde_json::json;

use crate::{agent, file, host};

#[test]
fn a_trapped_attempt_reports_its_cpu_time() {
    let mut host = host(&agent("rogue", "rogue", "mailbox = { attempts = 1 }"));
    let action = json!({ "do": "steps", "steps": [{ "do": "spin", "ms": 50 }, { "do": "trap" }] });
    let sent = host.api().post("/v1/agents/rogue/messages", action.to_string());
    assert_eq!(sent.status.as_u16(), 202, "{}", sent.text());
    let number = host.until("it is given up", |host| {
        host.api().get("/v1/dead-letters").json()["dead_letters"][0]["number"].as_u64()
    });
    let shown = host.api().get(&format!("/v1/dead-letters/{number}")).json();
    assert!(shown["attempts"][0]["cpu_us"].as_u64() > Some(1_000), "{shown}");
    let (_, text, _) = host.caxton(&["dead", "show", &number.to_string()]);
    assert!(text.contains("ms on a core"), "{text}");
}

#[test]
fn an_apply_without_waiting_reports_the_rollout_in_progress() {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1h\" }] }\n";
    let mut host = host(&agent("echo", "echo", steps));
    host.edit(&file(&agent("echo", "echo", &format!("{steps}config = {{ n = \"2\" }}\n"))));
    host.until_agent("echo", "both run", |status| {
        status["revisions"]
            .as_array()
            .is_some_and(|all| all.iter().filter(|one| one["state"] == "running").count() == 2)
    });
    let (code, _, said) = host.caxton(&["apply", "--no-wait"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the rollouts go on") && !said.contains("not everything"), "{said}");
}

#[test]
fn apply_refuses_what_check_refuses_and_a_restart_keeps_what_ran() {
    let schedule = "[[agents.web.schedule]]\ncron = \"0 0 1 1 *\"\ncontent = \"x\"\n";
    let host = host(&agent("web", "web", ""));
    let path = "/web";
    let before = host.client().get(path).status;
    host.edit(&file(&(agent("web", "web", "") + schedule)));
    for command in ["check", "apply"] {
        let (code, _, said) = host.caxton(&[command]);
        assert_eq!(code, 2, "{command}: {said}");
        assert!(said.contains("it is an HTTP agent: a schedule is for agents that take messages"), "{command}: {said}");
    }
    let mut host = host.stop().1.start();
    host.until_agent("web", "the setting is told of", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("a schedule is for agents that take messages"))
    });
    assert_eq!(host.agent("web")["revision"], "web@1");
    assert_eq!(host.client().get(path).status, before, "it serves");
    // Nor does another revision of it that was on its way: it is refused, and the one that ran goes on.
    host.edit(&file(&(agent("web", "web", "config = { n = \"2\" }") + schedule)));
    host.until_agent("web", "the new one is refused", |status| {
        status["revisions"].as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "failed"))
    });
    assert_eq!(host.client().get(path).status, before, "it serves");
}
