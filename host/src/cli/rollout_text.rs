//! Rollouts as text: their events, their statistics, and the differences between answers.

use std::time::Duration;

use serde_json::Value;

use super::output::{Cell, Table, count_of, printable};
use super::time::{ago, size};
use crate::api_types::{DifferingMessage, EventEntry, RolloutStatus};

/// Returns the sentence for an event of a rollout; `None` for other events, which are shown as pairs.
pub(super) fn sentence(event: &EventEntry) -> Option<String> {
    let agent = event.agent.as_deref()?;
    // On one line, since a log of events has one for each.
    let text = |key: &str| event.data[key].as_str().map(|text| printable(text).replace('\n', " "));
    let number = |key: &str| event.data[key].as_u64();
    let revision = |key: &str| number(key).map(|number| format!("{agent}@{number}"));
    match event.kind.as_str() {
        "rollout.status" => {
            let (to, why) = (revision("to")?, text("why")?);
            let sentence = match (text("status")?.as_str(), text("before").as_deref()) {
                // The first event of a rollout.
                ("pending" | "preparing" | "starting", None) => {
                    format!("the rollout of {to} after {} begins, {}", revision("from")?, text("strategy")?)
                }
                ("paused", _) => format!("the rollout of {to} pauses"),
                ("rolling-back", _) => format!("the rollout of {to} goes back"),
                ("rolled-back", _) => format!("the rollout of {to} was taken back"),
                ("completed", _) => format!("the rollout of {to} is completed"),
                ("failed", _) => format!("the rollout of {to} failed"),
                ("cancelled", _) => format!("the rollout of {to} was cancelled"),
                (_, Some("paused")) => format!("the rollout of {to} is resumed"),
                (status, _) => format!("the rollout of {to} is {status}"),
            };
            Some(format!("{sentence}: {why}"))
        }
        "rollout.step" => {
            let (to, step, steps) = (revision("to")?, number("step")?, number("steps")?);
            let (what, weight) = (text("what")?, number("weight")?);
            Some(format!("the rollout of {to} is at step {step} of {steps}, {weight}%: {what}"))
        }
        "rollout.command" => Some(format!("{} by {}", text("command")?, text("by")?)),
        "rollout.counted" => {
            let lost = count_of(number("lost")?, "message was", "messages were");
            Some(format!("{lost} lost in rollout {}", number("rollout")?))
        }
        "rollout.rehearsed" => Some(match (text("failed"), number("passed"), number("messages")) {
            (Some(why), ..) => format!("the rehearsal of {} failed: {why}", revision("revision")?),
            (None, Some(passed), Some(all)) => {
                let last = if all == 1 { "the last message".to_owned() } else { format!("the last {all} messages") };
                let answers = match (number("alike"), number("otherwise")) {
                    (Some(alike), Some(otherwise)) if alike + otherwise > 0 => {
                        format!(", and answered {alike} of {} alike", alike + otherwise)
                    }
                    _ => String::new(),
                };
                format!("{} handled {passed} of {last} on a copy{answers}", revision("revision")?)
            }
            (None, ..) => return None,
        }),
        _ => None,
    }
}

/// Renders the data of an event as pairs of name and value.
pub(super) fn pairs(data: &Value) -> String {
    let Value::Object(map) = data else { return data.to_string() };
    let parts = map.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| match value {
        Value::String(text) => format!("{name}={}", printable(text).replace('\n', " ")),
        other => format!("{name}={other}"),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// Returns a line with the statistics of the new revision.
pub(super) fn stats_line(rollout: &RolloutStatus) -> String {
    let RolloutStatus { to, started_instances, failed_instances, probes_passed, probes_failed, .. } = rollout;
    let memory = size(rollout.peak_memory_bytes);
    let pause = ago(Duration::from_millis(rollout.longest_pause_ms));
    let lost = match rollout.lost_messages {
        Some(lost) => format!("{} lost", count_of(lost, "message", "messages")),
        // Without a history of handled messages they cannot be counted.
        None if rollout.ended => "lost messages not counted".to_owned(),
        None => "lost messages are counted at the end".to_owned(),
    };
    let started = count_of(*started_instances, "instance", "instances");
    let passed = count_of(*probes_passed, "probe", "probes");
    format!(
        "{to}: {started} started, {failed_instances} failed; {passed} passed, {probes_failed} failed; {memory} of memory \
         at most; longest pause {pause}; {lost}"
    )
}

/// Returns a table of the differing answers, with both values of each path.
pub(super) fn differences_table(messages: &[DifferingMessage]) -> Table {
    let mut table = Table::new(&["MESSAGE", "FROM", "PATH", "STABLE", "CANDIDATE"]);
    for message in messages {
        for found in &message.differences {
            let side = |side: &Option<String>| Cell::new(side.clone().unwrap_or_else(|| "-".to_owned()));
            let cells = [Cell::new(&message.message), Cell::new(&message.sender), Cell::new(&found.path)];
            table.row(cells.into_iter().chain([side(&found.stable), side(&found.candidate)]).collect());
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_rollouts_become_sentences() {
        let of = |kind: &str, data: Value| {
            sentence(&EventEntry { id: 1, at: 1, agent: Some("echo".to_owned()), kind: kind.to_owned(), data })
        };
        let status = |status: &str, before: Option<&str>| {
            let data = json!({
                "rollout": 3, "from": 1, "to": 2, "strategy": "canary", "status": status, "before": before, "why": "so",
            });
            of("rollout.status", data).unwrap()
        };
        for (sentence, expected) in [
            (status("pending", None), "the rollout of echo@2 after echo@1 begins, canary: so"),
            (status("in-progress", Some("starting")), "the rollout of echo@2 is in-progress: so"),
            (status("paused", Some("in-progress")), "the rollout of echo@2 pauses: so"),
            (status("in-progress", Some("paused")), "the rollout of echo@2 is resumed: so"),
            (status("rolling-back", Some("paused")), "the rollout of echo@2 goes back: so"),
            (status("rolled-back", Some("rolling-back")), "the rollout of echo@2 was taken back: so"),
            (status("completed", Some("paused")), "the rollout of echo@2 is completed: so"),
            (status("in-progress", None), "the rollout of echo@2 is in-progress: so"),
        ] {
            assert_eq!(sentence, expected);
        }
        let step = json!({ "to": 2, "step": 2, "steps": 5, "what": "25% for 10m", "weight": 25 });
        assert_eq!(
            of("rollout.step", step).as_deref(),
            Some("the rollout of echo@2 is at step 2 of 5, 25%: 25% for 10m")
        );
        let counted = of("rollout.counted", json!({ "rollout": 3, "lost": 0 }));
        assert_eq!(counted.as_deref(), Some("0 messages were lost in rollout 3"));
        let counted = of("rollout.counted", json!({ "rollout": 3, "lost": 1 }));
        assert_eq!(counted.as_deref(), Some("1 message was lost in rollout 3"));
        for (all, expected) in [(1, "the last message"), (2, "the last 2 messages")] {
            let passed = of("rollout.rehearsed", json!({ "revision": 2, "passed": 1, "messages": all }));
            assert_eq!(passed, Some(format!("echo@2 handled 1 of {expected} on a copy")));
        }
        let failed = of("rollout.rehearsed", json!({ "revision": 2, "failed": "one\ntwo" }));
        assert_eq!(failed.as_deref(), Some("the rehearsal of echo@2 failed: one two"));
        let passed = json!({ "revision": 2, "passed": 9, "messages": 9, "alike": 7, "otherwise": 1, "failed": null });
        let told = "echo@2 handled 9 of the last 9 messages on a copy, and answered 7 of 8 alike";
        assert_eq!(of("rollout.rehearsed", passed).as_deref(), Some(told));
        // An event of another version is shown as pairs.
        assert_eq!(of("rollout.step", json!({ "to": 2 })), None);
        assert_eq!(of("agent.removed", json!({})), None);
    }
}
