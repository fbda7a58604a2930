//! The events and reports of rollouts: their steps, and the messages that were lost in them.

use caxton_tests::{Host, screen};
use serde_json::{Value, json};

use crate::rollouts::Load;
use crate::{agent, file, host};

fn newest_rollout(host: &Host) -> Value {
    host.api().get("/v1/rollouts/echo").json()[0].clone()
}

fn until_losses_counted(host: &mut Host, rollout: u64) -> Value {
    host.until("it has ended and is counted", |host| {
        let newest = newest_rollout(host);
        (newest["rollout"] == rollout && newest["ended"] == true && !newest["lost_messages"].is_null())
            .then_some(newest)
    })
}

const STEPS: &str = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"0s\" }, { pause = true }] }\nrollback = { min-messages = 0, slower = \"10000%\" }\n";

fn settings(more: &str) -> String {
    agent("echo", "echo", &format!("{STEPS}{more}\n")) + "[[agents.echo.http]]\nroute = \"/keep\"\nmode = \"enqueue\"\n"
}

#[test]
fn lost_messages_are_counted_after_a_rollout_under_load_and_survive_a_kill() {
    let mut host = host(&settings(""));
    let load = Load::new(&host, "/echo", 2, |_| "ping".to_owned());
    let client = host.client();
    let keep = |count: usize| {
        for _ in 0..count {
            assert_eq!(client.post("/keep", "kept").status.as_u16(), 202);
        }
    };
    host.edit(&file(&settings("config = { n = \"2\" }")));
    host.until("it is paused", |host| (newest_rollout(host)["status"] == "paused").then_some(()));
    keep(100);
    assert_eq!(newest_rollout(&host)["lost_messages"], Value::Null, "it is still under way");
    assert_eq!(host.caxton(&["rollout", "promote", "echo"]).0, 0);
    keep(100);
    let first = until_losses_counted(&mut host, 1);
    assert_eq!((&first["lost_messages"], &first["status"]), (&json!(0), &json!("completed")), "{first}");
    load.end();
    // Those that wait are not lost: an operator holds them.
    assert_eq!(host.caxton(&["mailbox", "pause", "echo"]).0, 0);
    host.edit(&file(&settings("config = { n = \"3\" }")));
    host.until("it is paused", |host| {
        let newest = newest_rollout(host);
        (newest["rollout"] == 2 && newest["status"] == "paused").then_some(())
    });
    keep(50);
    assert_eq!(host.caxton(&["rollout", "abort", "echo"]).0, 0);
    let second = until_losses_counted(&mut host, 2);
    assert_eq!((&second["lost_messages"], &second["status"]), (&json!(0), &json!("cancelled")), "{second}");
    assert_eq!(host.agent("echo")["mailbox_depth"], 50);
    let (_, table, _) = host.caxton(&["rollout", "history", "echo"]);
    assert!(table.contains("LOST"), "{table}");
    let (_, told, _) = host.caxton(&["rollout", "status", "echo"]);
    assert!(told.contains("; 0 messages lost"), "{told}");
    // A host that is killed in the middle counts in the end, what the one before had accepted included.
    host.edit(&file(&settings("config = { n = \"4\" }")));
    host.until("it is paused", |host| {
        let newest = newest_rollout(host);
        (newest["rollout"] == 3 && newest["status"] == "paused").then_some(())
    });
    keep(50);
    let mut host = host.kill().start();
    assert_eq!(host.api().get("/v1/rollouts/echo").json()[1]["lost_messages"], 0, "it is persisted");
    assert_eq!(newest_rollout(&host)["lost_messages"], Value::Null);
    host.until_agent("echo", "both run again", |status| status["revisions"].as_array().map(Vec::len) == Some(2));
    assert_eq!(host.caxton(&["rollout", "abort", "echo"]).0, 0);
    assert_eq!(until_losses_counted(&mut host, 3)["lost_messages"], 0);
    assert_eq!(host.agent("echo")["mailbox_depth"], 100);
}

#[test]
fn each_step_of_a_rollout_is_an_event_with_a_text() {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 20, for = \"0s\" }, { pause = true }, { weight = 60, for = \"1h\" }] }\nrollback = { min-messages = 0 }\n";
    let settings = |n: &str| file(&agent("echo", "echo", &format!("{steps}config = {{ n = \"{n}\" }}\n")));
    let mut host = Host::start(crate::BINARY, &settings("1"));
    host.edit(&settings("2"));
    host.until("it is paused", |host| (newest_rollout(host)["status"] == "paused").then_some(()));
    assert_eq!(host.caxton(&["rollout", "promote", "echo"]).0, 0);
    host.until("it has more", |host| (newest_rollout(host)["weight"] == 60).then_some(()));
    assert_eq!(host.caxton(&["rollout", "pause", "echo"]).0, 0);
    assert_eq!(host.caxton(&["rollout", "resume", "echo"]).0, 0);
    assert_eq!(host.caxton(&["rollout", "abort", "echo"]).0, 0);
    until_losses_counted(&mut host, 1);
    let told = host.until("all is told", |host| {
        let (code, told, said) = host.caxton(&["events", "echo"]);
        assert_eq!(code, 0, "{said}");
        told.contains("0 messages were lost in rollout 1").then_some(told)
    });
    let lines: Vec<&str> = told.lines().filter(|line| line.contains(" rollout.")).collect();
    let mut from = 0;
    for part in [
        "rollout.status the rollout of echo@2 after echo@1 begins, canary: ",
        "rollout.step the rollout of echo@2 is at step ",
        ", 20%: ",
        "rollout.status the rollout of echo@2 pauses: ",
        "rollout.command promote by ",
        "rollout.status the rollout of echo@2 is resumed: ",
        "rollout.command pause by ",
        "rollout.status the rollout of echo@2 pauses: ",
        "rollout.command resume by ",
        "rollout.status the rollout of echo@2 is resumed: ",
        "rollout.command abort by ",
        "rollout.status the rollout of echo@2 goes back: ",
        "rollout.status the rollout of echo@2 was cancelled: ",
        "rollout.counted 0 messages were lost in rollout 1",
    ] {
        let at = lines[from..].iter().position(|line| line.contains(part));
        from += at.unwrap_or_else(|| panic!("{part} after line {from} of:\n{}", lines.join("\n"))) + 1;
    }
    let events = host.api().get("/v1/events?agent=echo&limit=1000").json();
    let weights: Vec<u64> = events
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["kind"] == "rollout.step")
        .filter_map(|event| event["data"]["weight"].as_u64())
        .collect();
    assert!(weights.is_sorted_by(|one, two| one <= two || *two == 0) && weights.contains(&60), "{weights:?}");
}

#[test]
fn a_rollout_is_redrawn_on_a_terminal_without_remains() {
    let steps = "deploy = { strategy = \"canary\", steps = [{ weight = 20, for = \"1s\" }, { weight = 60, for = \"1s\" }] }\nrollback = { min-messages = 0 }\n";
    for (columns, rows) in [(46, 12), (120, 30), (20, 5)] {
        let settings = |n: &str| file(&agent("echo", "echo", &format!("{steps}config = {{ n = \"{n}\" }}\n")));
        let mut host = Host::start(crate::BINARY, &settings("1"));
        host.edit(&settings("2"));
        host.until("it begins", |host| host.api().get("/v1/rollouts/echo").json().get(0).map(drop));
        let (code, written) = host.caxton_on_terminal(&["rollout", "watch", "echo"], columns, rows);
        assert_eq!(code, 0, "{written}");
        let (columns, rows) = (usize::from(columns), usize::from(rows));
        assert!(written.matches("\x1b[J").count() >= 2, "it is drawn anew: {written:?}");
        let shown = screen(&written, columns, rows);
        let heads = shown.iter().filter(|line| line.starts_with("echo@2 after echo")).count();
        assert_eq!(heads, 1, "{columns}x{rows}:\n{}", shown.join("\n"));
        assert!(shown[0].starts_with("echo@2 after echo"), "{columns}x{rows}:\n{}", shown.join("\n"));
        if columns > 40 {
            assert!(shown[0].starts_with("echo@2 after echo@1, canary: completed"), "{}", shown[0]);
            assert!(shown.iter().any(|line| line.starts_with("echo@2: ")), "the figures:\n{}", shown.join("\n"));
            assert!(!shown.iter().any(|line| line.contains("REVISION")), "nothing is measured any more");
        }
        // One line remains for the cursor.
        assert_eq!(shown[rows - 1], "", "{columns}x{rows}:\n{}", shown.join("\n"));
    }
}
