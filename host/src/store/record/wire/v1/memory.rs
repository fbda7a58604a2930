//! The rows of version 1 that have the memory of agents, and the copies of their state.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::store::record::{MemoryRow, StateCopyRow};

/// [`MemoryRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum MemoryRowV1<'a> {
    Saved { agent: &'a str, revision: u64, saved_at: u64, data: &'a [u8] },
    SavedInPieces { agent: &'a str, revision: u64, saved_at: u64, pieces: u64, bytes: u64 },
    Piece { memory: u64, number: u64, data: &'a [u8] },
    PiecesRemoved { memory: u64, up_to: u64 },
    Removed { agent: &'a str },
    HandedOver { agent: &'a str, revision: u64, saved_at: u64, data: &'a [u8], pieces: Option<u64>, bytes: u64 },
    HandoffTaken { agent: &'a str, revision: u64, saved_at: u64 },
    SavedHandedOver { agent: &'a str, revision: u64 },
    HandoffsRemoved { agent: &'a str, revision: Option<u64> },
}

impl<'a> MemoryRowV1<'a> {
    pub(super) fn of(row: &'a MemoryRow<'_>) -> Self {
        match row {
            MemoryRow::Saved { agent, revision, saved_at, data } => {
                Self::Saved { agent, revision: *revision, saved_at: *saved_at, data }
            }
            MemoryRow::SavedInPieces { agent, revision, saved_at, pieces, bytes } => {
                Self::SavedInPieces { agent, revision: *revision, saved_at: *saved_at, pieces: *pieces, bytes: *bytes }
            }
            MemoryRow::Piece { memory, number, data } => Self::Piece { memory: *memory, number: *number, data },
            MemoryRow::PiecesRemoved { memory, up_to } => Self::PiecesRemoved { memory: *memory, up_to: *up_to },
            MemoryRow::Removed { agent } => Self::Removed { agent },
            MemoryRow::HandedOver { agent, revision, saved_at, data, pieces, bytes } => Self::HandedOver {
                agent,
                revision: *revision,
                saved_at: *saved_at,
                data,
                pieces: *pieces,
                bytes: *bytes,
            },
            MemoryRow::HandoffTaken { agent, revision, saved_at } => {
                Self::HandoffTaken { agent, revision: *revision, saved_at: *saved_at }
            }
            MemoryRow::SavedHandedOver { agent, revision } => Self::SavedHandedOver { agent, revision: *revision },
            MemoryRow::HandoffsRemoved { agent, revision } => Self::HandoffsRemoved { agent, revision: *revision },
        }
    }

    pub(super) fn into_row(self) -> MemoryRow<'a> {
        match self {
            Self::Saved { agent, revision, saved_at, data } => MemoryRow::Saved { agent, revision, saved_at, data },
            Self::SavedInPieces { agent, revision, saved_at, pieces, bytes } => {
                MemoryRow::SavedInPieces { agent, revision, saved_at, pieces, bytes }
            }
            Self::Piece { memory, number, data } => MemoryRow::Piece { memory, number, data },
            Self::PiecesRemoved { memory, up_to } => MemoryRow::PiecesRemoved { memory, up_to },
            Self::Removed { agent } => MemoryRow::Removed { agent },
            Self::HandedOver { agent, revision, saved_at, data, pieces, bytes } => {
                MemoryRow::HandedOver { agent, revision, saved_at, data, pieces, bytes }
            }
            Self::HandoffTaken { agent, revision, saved_at } => MemoryRow::HandoffTaken { agent, revision, saved_at },
            Self::SavedHandedOver { agent, revision } => MemoryRow::SavedHandedOver { agent, revision },
            Self::HandoffsRemoved { agent, revision } => MemoryRow::HandoffsRemoved { agent, revision },
        }
    }
}

/// [`StateCopyRow`] in version 1.
#[derive(Serialize, Deserialize)]
pub(in crate::store::record::wire) enum StateCopyRowV1<'a> {
    Made {
        id: i64,
        agent: &'a str,
        revision: u64,
        #[serde(borrow)]
        holds: Cow<'a, str>,
        at: u64,
        keys: u64,
        bytes: u64,
        mark: u64,
        unfinished: bool,
        migrated: bool,
        rollout: u64,
    },
    Removed {
        agent: &'a str,
        revision: Option<u64>,
    },
    Finished {
        agent: &'a str,
        revision: u64,
        mark: u64,
        migrated: bool,
    },
    RolloutRemoved {
        agent: &'a str,
        revision: u64,
    },
    Restored {
        id: i64,
        agent: &'a str,
        version: u64,
        now: u64,
    },
}

impl<'a> StateCopyRowV1<'a> {
    pub(super) fn of(row: &'a StateCopyRow<'_>) -> Self {
        match row {
            StateCopyRow::Made { id, agent, revision, holds, at, keys, bytes, mark, unfinished, migrated, rollout } => {
                Self::Made {
                    id: *id,
                    agent,
                    revision: *revision,
                    holds: Cow::Borrowed(holds),
                    at: *at,
                    keys: *keys,
                    bytes: *bytes,
                    mark: *mark,
                    unfinished: *unfinished,
                    migrated: *migrated,
                    rollout: *rollout,
                }
            }
            StateCopyRow::Removed { agent, revision } => Self::Removed { agent, revision: *revision },
            StateCopyRow::Finished { agent, revision, mark, migrated } => {
                Self::Finished { agent, revision: *revision, mark: *mark, migrated: *migrated }
            }
            StateCopyRow::RolloutRemoved { agent, revision } => Self::RolloutRemoved { agent, revision: *revision },
            StateCopyRow::Restored { id, agent, version, now } => {
                Self::Restored { id: *id, agent, version: *version, now: *now }
            }
        }
    }

    pub(super) fn into_row(self) -> StateCopyRow<'a> {
        match self {
            Self::Made { id, agent, revision, holds, at, keys, bytes, mark, unfinished, migrated, rollout } => {
                StateCopyRow::Made { id, agent, revision, holds, at, keys, bytes, mark, unfinished, migrated, rollout }
            }
            Self::Removed { agent, revision } => StateCopyRow::Removed { agent, revision },
            Self::Finished { agent, revision, mark, migrated } => {
                StateCopyRow::Finished { agent, revision, mark, migrated }
            }
            Self::RolloutRemoved { agent, revision } => StateCopyRow::RolloutRemoved { agent, revision },
            Self::Restored { id, agent, version, now } => StateCopyRow::Restored { id, agent, version, now },
        }
    }
}
