//! Contents that are in pieces, as queries read them.

use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};

/// The content of a row of `message`, `timer` or `dead`, wherever its bytes are.
pub(in crate::store) const CONTENT: &str = "CASE WHEN placed IS NULL THEN content ELSE
     (SELECT whole(data ORDER BY number) FROM content_piece AS p WHERE p.content = placed) END";
/// The length of the same. Reads none of the bytes.
pub(in crate::store) const CONTENT_LENGTH: &str = "CASE WHEN placed IS NULL THEN length(content) ELSE
     (SELECT sum(length(data)) FROM content_piece AS p WHERE p.content = placed) END";
// Macros and no constants: the text of a query that each message makes must not be put together each time.
/// The value of a row of `state`, wherever its bytes are.
macro_rules! value {
    () => {
        "CASE WHEN placed IS NULL THEN value ELSE
         (SELECT whole(data ORDER BY number) FROM content_piece AS p WHERE p.content = placed) END"
    };
}
/// The length of the same. Reads none of the bytes.
macro_rules! value_length {
    () => {
        "CASE WHEN placed IS NULL THEN length(value) ELSE
         (SELECT sum(length(data)) FROM content_piece AS p WHERE p.content = placed) END"
    };
}
pub(in crate::store) use {value, value_length};

/// Joins blobs in their order. SQLite has this for text only.
struct Whole;

impl Aggregate<Vec<u8>, Option<Vec<u8>>> for Whole {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn step(&self, context: &mut Context<'_>, whole: &mut Vec<u8>) -> rusqlite::Result<()> {
        whole.extend_from_slice(context.get_raw(0).as_blob()?);
        Ok(())
    }

    // Without a piece the result is NULL, which the reader of a column that has none takes for an error.
    fn finalize(&self, _: &mut Context<'_>, whole: Option<Vec<u8>>) -> rusqlite::Result<Option<Vec<u8>>> {
        Ok(whole)
    }
}

/// Defines the function `whole` on a connection.
pub(in crate::store) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_aggregate_function("whole", 1, flags, Whole)
}
