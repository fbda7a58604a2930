//! The tables `[budgets.NAME]`, the names by which others refer to them, and the meters of places.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{ConfigError, Location, PlaceProblem};
use super::findings::Findings;
use super::meters::MeterUnits;
use super::node::Value;
use super::policy_error::PolicyError;
use super::schema;
use super::section::Section;
use super::values::{bad_place, wrong_type};
use crate::budget::BudgetSpec;
use crate::meter::UnitMeter;
use crate::names::BudgetName;
use crate::place::PlaceError;

/// Reads all budgets. Their names are known from then on, also those of budgets with errors.
pub(super) fn budgets(root: &Section<'_>, findings: &mut Findings) -> BTreeMap<BudgetName, Arc<BudgetSpec>> {
    let mut budgets = BTreeMap::new();
    let Some(entry) = root.entry("budgets") else { return budgets };
    let Value::Table(table) = &entry.node.value else {
        findings.errors.push(wrong_type(root.schema("budgets"), "budgets", &entry.node, "budgets"));
        return budgets;
    };
    for (name, entry) in table {
        let path = format!("budgets.{name}");
        let parsed = name.parse::<BudgetName>().map_err(|reason| {
            let at = Location { key: path.clone(), source: entry.key.clone() };
            findings.errors.push(ConfigError::BadName { at, given: name.clone(), whose: "a budget", reason });
        });
        findings.budgets.extend(parsed.clone());
        let Value::Table(settings) = &entry.node.value else {
            findings.errors.push(ConfigError::WrongType {
                at: Location { key: path, source: entry.node.source.clone() },
                expected: "a table".to_owned(),
                found: entry.node.value.describe(),
                example: format!("[budgets.{name}]"),
            });
            continue;
        };
        let section = Section::open(&schema::root()["budgets"].fields, settings, path, entry.key.clone(), findings);
        let before = findings.errors.len();
        let spec = read_budget(&section, findings);
        // Without a limit it would act on nothing.
        if spec.is_unlimited() && findings.errors.len() == before {
            findings.errors.push(section.missing(section.schema("messages"), "messages", None));
        }
        if let Ok(name) = parsed {
            budgets.insert(name, Arc::new(spec));
        }
    }
    budgets
}

fn read_budget(section: &Section<'_>, findings: &mut Findings) -> BudgetSpec {
    BudgetSpec {
        messages: section.get("messages", None, findings),
        calls: section.get("calls", None, findings),
        bytes: section.get("bytes", None, findings),
        cpu: section.get("cpu", None, findings),
        time: section.get("time", None, findings),
        units: section.get("units", None, findings).unwrap_or_default(),
        callers: section.get("callers", None, findings).unwrap_or_default(),
    }
}

/// Reads the key `budget`, which names a budget that is declared.
pub(super) fn budget(section: &Section<'_>, findings: &mut Findings) -> Option<BudgetName> {
    let name: BudgetName = section.get("budget", None, findings)?;
    if !findings.budgets.contains(&name) {
        let at = Location { key: section.key("budget"), source: section.source_of("budget") };
        let known = findings.budgets.iter().map(BudgetName::as_str);
        let suggestion = findings.suggest.nearest(name.as_str(), known).map(str::to_owned);
        let reason = PolicyError::UnknownBudget { name: name.to_string(), suggestion };
        findings.errors.push(ConfigError::Policy { at, reason: Box::new(reason) });
    }
    Some(name)
}

/// Reads the keys `meter` and `at-most` of a place. Returns `None` after an error.
pub(super) fn meter(section: &Section<'_>, findings: &mut Findings) -> Option<UnitMeter> {
    let before = findings.errors.len();
    let units: MeterUnits = section.get("meter", None, findings).unwrap_or_default();
    let at_most = section.get("at-most", None, findings).unwrap_or_default();
    if findings.errors.len() > before {
        return None;
    }
    let reason = match UnitMeter::new(units, at_most) {
        Ok(meter) => return Some(meter),
        Err(reason) => reason,
    };
    let name = if matches!(reason, crate::meter::MeterError::AtMost(_)) { "at-most" } else { "meter" };
    let at = Location { key: section.key(name), source: section.source_of(name) };
    let given = section.entry("url").map(|entry| match &entry.node.value {
        Value::String(url) => url.clone(),
        _ => String::new(),
    });
    let problem = PlaceProblem::Unusable { given: given.unwrap_or_default(), reason: PlaceError::Meter(reason) };
    findings.errors.push(bad_place(at, problem));
    None
}
