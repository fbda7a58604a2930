//! Contents in pieces, and the rows that name them.

use rusqlite::params;

use super::Tables;
use crate::store::record::ContentRow;

impl Tables<'_> {
    pub(super) fn content(&mut self, row: &ContentRow<'_>) -> rusqlite::Result<()> {
        match *row {
            ContentRow::Piece { content, number, data } => {
                self.has_pieces = Some(true);
                if number == 0 {
                    // Until a row names it: what a killed host has left is found here.
                    self.execute("INSERT INTO unplaced VALUES (?1)", [content.cast_signed()])?;
                }
                self.execute(
                    "INSERT INTO content_piece (content, number, data) VALUES (?1, ?2, ?3)",
                    params![content.cast_signed(), number.cast_signed(), data],
                )
            }
            ContentRow::OfMessage { seq, content } => {
                self.place("UPDATE message SET placed = ?1 WHERE seq = ?2", seq, content)
            }
            ContentRow::OfTimer { seq, content } => {
                self.place("UPDATE timer SET placed = ?1 WHERE seq = ?2", seq, content)
            }
            ContentRow::OfDead { seq, content } => {
                self.place("UPDATE dead SET placed = ?1 WHERE seq = ?2", seq, content)
            }
            ContentRow::OfKey { agent, key, content } => {
                let sql = "UPDATE state SET placed = ?1 WHERE agent = ?2 AND key = ?3";
                self.execute(sql, params![content.cast_signed(), agent, key])?;
                self.named(content)
            }
            ContentRow::PiecesRemoved { content, up_to } => self.execute(
                "DELETE FROM content_piece WHERE content = ?1 AND number <= ?2",
                [content.cast_signed(), up_to.cast_signed()],
            ),
            ContentRow::Forgotten { content } => self.named(content),
        }
    }

    fn place(&self, sql: &str, seq: u64, content: u64) -> rusqlite::Result<()> {
        self.execute(sql, [content.cast_signed(), seq.cast_signed()])?;
        self.named(content)
    }

    fn named(&self, content: u64) -> rusqlite::Result<()> {
        self.execute("DELETE FROM unplaced WHERE content = ?1", [content.cast_signed()])
    }

    /// Notes the value of a key that leaves, or is replaced.
    pub(super) fn unplace_key(&mut self, agent: &str, key: &str) -> rusqlite::Result<()> {
        let sql = "INSERT INTO unplaced SELECT placed FROM state INDEXED BY state_placed
                   WHERE agent = ?1 AND key = ?2 AND placed IS NOT NULL";
        self.unplace(sql, [agent, key])
    }

    /// Notes the contents of rows that leave. Does nothing where no content is in pieces.
    pub(super) fn unplace(&mut self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<()> {
        let has_pieces = match self.has_pieces {
            Some(has_pieces) => has_pieces,
            None => {
                // Once in a transaction: without large commits every other row would pay for a look-up.
                let found = "SELECT EXISTS (SELECT 1 FROM content_piece)";
                let found = self.transaction.prepare_cached(found)?.query_row([], |row| row.get(0))?;
                *self.has_pieces.insert(found)
            }
        };
        if has_pieces { self.execute(sql, params) } else { Ok(()) }
    }
}
