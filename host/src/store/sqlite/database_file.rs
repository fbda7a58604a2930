//! The database of a store, and where SQLite keeps the index of its log.
//!
//! The index is a file in shared memory (`-shm`), which needs room on the disk. A store on a full disk is opened with the
//! index in the memory of this process instead, so that a host can start there: it reads all, refuses what has to be
//! written, and writes again once there is room. SQLite takes care that all connections of the process share it
//! (`unix-excl`); other processes are kept out by the lock of the folder.

use std::path::{Path, PathBuf};

use caxton_control::desired::Durability;
use rusqlite::{Connection, OpenFlags};

use crate::store::error::StoreError;
use crate::store::sqlite::{schema, whole};

/// The way in which SQLite uses files with the index of the log in memory.
const IN_MEMORY: &str = "unix-excl";

/// The database of a store that is open, as all of its connections have to open it.
#[derive(Debug, Clone)]
pub(in crate::store) struct DatabaseFile {
    path: PathBuf,
    /// Set if the index of the log is in memory.
    index_in_memory: bool,
}

impl DatabaseFile {
    /// Opens the database for its writer, at the newest format. The first connection decides for the others where the
    /// index is.
    pub(in crate::store) fn open(path: &Path, durability: Durability) -> Result<(Self, Connection), StoreError> {
        let mut database = Self { path: path.to_owned(), index_in_memory: false };
        let error = match database.writer(durability) {
            Ok(connection) => return Ok((database, connection)),
            Err(error) if error.lacks_room() => error,
            Err(error) => return Err(error),
        };
        database.index_in_memory = true;
        // The first error says more: this one may follow from it.
        let connection = database.writer(durability).map_err(|_| error)?;
        tracing::warn!("there is no room on the disk for the index of the store's log; it is kept in memory");
        Ok((database, connection))
    }

    /// Opens another connection that writes.
    pub(in crate::store) fn writer(&self, durability: Durability) -> Result<Connection, StoreError> {
        let connection = self.connect(OpenFlags::default()).map_err(|error| StoreError::of(&self.path, error))?;
        schema::prepare(connection, &self.path, durability)
    }

    /// Opens a connection that only reads.
    pub(in crate::store) fn reader(&self) -> rusqlite::Result<Connection> {
        let connection = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        whole::register(&connection)?;
        connection.set_prepared_statement_cache_capacity(32);
        // Readers wait only while the log is recovered or emptied.
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(connection)
    }

    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        if self.index_in_memory {
            return Connection::open_with_flags_and_vfs(&self.path, flags, IN_MEMORY);
        }
        Connection::open_with_flags(&self.path, flags)
    }
}

impl std::ops::Deref for DatabaseFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_an_index_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("caxton.db");
        let read = |connection: &Connection| {
            let sql = "SELECT value FROM meta WHERE key = 'a'";
            connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        {
            let database = DatabaseFile { path: path.clone(), index_in_memory: true };
            let (writer, other) = (database.writer(Durability::Os).unwrap(), database.writer(Durability::Os).unwrap());
            let reader = database.reader().unwrap();
            for value in [7, 8] {
                writer.execute("INSERT OR REPLACE INTO meta VALUES ('a', ?1)", [value]).unwrap();
                assert_eq!([read(&reader), read(&other)], [value, value]);
                let empty = "PRAGMA wal_checkpoint(TRUNCATE)";
                assert!(!other.query_row(empty, [], |row| row.get::<_, bool>(0)).unwrap());
            }
            assert!(!folder.path().join("caxton.db-shm").exists());
        }
        // The next host opens it as ever.
        let (database, _writer) = DatabaseFile::open(&path, Durability::Os).unwrap();
        assert_eq!((read(&database.reader().unwrap()), database.index_in_memory), (8, false));
    }
}
