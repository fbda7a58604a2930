//! When the memory of a stateful agent is saved.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::units::{UnitError, parse_duration, print_duration};

/// The interval of saves of a memory that is too large for commits: what a crash costs then is a few seconds, and a
/// large memory is not written more often.
pub const DEFERRED: SaveMode = SaveMode::Interval(Duration::from_secs(5));

/// The most messages between two saves.
const MAX_MESSAGES: u32 = 1_000_000;
/// The shortest and the longest time between two saves. Idle instances are looked at each second.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60 * 60));

/// The setting `snapshot.save`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaveMode {
    /// Saves after each message, in its commit.
    Commit,
    /// Saves when the instance ends: idle, replaced, or with the host.
    Idle,
    /// Saves after so many messages as well.
    Messages(u32),
    /// Saves at least so long after a message as well.
    Interval(Duration),
}

/// The error for a text that is no [`SaveMode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaveModeError {
    /// The text is none of the words.
    #[error("there is no such time")]
    Unknown,
    /// The duration after `every` cannot be read.
    #[error("{0}")]
    Duration(#[from] UnitError),
    /// The number or the duration is out of bounds.
    #[error("out of bounds")]
    Bounds,
}

impl FromStr for SaveMode {
    type Err = SaveModeError;

    fn from_str(text: &str) -> Result<Self, SaveModeError> {
        let every = match text {
            "commit" => return Ok(Self::Commit),
            "idle" => return Ok(Self::Idle),
            _ => text.strip_prefix("every ").ok_or(SaveModeError::Unknown)?,
        };
        // A number without a unit is one of messages.
        if !every.is_empty() && every.bytes().all(|byte| byte.is_ascii_digit()) {
            let messages = every.parse().map_err(|_| SaveModeError::Bounds)?;
            return if (1..=MAX_MESSAGES).contains(&messages) {
                Ok(Self::Messages(messages))
            } else {
                Err(SaveModeError::Bounds)
            };
        }
        let interval = parse_duration(every)?;
        if (INTERVAL.0..=INTERVAL.1).contains(&interval) {
            Ok(Self::Interval(interval))
        } else {
            Err(SaveModeError::Bounds)
        }
    }
}

impl fmt::Display for SaveMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit => f.write_str("commit"),
            Self::Idle => f.write_str("idle"),
            Self::Messages(messages) => write!(f, "every {messages}"),
            Self::Interval(interval) => write!(f, "every {}", print_duration(*interval)),
        }
    }
}

impl Serialize for SaveMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The messages that a memory has in it and that are in no saved one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsavedMessages {
    /// Their number.
    pub count: u64,
    /// The time since the first of them.
    pub age: Duration,
}

impl SaveMode {
    /// Returns the mode that is in force while a memory is too large for commits, or cannot be saved in one.
    #[must_use]
    pub fn in_force(self, is_deferred: bool) -> Self {
        if self == Self::Commit && is_deferred { DEFERRED } else { self }
    }

    /// Returns `true` if a memory with these messages has to be saved apart from a commit.
    pub fn is_due(self, unsaved: UnsavedMessages) -> bool {
        match self {
            Self::Idle => false,
            // Left by another mode: from the next save on each commit has its own.
            Self::Commit => unsaved.count > 0,
            Self::Messages(messages) => unsaved.count >= u64::from(messages),
            Self::Interval(interval) => unsaved.count > 0 && unsaved.age >= interval,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_and_printed() {
        let seconds = Duration::from_secs;
        for (text, expected) in [
            ("commit", Ok(SaveMode::Commit)),
            ("idle", Ok(SaveMode::Idle)),
            ("every 1", Ok(SaveMode::Messages(1))),
            ("every 1000000", Ok(SaveMode::Messages(1_000_000))),
            ("every 5s", Ok(SaveMode::Interval(seconds(5)))),
            ("every 1m30s", Ok(SaveMode::Interval(seconds(90)))),
            ("every 1h", Ok(SaveMode::Interval(seconds(3_600)))),
            ("every 0", Err(SaveModeError::Bounds)),
            ("every 1000001", Err(SaveModeError::Bounds)),
            ("every 99999999999", Err(SaveModeError::Bounds)),
            ("every 999ms", Err(SaveModeError::Bounds)),
            ("every 2h", Err(SaveModeError::Bounds)),
            ("every ", Err(SaveModeError::Duration(UnitError::Empty))),
            ("every 5x", Err(SaveModeError::Duration(UnitError::UnknownUnit("x".to_owned())))),
            ("every5s", Err(SaveModeError::Unknown)),
            ("Commit", Err(SaveModeError::Unknown)),
            ("", Err(SaveModeError::Unknown)),
        ] {
            let read = text.parse::<SaveMode>();
            assert_eq!(read, expected, "{text}");
            if let Ok(mode) = read {
                assert_eq!(mode.to_string(), text);
            }
        }
    }

    #[test]
    fn a_save_is_due_by_messages_or_time() {
        let after = |count, seconds| UnsavedMessages { count, age: Duration::from_secs(seconds) };
        let (twenty, five) = (SaveMode::Messages(20), SaveMode::Interval(Duration::from_secs(5)));
        for (mode, unsaved, expected) in [
            (SaveMode::Idle, after(1_000_000, 100_000), false),
            (SaveMode::Commit, after(0, 0), false),
            (SaveMode::Commit, after(1, 0), true),
            (twenty, after(19, 1_000), false),
            (twenty, after(20, 0), true),
            (five, after(1_000, 4), false),
            (five, after(1, 5), true),
            (five, after(0, 9), false),
        ] {
            assert_eq!(mode.is_due(unsaved), expected, "{mode} {unsaved:?}");
        }
        assert_eq!(SaveMode::Commit.in_force(true), five);
        assert_eq!(
            (SaveMode::Commit.in_force(false), SaveMode::Idle.in_force(true)),
            (SaveMode::Commit, SaveMode::Idle)
        );
    }
}
