//! The reading of names and tables of units: what a place counts, and the most that a call or a tree uses.

use std::collections::BTreeMap;

use super::error::{ConfigError, Location};
use super::findings::Findings;
use super::node::{Node, Table, Value};
use crate::names::{BudgetName, UnitName};

/// The units of a meter: each with its pointers and their factors.
pub(super) type MeterUnits = BTreeMap<String, BTreeMap<String, u64>>;

/// Parses the name of a budget.
pub(super) fn budget_name(text: &str, at: Location) -> Result<BudgetName, ConfigError> {
    text.parse().map_err(|reason| ConfigError::BadName { at, given: text.to_owned(), whose: "a budget", reason })
}

/// Reads a table of whole numbers by unit; `None` if one is wrong.
pub(super) fn read_units(table: &Table, path: &str, findings: &mut Findings) -> Option<BTreeMap<String, u64>> {
    let before = findings.errors.len();
    let mut units = BTreeMap::new();
    for (name, entry) in table {
        let path = format!("{path}.{name}");
        check_unit(name, &path, entry.key.clone(), findings);
        units.extend(amount(&entry.node, &path, findings).map(|amount| (name.clone(), amount)));
    }
    (findings.errors.len() == before).then_some(units)
}

/// Reads the units of a meter; `None` if one is wrong. A pointer alone has the factor 1.
pub(super) fn read_meter(table: &Table, path: &str, findings: &mut Findings) -> Option<MeterUnits> {
    // Counted and not returned at the first: all errors are shown at once.
    let before = findings.errors.len();
    let mut units = MeterUnits::new();
    for (name, entry) in table {
        let path = format!("{path}.{name}");
        check_unit(name, &path, entry.key.clone(), findings);
        let mut terms = BTreeMap::new();
        match &entry.node.value {
            Value::String(pointer) => drop(terms.insert(pointer.clone(), 1)),
            Value::Table(factors) => {
                for (pointer, entry) in factors {
                    let factor = amount(&entry.node, &format!("{path}.{pointer}"), findings);
                    terms.extend(factor.map(|factor| (pointer.clone(), factor)));
                }
            }
            other => findings.errors.push(ConfigError::WrongType {
                at: Location { key: path, source: entry.node.source.clone() },
                expected: "a JSON pointer".to_owned(),
                found: other.describe(),
                example: format!("{name} = \"/usage/total_tokens\""),
            }),
        }
        units.insert(name.clone(), terms);
    }
    (findings.errors.len() == before).then_some(units)
}

fn check_unit(name: &str, path: &str, source: super::node::Source, findings: &mut Findings) {
    if let Err(reason) = name.parse::<UnitName>() {
        let at = Location { key: path.to_owned(), source };
        findings.errors.push(ConfigError::BadName { at, given: name.to_owned(), whose: "a unit", reason });
    }
}

/// Reads a whole number from 1 on.
fn amount(node: &Node, path: &str, findings: &mut Findings) -> Option<u64> {
    let at = Location { key: path.to_owned(), source: node.source.clone() };
    match node.value {
        Value::Integer(number @ 1..) => return u64::try_from(number).ok(),
        Value::Integer(number) => findings.errors.push(ConfigError::OutOfBounds {
            at,
            given: number.to_string(),
            least: "1".to_owned(),
            most: i64::MAX.to_string(),
        }),
        ref other => findings.errors.push(ConfigError::WrongType {
            at,
            expected: "a whole number".to_owned(),
            found: other.describe(),
            example: format!("{} = 4000", path.rsplit('.').next().unwrap_or("tokens")),
        }),
    }
    None
}
