//! The percentages, batches, weights and steps of a rollout, as written.

use std::collections::BTreeSet;
use std::time::Duration;

use super::bounds::{bounded, time};
use super::error::{ConfigError, Location};
use super::error_parts::BadUnit;
use super::findings::Findings;
use super::node::{Node, Value};
use crate::format::MAX_VERSION;
use crate::rollout::strategy::{Batch, CanaryStep, MAX_WEIGHTS};
use crate::units::{parse_duration, parse_percent};

/// The longest time of a step, in milliseconds: a canary that needs longer needs a person, as with `pause`.
const MAX_HOLD_MS: u64 = 24 * 60 * 60 * 1_000;

/// Reads a percentage such as `5%` or `0.5%`, or a number that means percent.
///
/// # Errors
/// The value is neither, or out of bounds.
pub(super) fn percent(node: &Node, least: f64, most: f64, at: Location) -> Result<f64, ConfigError> {
    let given = match &node.value {
        Value::String(text) => parse_percent(text).ok(),
        #[allow(clippy::cast_precision_loss, reason = "what is within bounds is small")]
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    };
    match given {
        Some(percent) if (least..=most).contains(&percent) => Ok(percent),
        Some(percent) => {
            let [given, least, most] = [percent, least, most].map(|percent| format!("{percent}%"));
            Err(ConfigError::OutOfBounds { at, given, least, most })
        }
        None => Err(ConfigError::WrongType {
            at,
            expected: "a percentage".to_owned(),
            found: node.value.describe(),
            example: "\"5%\"".to_owned(),
        }),
    }
}

/// Reads a batch of instances: a number, or a percentage.
///
/// # Errors
/// The value is neither, or not from 1 to 100.
pub(super) fn batch(node: &Node, at: Location) -> Result<Batch, ConfigError> {
    match &node.value {
        // Read as a percentage, whose bounds and errors are the same.
        Value::Integer(_) => percent(node, 1.0, 100.0, at).map(|count| Batch::Count(count as u32)),
        // Rounded up: a batch of half a percent must not become none.
        _ => percent(node, 1.0, 100.0, at).map(|percent| Batch::Percent(percent.ceil() as u32)),
    }
}

/// Reads the steps of a canary: tables with `weight` and `for`, or `pause = true`. Weights have to rise.
pub(super) fn canary_steps(node: &Node, path: &str, findings: &mut Findings) -> Option<Vec<CanaryStep>> {
    let nodes = steps(node, path, "steps = [{ weight = 5, for = \"5m\" }, { pause = true }]", findings)?;
    let before = findings.errors.len();
    let mut found = Vec::with_capacity(nodes.len());
    // Zero is below every valid weight, so the first one always rises.
    let mut last = 0;
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let step = canary_step(node, &path, findings);
        if let Some(CanaryStep::Weight { percent, .. }) = step {
            rising(&mut last, percent, &path, node, findings);
        }
        found.extend(step);
    }
    // Without the wrong steps it would be another rollout than the declared one.
    (findings.errors.len() == before).then_some(found)
}

fn canary_step(node: &Node, path: &str, findings: &mut Findings) -> Option<CanaryStep> {
    let at = |node: &Node, key: &str| Location { key: format!("{path}{key}"), source: node.source.clone() };
    let Value::Table(table) = &node.value else {
        findings.errors.push(ConfigError::WrongType {
            at: at(node, ""),
            expected: "a table".to_owned(),
            found: node.value.describe(),
            example: "{ weight = 5, for = \"5m\" }".to_owned(),
        });
        return None;
    };
    // The only keys outside the schema, since a step is a value and no table of settings.
    const KNOWN: [&str; 3] = ["weight", "for", "pause"];
    let unknown = table.iter().filter(|(name, _)| !KNOWN.contains(&name.as_str()));
    for (name, entry) in unknown {
        let suggestion = findings.suggest.nearest(name, KNOWN).map(str::to_owned);
        let at = Location { key: format!("{path}.{name}"), source: entry.key.clone() };
        findings.errors.push(ConfigError::UnknownKey { at, suggestion, known: KNOWN.to_vec() });
    }
    match (table.get("weight"), table.get("pause")) {
        (None, Some(pause)) => match (&pause.node.value, table.get("for")) {
            (Value::Boolean(true), None) => Some(CanaryStep::Pause),
            _ => {
                findings.errors.push(ConfigError::WrongType {
                    at: at(&pause.node, ".pause"),
                    expected: "true, and nothing beside it: a pause lasts until `caxton rollout promote`".to_owned(),
                    found: pause.node.value.describe(),
                    example: "{ pause = true }".to_owned(),
                });
                None
            }
        },
        (Some(weight), None) => {
            let percent = match percent(&weight.node, 1.0, 100.0, at(&weight.node, ".weight")) {
                Ok(percent) => percent as u8,
                Err(error) => {
                    findings.errors.push(error);
                    return None;
                }
            };
            let hold = match table.get("for") {
                Some(entry) => match hold(&entry.node, path) {
                    Ok(hold) => hold,
                    Err(error) => {
                        findings.errors.push(error);
                        return None;
                    }
                },
                None => Duration::ZERO,
            };
            Some(CanaryStep::Weight { percent, hold })
        }
        (Some(_), Some(_)) | (None, None) => {
            findings.errors.push(ConfigError::WrongType {
                at: at(node, ""),
                expected: "a table with `weight`, or with `pause`".to_owned(),
                found: "a table with both or none",
                example: "{ weight = 5, for = \"5m\" }".to_owned(),
            });
            None
        }
    }
}

/// Reads the weights of a split, which have to rise.
pub(super) fn weights(node: &Node, path: &str, findings: &mut Findings) -> Option<Vec<u8>> {
    let nodes = steps(node, path, "steps = [5, 25, 50, 100]", findings)?;
    let before = findings.errors.len();
    let (mut found, mut last) = (Vec::with_capacity(nodes.len()), 0);
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        match percent(node, 1.0, 100.0, Location { key: path.clone(), source: node.source.clone() }) {
            Ok(percent) => {
                rising(&mut last, percent as u8, &path, node, findings);
                found.push(percent as u8);
            }
            Err(error) => findings.errors.push(error),
        }
    }
    (findings.errors.len() == before).then_some(found)
}

/// Reads versions of a format, if all are right.
pub(super) fn versions(nodes: &[Node], path: &str, findings: &mut Findings) -> Option<BTreeSet<u32>> {
    let before = findings.errors.len();
    let mut found = BTreeSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let at = Location { key: format!("{path}[{index}]"), source: node.source.clone() };
        let Value::Integer(given) = node.value else {
            let (expected, example) = ("a whole number".to_owned(), "1".to_owned());
            findings.errors.push(ConfigError::WrongType { at, expected, found: node.value.describe(), example });
            continue;
        };
        match bounded(i128::from(given), 0, MAX_VERSION, at, |n| n.to_string()) {
            // The bound is within 32 bits, so the fallback is never taken.
            Ok(version) => drop(found.insert(u32::try_from(version).unwrap_or(u32::MAX))),
            Err(error) => findings.errors.push(error),
        }
    }
    (findings.errors.len() == before).then_some(found)
}

fn steps<'a>(node: &'a Node, path: &str, example: &str, findings: &mut Findings) -> Option<&'a [Node]> {
    let at = Location { key: path.to_owned(), source: node.source.clone() };
    let Value::Array(nodes) = &node.value else {
        let (expected, found) = ("a list of steps".to_owned(), node.value.describe());
        findings.errors.push(ConfigError::WrongType { at, expected, found, example: example.to_owned() });
        return None;
    };
    if nodes.is_empty() || nodes.len() > MAX_WEIGHTS {
        let given = format!("{} steps", nodes.len());
        let (least, most) = ("1".to_owned(), MAX_WEIGHTS.to_string());
        findings.errors.push(ConfigError::OutOfBounds { at, given, least, most });
        return None;
    }
    Some(nodes)
}

/// Reports a weight that is not above the one before: with falling weights a conversation could not stay on the
/// revision where it began.
fn rising(last: &mut u8, percent: u8, path: &str, node: &Node, findings: &mut Findings) {
    if percent <= *last {
        let at = Location { key: path.to_owned(), source: node.source.clone() };
        let (given, least) = (format!("{percent}%"), format!("{}%", last.saturating_add(1)));
        findings.errors.push(ConfigError::OutOfBounds { at, given, least, most: "100%".to_owned() });
    }
    // After a weight that is too low, the next is still compared with the one before it.
    *last = percent.max(*last);
}

/// Reads the time of a step, up to a day.
fn hold(node: &Node, path: &str) -> Result<Duration, ConfigError> {
    let at = Location { key: format!("{path}.for"), source: node.source.clone() };
    let Value::String(text) = &node.value else {
        let (expected, example) = ("a duration".to_owned(), "for = \"5m\"".to_owned());
        return Err(ConfigError::WrongType { at, expected, found: node.value.describe(), example });
    };
    match parse_duration(text) {
        Ok(given) => time(given, 0, MAX_HOLD_MS, at),
        Err(reason) => Err(ConfigError::BadDuration { at, text: BadUnit { given: text.clone(), reason } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Entry, Source, Table};

    fn tree(value: &serde_json::Value) -> Node {
        let source = Source::File { start: 0, end: 0 };
        let value = match value {
            serde_json::Value::Object(fields) => {
                let entry = |(key, value)| (String::clone(key), Entry { key: source.clone(), node: tree(value) });
                Value::Table(fields.iter().map(entry).collect::<Table>())
            }
            serde_json::Value::Array(values) => Value::Array(values.iter().map(tree).collect()),
            serde_json::Value::String(text) => Value::String(text.clone()),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => Value::Integer(number),
                None => Value::Float(number.as_f64().unwrap()),
            },
            serde_json::Value::Bool(truth) => Value::Boolean(*truth),
            serde_json::Value::Null => panic!("a file has no null"),
        };
        Node { value, source }
    }

    fn at() -> Location {
        Location { key: "x".to_owned(), source: Source::Default }
    }

    /// Returns the keys of the errors.
    fn places(findings: &Findings) -> Vec<String> {
        findings.errors.iter().map(|error| error.at().key.clone()).collect()
    }

    #[test]
    fn percentages_are_parsed_within_their_bounds() {
        for (given, expected) in [
            (serde_json::json!("5%"), Some(5.0)),
            (serde_json::json!("0.5%"), Some(0.5)),
            (serde_json::json!(5), Some(5.0)),
            (serde_json::json!(2.5), Some(2.5)),
            (serde_json::json!("101%"), None),
            (serde_json::json!(-1), None),
            (serde_json::json!("5"), None),
            (serde_json::json!(true), None),
        ] {
            assert_eq!(percent(&tree(&given), 0.0, 100.0, at()).ok(), expected, "{given}");
        }
    }

    #[test]
    fn batches_are_numbers_or_percentages() {
        for (given, expected) in [
            (serde_json::json!(1), Some(Batch::Count(1))),
            (serde_json::json!("25%"), Some(Batch::Percent(25))),
            (serde_json::json!(0), None),
            (serde_json::json!(101), None),
            (serde_json::json!("0%"), None),
        ] {
            assert_eq!(batch(&tree(&given), at()).ok(), expected, "{given}");
        }
    }

    #[test]
    fn canaries_are_parsed_with_all_their_errors() {
        let weight = |percent, seconds| CanaryStep::Weight { percent, hold: Duration::from_secs(seconds) };
        for (given, expected, wrong) in [
            (
                serde_json::json!([{ "weight": 5, "for": "5m" }, { "pause": true }, { "weight": "50%" }]),
                Some(vec![weight(5, 300), CanaryStep::Pause, weight(50, 0)]),
                vec![],
            ),
            (serde_json::json!([]), None, vec!["x"]),
            (serde_json::json!("x"), None, vec!["x"]),
            (serde_json::json!([5]), None, vec!["x[0]"]),
            (serde_json::json!([{}]), None, vec!["x[0]"]),
            (serde_json::json!([{ "weight": 5, "pause": true }]), None, vec!["x[0]"]),
            (serde_json::json!([{ "pause": false }]), None, vec!["x[0].pause"]),
            (serde_json::json!([{ "pause": true, "for": "5m" }]), None, vec!["x[0].pause"]),
            (serde_json::json!([{ "weight": 0 }, { "weight": 101 }]), None, vec!["x[0].weight", "x[1].weight"]),
            (serde_json::json!([{ "weight": 50 }, { "weight": 50 }]), None, vec!["x[1]"]),
            (serde_json::json!([{ "weight": 50, "for": "25h" }]), None, vec!["x[0].for"]),
            (serde_json::json!([{ "weight": 50, "fro": "5m" }]), None, vec!["x[0].fro"]),
        ] {
            let mut findings = Findings::default();
            assert_eq!(canary_steps(&tree(&given), "x", &mut findings), expected, "{given}");
            assert_eq!(places(&findings), wrong, "{given}");
        }
    }

    #[test]
    fn weights_rise() {
        for (given, expected, wrong) in [
            (serde_json::json!([5, "50%", 100]), Some(vec![5, 50, 100]), vec![]),
            (serde_json::json!([5, 5]), None, vec!["x[1]"]),
            (serde_json::json!([50, 5, 60]), None, vec!["x[1]"]),
            (serde_json::json!([0]), None, vec!["x[0]"]),
        ] {
            let mut findings = Findings::default();
            assert_eq!(weights(&tree(&given), "x", &mut findings), expected, "{given}");
            assert_eq!(places(&findings), wrong, "{given}");
        }
    }
}
