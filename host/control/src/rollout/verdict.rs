//! The result of a judgement, and the rule that decided it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The rule by which a candidate is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Trigger {
    /// Too few probes passed.
    Probes,
    /// Too many messages failed.
    Errors,
    /// Its messages take too long.
    Slower,
    /// Stable fails more often since the candidate has traffic.
    Stable,
    /// An instance uses too much memory.
    Memory,
    /// Its answers differ.
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
    /// Too few messages to judge by.
    Waiting {
        /// The number of messages so far.
        have: u64,
        /// The number of messages needed.
        need: u64,
    },
    /// As good as stable.
    Healthy,
    /// Worse than stable, or than an absolute bound.
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
