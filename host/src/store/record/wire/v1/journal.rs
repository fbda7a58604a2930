//! The rows of version 1 that have the journals of calls over HTTP.

use serde::{Deserialize, Serialize};

use crate::store::record::JournalRow;

/// [`JournalRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum JournalRowV1<'a> {
    Begun { seq: u64, hash: [u8; 32], nth: u32, line: &'a str, at: u64 },
    Ended { seq: u64, hash: [u8; 32], nth: u32, outcome: u16, response: &'a [u8] },
    CallRemoved { seq: u64, hash: [u8; 32], nth: u32 },
    Removed { seq: u64 },
    Moved { from: u64, to: u64 },
}

impl<'a> JournalRowV1<'a> {
    pub(super) fn of(row: &JournalRow<'a>) -> Self {
        match *row {
            JournalRow::Begun { seq, hash, nth, line, at } => Self::Begun { seq, hash, nth, line, at },
            JournalRow::Ended { seq, hash, nth, outcome, response } => {
                Self::Ended { seq, hash, nth, outcome, response }
            }
            JournalRow::CallRemoved { seq, hash, nth } => Self::CallRemoved { seq, hash, nth },
            JournalRow::Removed { seq } => Self::Removed { seq },
            JournalRow::Moved { from, to } => Self::Moved { from, to },
        }
    }

    pub(super) fn into_row(self) -> JournalRow<'a> {
        match self {
            Self::Begun { seq, hash, nth, line, at } => JournalRow::Begun { seq, hash, nth, line, at },
            Self::Ended { seq, hash, nth, outcome, response } => {
                JournalRow::Ended { seq, hash, nth, outcome, response }
            }
            Self::CallRemoved { seq, hash, nth } => JournalRow::CallRemoved { seq, hash, nth },
            Self::Removed { seq } => JournalRow::Removed { seq },
            Self::Moved { from, to } => JournalRow::Moved { from, to },
        }
    }
}
