//! The memory of agents and the copies of their state.

use rusqlite::params;

use super::unplace::UNPLACE_STATE;
use super::{Tables, prepared};
use crate::store::record::{MemoryRow, StateCopyRow};
use crate::store::sqlite::whole::value;

/// A stateful agent's memory changes with each of its messages.
const SET_MEMORY: &str = "REPLACE INTO snapshot (agent, revision, saved_at, data, pieces, bytes, handed)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)";

impl Tables<'_> {
    pub(super) fn memory(&mut self, row: &MemoryRow<'_>) -> rusqlite::Result<()> {
        match *row {
            MemoryRow::Saved { agent, revision, saved_at, data } => {
                self.set_memory((agent, revision, saved_at), data, None, data.len() as u64)
            }
            MemoryRow::SavedInPieces { agent, revision, saved_at, pieces, bytes } => {
                self.set_memory((agent, revision, saved_at), &[], Some(pieces), bytes)
            }
            MemoryRow::Piece { memory, number, data } => self.execute(
                "INSERT INTO piece (memory, number, data) VALUES (?1, ?2, ?3)",
                params![memory.cast_signed(), number.cast_signed(), data],
            ),
            MemoryRow::PiecesRemoved { memory, up_to } => self.execute(
                "DELETE FROM piece WHERE memory = ?1 AND number <= ?2",
                [memory.cast_signed(), up_to.cast_signed()],
            ),
            MemoryRow::Removed { agent } => self.execute("DELETE FROM snapshot WHERE agent = ?1", [agent]),
            MemoryRow::HandedOver { agent, revision, saved_at, data, pieces, bytes } => {
                let (pieces, bytes) = (pieces.map(u64::cast_signed), bytes.cast_signed());
                self.execute(
                    "INSERT OR REPLACE INTO handoff (agent, revision, saved_at, data, pieces, bytes)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![agent, revision.cast_signed(), saved_at.cast_signed(), data, pieces, bytes],
                )
            }
            MemoryRow::HandoffTaken { agent, revision, saved_at } => self.execute(
                "INSERT OR REPLACE INTO snapshot (agent, revision, saved_at, data, handed)
                 VALUES (?1, ?2, ?3, x'', ?2)",
                params![agent, revision.cast_signed(), saved_at.cast_signed()],
            ),
            MemoryRow::SavedHandedOver { agent, revision } => self.execute(
                "INSERT OR REPLACE INTO handoff (agent, revision, saved_at, data, pieces, bytes)
                 SELECT agent, ?2, saved_at, data, pieces, bytes FROM memory WHERE agent = ?1",
                params![agent, revision.cast_signed()],
            ),
            MemoryRow::HandoffsRemoved { agent, revision } => {
                let which = params![agent, revision.map(u64::cast_signed)];
                // First, while the bytes are there: the row of a saved memory may only name a handoff.
                self.execute(
                    "UPDATE snapshot SET (data, pieces, bytes) =
                        (SELECT data, pieces, bytes FROM memory WHERE memory.agent = ?1), handed = NULL
                     WHERE agent = ?1 AND handed IS NOT NULL AND (?2 IS NULL OR handed = ?2)",
                    which,
                )?;
                self.execute("DELETE FROM handoff WHERE agent = ?1 AND (?2 IS NULL OR revision = ?2)", which)
            }
        }
    }

    fn set_memory(
        &mut self,
        (agent, revision, saved_at): (&str, u64, u64),
        data: &[u8],
        pieces: Option<u64>,
        bytes: u64,
    ) -> rusqlite::Result<()> {
        let (pieces, bytes) = (pieces.map(u64::cast_signed), bytes.cast_signed());
        prepared(&mut self.set_memory, self.transaction, SET_MEMORY)?
            .execute(params![agent, revision.cast_signed(), saved_at.cast_signed(), data, pieces, bytes])
            .map(|_| ())
    }

    pub(super) fn state_copy(&mut self, row: &StateCopyRow<'_>) -> rusqlite::Result<()> {
        match row {
            StateCopyRow::Made { id, agent, revision, holds, at, keys, bytes, mark, unfinished, migrated, rollout } => {
                let numbers = [revision, at, keys, bytes, mark, rollout].map(|number| number.cast_signed());
                let [revision, at, keys, bytes, mark, rollout] = numbers;
                self.execute(
                    "INSERT INTO state_copy
                         (id, agent, revision, holds, at, keys, bytes, mark, unfinished, migrated, rollout)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                    params![id, agent, revision, holds, at, keys, bytes, mark, unfinished, migrated, rollout],
                )?;
                self.execute(
                    concat!(
                        "INSERT INTO state_copy_key (copy, key, value, version, expires_at) SELECT ?1, key, ",
                        // Whole: a content in pieces has one owner.
                        value!(),
                        ", version, expires_at FROM state
                         WHERE agent = ?2 AND (expires_at IS NULL OR expires_at > ?3) ORDER BY key"
                    ),
                    params![id, agent, at],
                )
            }
            StateCopyRow::Removed { agent, revision } => {
                let which = params![agent, revision.map(u64::cast_signed)];
                // First: the keys are found by the copies.
                self.execute(
                    "DELETE FROM state_copy_key WHERE copy IN
                        (SELECT id FROM state_copy WHERE agent = ?1 AND (?2 IS NULL OR revision = ?2))",
                    which,
                )?;
                self.execute("DELETE FROM state_copy WHERE agent = ?1 AND (?2 IS NULL OR revision = ?2)", which)
            }
            StateCopyRow::Finished { agent, revision, mark, migrated } => self.execute(
                "UPDATE state_copy SET unfinished = 0, mark = ?3, migrated = ?4 WHERE agent = ?1 AND revision = ?2",
                params![agent, revision.cast_signed(), mark.cast_signed(), migrated],
            ),
            StateCopyRow::RolloutRemoved { agent, revision } => self.execute(
                "UPDATE state_copy SET rollout = 0 WHERE agent = ?1 AND revision = ?2",
                params![agent, revision.cast_signed()],
            ),
            StateCopyRow::Restored { id, agent, version, now } => {
                self.unplace(UNPLACE_STATE, [agent])?;
                self.execute("DELETE FROM state WHERE agent = ?1", [agent])?;
                self.execute(
                    "INSERT INTO state (agent, key, value, version, expires_at)
                     SELECT ?1, key, value, ?3, expires_at FROM state_copy_key
                     WHERE copy = ?2 AND (expires_at IS NULL OR expires_at > ?4) ORDER BY key",
                    params![agent, id, version.cast_signed(), now.cast_signed()],
                )
            }
        }
    }
}
