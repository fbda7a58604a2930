//! The errors of values that a ceiling, a budget or the operator's policy does not allow.

use super::node::Source;

/// The reason why a ceiling, a budget or the policy does not allow a value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PolicyError {
    /// A value above the ceiling of its key.
    #[error("{given} is above the ceiling of {most}")]
    AboveCeiling {
        /// The value as it was read.
        given: String,
        /// The ceiling.
        most: String,
        /// The key of the ceiling.
        ceiling: String,
        /// The place of the ceiling.
        other: Source,
    },
    /// A ceiling or a rule that is looser than that of the operator's own file.
    #[error("{given} is looser than the operator's policy, which has {allowed}")]
    Looser {
        /// The value as it was read.
        given: String,
        /// The value of the operator.
        allowed: String,
        /// The place of that.
        other: Source,
    },
    /// A grant that the policy forbids.
    #[error("{what} cannot be granted: `{rule}`")]
    Forbidden {
        /// The kind of grant, with its article.
        what: &'static str,
        /// The rule.
        rule: String,
        /// The place of the rule.
        other: Source,
    },
    /// A text that is no element of a list of the policy.
    #[error("`{given}` is not {kind}: {reason}")]
    BadItem {
        /// The text.
        given: String,
        /// The kind of element, with its article.
        kind: &'static str,
        /// The reason.
        reason: String,
        /// An example.
        example: &'static str,
    },
    /// A budget that is not declared.
    #[error("there is no budget `{name}`")]
    UnknownBudget {
        /// The name.
        name: String,
        /// The one that was probably meant.
        suggestion: Option<String>,
    },
}

impl PolicyError {
    /// The codes of all of these errors.
    pub(super) const CODES: [&'static str; 5] =
        ["above-ceiling", "looser-than-policy", "bad-policy-item", "forbidden-by-policy", "unknown-budget"];

    /// Returns the error's stable name for programs.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::AboveCeiling { .. } => "above-ceiling",
            Self::Looser { .. } => "looser-than-policy",
            Self::BadItem { .. } => "bad-policy-item",
            Self::Forbidden { .. } => "forbidden-by-policy",
            Self::UnknownBudget { .. } => "unknown-budget",
        }
    }

    /// Returns the place of the ceiling or the rule.
    pub(super) fn other(&self) -> Option<&Source> {
        match self {
            Self::AboveCeiling { other, .. } | Self::Looser { other, .. } | Self::Forbidden { other, .. } => {
                Some(other)
            }
            Self::BadItem { .. } | Self::UnknownBudget { .. } => None,
        }
    }

    /// Returns the remedy.
    pub(super) fn help(&self) -> String {
        match self {
            Self::AboveCeiling { most, ceiling, other, .. } => {
                format!("write {most} at most, or have `{ceiling}`{} raised", in_brackets(other))
            }
            Self::Looser { other, .. } => {
                format!("remove it, or write what is as strict as the operator's policy{}", in_brackets(other))
            }
            Self::Forbidden { other, .. } => format!("remove it, or have the rule changed{}", in_brackets(other)),
            Self::BadItem { example, .. } => format!("such as \"{example}\""),
            Self::UnknownBudget { suggestion: Some(name), .. } => format!("did you mean `{name}`?"),
            Self::UnknownBudget { name, suggestion: None } => {
                format!("declare it, such as `[budgets.{name}]` with `messages = 200`")
            }
        }
    }
}

/// Returns a place of another file or a variable for a sentence. One in the same file is shown with the error.
fn in_brackets(place: &Source) -> String {
    match place {
        Source::Place(text) => format!(" ({text})"),
        Source::Variable(name) => format!(" (environment variable {name})"),
        Source::File { .. } | Source::Flag(_) | Source::Default => String::new(),
    }
}
