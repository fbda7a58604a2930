//! The judgement of a candidate's answers in a rehearsal.
//!
//! A revision that expects the state in another format may handle every message without a failure and answer as if
//! there were no state. Only its answers show that.

use std::fmt;

use serde::Serialize;

use super::answer::AnswerDifference;
use super::window::ComparisonCounts;
use crate::units::percent_of;

/// The result of handling past messages on a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RehearsalState {
    /// Has not finished yet.
    #[default]
    Open,
    /// The candidate handled all messages, and answered so.
    Passed(RehearsalSummary),
    /// A message was not handled: its position and the error.
    Failed(String),
}

/// The comparison of the answers in a rehearsal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RehearsalSummary {
    /// Messages that were answered as by the running revision now, or as they were answered originally.
    pub alike: u32,
    /// Messages that were answered otherwise.
    pub otherwise: u32,
    /// Messages whose answers were not compared.
    pub not_compared: u32,
    /// The first difference.
    pub first: Option<FirstMismatch>,
}

/// The first message that was answered otherwise, and the first place in which the answers differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstMismatch {
    /// The message's id.
    pub message: String,
    /// The path in the answer, and both values.
    pub difference: AnswerDifference,
}

impl RehearsalSummary {
    /// Returns the number of messages whose answers were compared.
    pub fn compared(&self) -> u32 {
        self.alike + self.otherwise
    }

    /// Returns the comparison as figures of a rollout.
    pub fn figures(&self) -> ComparisonCounts {
        let [copies, alike, set_aside] = [self.compared(), self.alike, self.not_compared].map(u64::from);
        ComparisonCounts { copies, alike, set_aside }
    }

    /// Returns the reason to refuse a candidate if fewer than `match_percent` of its compared answers are alike; `None`
    /// if the rule is off, or no answer was compared.
    pub fn refusal(&self, match_percent: Option<f64>) -> Option<String> {
        // Off by default: answers may differ for good reasons, such as a mended fault.
        let least = match_percent?;
        let (alike, all) = (u64::from(self.alike), u64::from(self.compared()));
        // Without a compared answer the share is unknown, and not 0.
        (all > 0 && percent_of(alike, all) < least)
            .then(|| format!("{self}; {least}% have to be alike (`rollback.match`)"))
    }
}

/// The figures and the first difference, for people to read.
impl fmt::Display for RehearsalSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { alike, otherwise, .. } = self;
        match (self.compared(), otherwise) {
            (0, _) => f.write_str("no answer was compared")?,
            (all, 0) => write!(f, "{alike} of {all} answers were alike")?,
            (all, _) => write!(f, "{otherwise} of {all} messages were answered otherwise")?,
        }
        match &self.first {
            Some(first) => write!(f, ", the first of them {first}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FirstMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AnswerDifference { path, stable, candidate } = &self.difference;
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {path} is {} and not {}", self.message, side(candidate), side(stable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_equal_answers_refuse_with_the_first_difference() {
        // alike, otherwise, the least percentage, refused
        for (alike, otherwise, least, refused) in [
            (0, 0, Some(100.0), false),
            (9, 1, Some(90.0), false),
            (9, 1, Some(90.1), true),
            (0, 1, Some(0.0), false),
            (1, 24, Some(90.0), true),
            (1, 24, None, false),
            (25, 0, Some(100.0), false),
        ] {
            let answers = RehearsalSummary { alike, otherwise, not_compared: 7, first: None };
            assert_eq!(answers.refusal(least).is_some(), refused, "{answers:?} {least:?}");
        }
        let difference =
            AnswerDifference { path: "reply.have".to_owned(), stable: Some("26".to_owned()), candidate: None };
        let first = Some(FirstMismatch { message: "m-1".to_owned(), difference });
        let answers = RehearsalSummary { alike: 1, otherwise: 24, not_compared: 0, first };
        let expected = "24 of 25 messages were answered otherwise, the first of them m-1: reply.have is nothing and not \
                        26; 90% have to be alike (`rollback.match`)";
        assert_eq!(answers.refusal(Some(90.0)).as_deref(), Some(expected));
    }
}
