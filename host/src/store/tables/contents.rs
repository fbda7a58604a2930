//! Removes contents in pieces that no row names: those of messages that left, of values that were replaced, of commits
//! that were refused, and what a killed host has left.

use rusqlite::params;

use crate::store::Store;
use crate::store::commit::CommitError;
use crate::store::placed::Contents;
use crate::store::record::{ContentRow, Record};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::turn::Turn;

/// Contents of which pieces are removed in one transaction, and the pieces of them: others' commits wait for it.
const CONTENTS_AT_ONCE: u32 = 256;
const PIECES_AT_ONCE: u64 = 256;
const BYTES_AT_ONCE: u64 = 1 << 20;

impl Store {
    /// Removes contents that no row names, some in each transaction. Costs little while there are none.
    pub(crate) async fn remove_unplaced(&self) -> Result<(), CommitError> {
        // The first look is not the writer's, which others wait for.
        let some = |connection: &rusqlite::Connection| {
            connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM unplaced)")?.query_row([], |row| row.get(0))
        };
        if !self.with_reader(some).map_err(CommitError::Store)? {
            return Ok(());
        }
        loop {
            let contents = std::sync::Arc::clone(&self.contents);
            let removed = self.change_early(Turn::OfHost, 0, move |removed, reader, _, record| {
                *removed = remove_some(reader, &contents, record)?;
                Ok(())
            });
            if removed.await? == 0 {
                return Ok(());
            }
        }
    }
}

/// Decides which pieces are removed. Returns the number of rows that change.
fn remove_some(reader: TableReader<'_>, contents: &Contents, record: &mut Record<'_>) -> rusqlite::Result<u64> {
    let mut unplaced = reader.prepare("SELECT content FROM unplaced ORDER BY content LIMIT ?1")?;
    let mut pieces =
        reader.prepare("SELECT number, length(data) FROM content_piece WHERE content = ?1 ORDER BY number")?;
    let (mut removed, mut bytes) = (0, 0);
    let mut rows = unplaced.query([CONTENTS_AT_ONCE])?;
    while let Some(row) = rows.next()? {
        let content = row.get::<_, i64>(0)?.cast_unsigned();
        if contents.is_being_written(content) {
            continue;
        }
        let (mut up_to, mut is_whole) = (None, true);
        let mut found = pieces.query(params![content.cast_signed()])?;
        while let Some(piece) = found.next()? {
            if removed >= PIECES_AT_ONCE || bytes >= BYTES_AT_ONCE {
                is_whole = false;
                break;
            }
            up_to = Some(piece.get::<_, i64>(0)?.cast_unsigned());
            (removed, bytes) = (removed + 1, bytes + piece.get::<_, i64>(1)?.cast_unsigned());
        }
        if let Some(up_to) = up_to {
            record.push(ContentRow::PiecesRemoved { content, up_to });
        }
        if !is_whole {
            break;
        }
        record.push(ContentRow::Forgotten { content });
        removed += 1;
    }
    Ok(removed)
}
