//! The errors of a check as they are found.

use std::collections::BTreeSet;

use super::ceilings::Ceilings;
use super::error::ConfigError;
use super::host_rules::HostRules;
use super::suggestions::Suggestions;
use crate::names::BudgetName;

/// The results of reading beside the values: the errors so far, and the remaining budget for suggestions; with the ceilings
/// that values are compared with.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<ConfigError>,
    pub(super) suggest: Suggestions,
    pub(super) ceilings: Ceilings,
    /// The rules for grants.
    pub(super) rules: HostRules,
    /// The budgets that are declared, which others name.
    pub(super) budgets: BTreeSet<BudgetName>,
}
