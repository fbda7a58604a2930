//! Tests with ledgers stored by an earlier version of the host: they are read without loss.

use caxton_control::revision_settings;
use caxton_control::rollout::Ledger;
use serde_json::Value;

/// The ledgers of four agents, one a line, from before settings were stored sparsely: rollouts with all strategies, one
/// paused half way, and one refused.
const BEFORE: &str = include_str!("ledgers/before-sparse-settings.jsonl");

/// Checks that `now` contains everything in `before`.
fn holds(now: &Value, before: &Value, path: &str) -> Result<(), String> {
    match (now, before) {
        (Value::Object(now), Value::Object(before)) => before.iter().try_for_each(|(key, value)| {
            let path = format!("{path}.{key}");
            holds(now.get(key).ok_or_else(|| format!("{path} is gone"))?, value, &path)
        }),
        (Value::Array(now), Value::Array(before)) if now.len() == before.len() => {
            now.iter().zip(before).try_for_each(|(now, before)| holds(now, before, path))
        }
        (Value::String(now), Value::String(before)) if *now == revision_settings::normalize(before) => Ok(()),
        (now, before) if now == before => Ok(()),
        (now, before) => Err(format!("{path} was {before} and is {now}")),
    }
}

#[test]
fn ledgers_of_an_earlier_version_are_read_without_loss() {
    for line in BEFORE.lines() {
        let before: Value = serde_json::from_str(line).unwrap();
        let ledger: Ledger = serde_json::from_str(line).unwrap();
        let now = serde_json::to_value(&ledger).unwrap();
        holds(&now, &before, &ledger.agent.to_string()).unwrap();
        assert_eq!(serde_json::from_value::<Ledger>(now).unwrap(), ledger);
    }
}

#[test]
fn an_unreadable_record_loses_no_revision() {
    let mut ledger: Value = serde_json::from_str(BEFORE.lines().next().unwrap()).unwrap();
    ledger["rollouts"][0]["settings"]["strategy"] = serde_json::json!({ "occasion": "deploy", "strategy": "by-moon" });
    let (rollouts, ran) = (ledger["rollouts"].as_array().unwrap().len(), ledger["ran"].as_array().unwrap().len());
    let ledger: Ledger = serde_json::from_value(ledger).unwrap();
    assert_eq!((ledger.rollouts.len(), ledger.revisions.len()), (rollouts - 1, ran));
}
