//! A store that no host runs on, as commands open it themselves; and the compaction, of a store that a host has as well.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use caxton_control::desired::Durability;
use rusqlite::{Connection, OpenFlags};

use crate::api_types::{Compaction, StoreCheck, StoreStatus};
use crate::store::Store;
use crate::store::error::{CopyError, StoreError};
use crate::store::sqlite::backup::{copy_into, free};
use crate::store::sqlite::folder_files::DATABASE;
use crate::store::sqlite::lock::{Lock, lock};
use crate::store::sqlite::size::{length, with_suffix};
use crate::store::sqlite::{check, schema, size, whole};

/// The suffixes of the files that make up a database.
const BESIDE: [&str; 3] = ["", "-wal", "-shm"];

/// A store that is held against hosts, and not changed unless that is asked for.
pub(crate) struct OfflineStore {
    database: PathBuf,
    connection: Connection,
    /// Locks the folder until this is dropped.
    _lock: Lock,
}

impl OfflineStore {
    /// Takes the store in a folder, if it is there and no host has it. Whether it can be read is not known then.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let database = folder.join(DATABASE);
        if !database.is_file() {
            return Err(StoreError::Missing { path: database });
        }
        let lock = lock(folder)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(&database, flags).map_err(|error| StoreError::of(&database, error))?;
        whole::register(&connection).map_err(|error| StoreError::of(&database, error))?;
        // The lock keeps others away, so that no memory is shared with them: its file would need room, which a full disk
        // does not have.
        connection
            .pragma_update(None, "locking_mode", "EXCLUSIVE")
            .map_err(|error| StoreError::of(&database, error))?;
        Ok(Self { database, connection, _lock: lock })
    }

    /// Returns the connection, for tests that plant defects.
    #[cfg(test)]
    pub(in crate::store) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn wrong(&self) -> impl Fn(rusqlite::Error) -> StoreError {
        |error| StoreError::of(&self.database, error)
    }

    /// Refuses a store that this version does not know. One that is older is brought up to date by the next host.
    pub(crate) fn known(&self) -> Result<(), StoreError> {
        schema::format(&self.connection, &self.database).map(|_| ())
    }

    /// Refuses a store that is not of this version: one that is older lacks tables that are looked into.
    pub(crate) fn current(&self) -> Result<(), StoreError> {
        let found = schema::format(&self.connection, &self.database)?;
        let known = schema::known();
        if found < known {
            return Err(StoreError::Older { path: self.database.clone(), found, known });
        }
        Ok(())
    }

    /// Copies it into a file that is not there, or is empty.
    pub(crate) fn copy_to(&self, file: &Path) -> Result<(), CopyError> {
        copy_into(&self.connection, &self.database, file)
    }

    /// Looks through all of it.
    pub(crate) fn check(&self) -> StoreCheck {
        check::check(&self.connection)
    }

    /// Returns the size of the store by kind of record.
    pub(crate) fn size(&self) -> Result<StoreStatus, StoreError> {
        self.current()?;
        size::size(&self.connection, &self.database).map_err(self.wrong())
    }

    /// Empties its log and writes it anew without what is free in it and what no message refers to.
    pub(crate) fn compact(&self) -> Result<Compaction, StoreError> {
        self.known()?;
        // First: the log of a host that was killed is then copied while nothing else is written.
        empty_log(&self.connection).map_err(self.wrong())?;
        if schema::format(&self.connection, &self.database)? == schema::known() {
            // A running host removes them a few at a time.
            let unplaced =
                "DELETE FROM content_piece WHERE content IN (SELECT content FROM unplaced); DELETE FROM unplaced";
            // Not where the disk is full: compacting may be what makes room.
            if let Err(error) = self.connection.execute_batch(unplaced).map_err(self.wrong())
                && !error.lacks_room()
            {
                return Err(error);
            }
        }
        compact(&self.connection, &self.database)
    }
}

impl Store {
    /// Compacts the store of a host that runs. Commits are refused meanwhile, so that it is for a host that cannot commit
    /// anyway.
    pub(crate) async fn compact(&self) -> Result<Compaction, StoreError> {
        // SQLite refuses to empty a log that is copied, however long one would wait.
        let resting = self.writer.rest().read_owned().await;
        let database = self.database.clone();
        let compacted = tokio::task::spawn_blocking(move || {
            let connection = database.writer(Durability::Os)?;
            let compacted = compact(&connection, &database);
            drop((connection, resting));
            compacted
        });
        // The task is never cancelled, and a panic of it goes on here.
        compacted.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// Empties the log of a database, and writes the database anew without what is free in it, where the disk has room for
/// that.
///
/// # Errors
/// `NoRoom` if there is none and the log was empty, so that nothing was gained.
pub(in crate::store) fn compact(connection: &Connection, database: &Path) -> Result<Compaction, StoreError> {
    let wrong = |error| StoreError::of(database, error);
    let bytes = || length(database) + length(&with_suffix(database, "-wal"));
    let before = bytes();
    empty_log(connection).map_err(wrong)?;
    let needed = room_for_copy(connection).map_err(wrong)?;
    let folder = database.parent().unwrap_or(Path::new("."));
    if let Some(free) = free(folder).filter(|free| *free < needed) {
        let after = bytes();
        if after < before {
            return Ok(Compaction { before, after, needed: Some(needed) });
        }
        return Err(StoreError::NoRoom { path: database.to_owned(), needed, free });
    }
    // On the disk: in memory, where temporary tables are otherwise, the copy could be larger than the machine.
    connection.pragma_update(None, "temp_store", "FILE").map_err(wrong)?;
    connection.execute_batch("VACUUM").map_err(wrong)?;
    empty_log(connection).map_err(wrong)?;
    Ok(Compaction { before, after: bytes(), needed: None })
}

/// Returns the bytes that writing a database anew takes beside it: the pages in use, in a temporary file and in the log.
fn room_for_copy(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |name: &str| {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
    };
    Ok(2 * number("page_count")?.saturating_sub(number("freelist_count")?) * number("page_size")?)
}

/// Copies the whole log into the database.
fn empty_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Reads the ledgers in a data folder, by agent, also beside a host that runs on it; none if there is no store. Changes
/// nothing in the folder.
pub(crate) fn ledgers(folder: &Path) -> Result<Vec<(String, String)>, StoreError> {
    let database = folder.join(DATABASE);
    if !database.is_file() {
        return Ok(Vec::new());
    }
    let wrong = |error| StoreError::of(&database, error);
    // Without a log no host writes to it, and no file has to be created beside it.
    let quiet = if with_suffix(&database, "-wal").exists() { "" } else { "&immutable=1" };
    let escaped: String = database.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(format!("file:{escaped}?mode=ro{quiet}"), flags).map_err(wrong)?;
    // One of a version before the first rollouts has none.
    let known = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'ledger')";
    if !connection.query_row(known, [], |row| row.get::<_, bool>(0)).map_err(wrong)? {
        return Ok(Vec::new());
    }
    let mut ledgers = connection.prepare("SELECT agent, record FROM ledger").map_err(wrong)?;
    let rows = ledgers.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(wrong)?;
    rows.collect::<rusqlite::Result<_>>().map_err(wrong)
}

/// Returns the error of a file that was to be a copy. What helps against a store that is damaged would not help here.
fn of_copy(error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged { path, cause } => StoreError::Foreign { path, why: format!("it is damaged ({cause})") },
        other => other,
    }
}

/// Puts a copy in the place of the store of a folder, which no host may have. A store that is there is kept beside it
/// if `replace` says so; gives where.
pub(crate) fn restore(folder: &Path, copy: &Path, replace: bool) -> Result<Option<PathBuf>, StoreError> {
    let no_store = || StoreError::NoStore { path: copy.to_owned() };
    if !copy.is_file() {
        return Err(no_store());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(copy, flags).map_err(|error| StoreError::of(copy, error))?;
    // Nothing that the file's schema says is run before it is known to be that of a store.
    connection.pragma_update(None, "trusted_schema", false).map_err(|error| StoreError::of(copy, error))?;
    schema::check_origin(&connection, copy).map_err(of_copy)?;
    let lock = lock(folder)?;
    let database = folder.join(DATABASE);
    let old = with_suffix(&database, ".old");
    let there = database.exists();
    if there && !replace {
        return Err(StoreError::Exists { path: database });
    }
    // Through SQLite, so that a file that was copied with a log beside it comes whole.
    let folder_wrong = |cause| StoreError::Folder { path: folder.to_owned(), cause };
    let temporary = tempfile::Builder::new().prefix("copy-").tempfile_in(folder).map_err(folder_wrong)?;
    copy_into(&connection, copy, temporary.path()).map_err(StoreError::Copy)?;
    // Before the rename: after a crash the name could lead to an empty file otherwise.
    File::open(temporary.path()).and_then(|file| file.sync_all()).map_err(folder_wrong)?;
    // The log goes with its database: SQLite would take it for that of the new one.
    for suffix in BESIDE {
        let (from, to) = (with_suffix(&database, suffix), with_suffix(&old, suffix));
        // Mostly there is none; other errors show in the rename.
        let _ = fs::remove_file(&to);
        if from.exists() {
            fs::rename(&from, &to).map_err(folder_wrong)?;
        }
    }
    temporary.persist(&database).map_err(|error| folder_wrong(error.error))?;
    // A rename is durable only once its folder is synced.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(folder_wrong)?;
    // Held until the new store is in place: no host may open a mixture of both.
    drop(lock);
    Ok(there.then_some(old))
}
