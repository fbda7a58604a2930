//! The changes that a declaration would make or has made.

use serde::{Deserialize, Serialize};

/// A change that a plan would make or has made, for `caxton diff` and `caxton apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Change)]
pub(crate) struct PlannedChange {
    /// The agent's name; null for the host itself.
    pub(crate) agent: Option<String>,
    /// `add`, `remove`, `new-revision`, `in-place` or `restart-needed`; `under-way` for a change that the host is
    /// making; `missing`, `failed` or `refused` for a declared agent that does not run until a person fixes something.
    pub(crate) change: String,
    /// The settings that differ, such as `limits.memory: 64MiB -> 128MiB`.
    pub(crate) details: Vec<String>,
}

/// The changes that the declaration would make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Diff)]
pub(crate) struct DeclarationDiff {
    /// The differences between the running state and the declaration; empty if they match.
    pub(crate) changes: Vec<PlannedChange>,
}
