//! Reads. Each thread has a connection of its own and sees what was committed last.

use std::cell::RefCell;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::store::Store;
use crate::store::sqlite::whole;

thread_local! {
    /// The connection of this thread, with the store that it belongs to.
    static READER: RefCell<Option<(u64, Connection)>> = const { RefCell::new(None) };
}

impl Store {
    pub(in crate::store) fn with_reader<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, String> {
        // The database may show transactions that were refused because their sync failed.
        if let Some(refusal) = self.progress.refusal() {
            return Err(refusal.to_string());
        }
        READER.with_borrow_mut(|reader| {
            // A thread may have read another store of this process before, as tests do.
            let stale = reader.as_ref().is_none_or(|(id, _)| *id != self.id);
            if stale {
                let connection = crate::store::connect(&self.database).map_err(|error| error.to_string())?;
                *reader = Some((self.id, connection));
            }
            let (_, connection) = reader.as_ref().expect("it was set just now");
            read(connection).map_err(|error| error.to_string())
        })
    }
}

/// A connection that only reads.
pub(in crate::store) fn connect(database: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    whole::register(&connection)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Readers wait only while the log is recovered or emptied.
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}
