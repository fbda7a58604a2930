//! The result of a judgement, and the rule that decided it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The rule by which a candidate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Trigger {
    /// The probes: too few passed.
    Probes,
    /// The failures: too many messages failed.
    Errors,
    /// The times: its messages take too long.
    Slower,
    /// The failures of stable, which are more since the candidate has traffic.
    Stable,
    /// An instance uses too much memory.
    Memory,
    /// The answers: they differ.
    Match,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Probes => "probes",
            Self::Errors => "errors",
            Self::Slower => "slower",
            Self::Stable => "stable",
            Self::Memory => "memory",
            Self::Match => "match",
        })
    }
}

/// The result of the judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The messages are too few to judge by.
    Waiting {
        /// The number of messages so far.
        have: u64,
        /// The number of messages needed.
        need: u64,
    },
    /// The candidate is as good as stable.
    Healthy,
    /// The candidate is worse than stable, or than an absolute bound.
    Refused {
        /// The rule.
        trigger: Trigger,
        /// The figures, for people to read.
        figures: String,
    },
}

impl Verdict {
    pub(super) fn refused(trigger: Trigger, figures: String) -> Self {
        Self::Refused { trigger, figures }
    }
}
