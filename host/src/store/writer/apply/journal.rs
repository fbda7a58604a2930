//! The journals of calls over HTTP.

use rusqlite::params;

use super::Tables;
use crate::store::record::JournalRow;

impl Tables<'_> {
    pub(super) fn journal(&self, row: &JournalRow<'_>) -> rusqlite::Result<()> {
        match *row {
            JournalRow::Begun { seq, hash, nth, line, at } => self.execute(
                "INSERT OR REPLACE INTO journal (seq, hash, nth, line, at, outcome, response)
                 VALUES (?1, ?2, ?3, ?4, ?5, NULL, x'')",
                params![seq.cast_signed(), hash, nth, line, at.cast_signed()],
            ),
            JournalRow::Ended { seq, hash, nth, outcome, response } => self.execute(
                "UPDATE journal SET outcome = ?4, response = ?5 WHERE seq = ?1 AND hash = ?2 AND nth = ?3",
                params![seq.cast_signed(), hash, nth, outcome, response],
            ),
            JournalRow::CallRemoved { seq, hash, nth } => self.execute(
                "DELETE FROM journal WHERE seq = ?1 AND hash = ?2 AND nth = ?3",
                params![seq.cast_signed(), hash, nth],
            ),
            JournalRow::Removed { seq } => self.execute("DELETE FROM journal WHERE seq = ?1", [seq.cast_signed()]),
            JournalRow::Moved { from, to } => {
                self.execute("UPDATE journal SET seq = ?2 WHERE seq = ?1", [from.cast_signed(), to.cast_signed()])
            }
        }
    }
}
