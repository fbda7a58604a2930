//! Copies of the whole store, made while it is in use.
//!
//! A copy is what was committed at one moment: SQLite reads one version of the database from its beginning to its
//! end, with a connection of its own, while commits go on. Until it is made the log cannot begin anew, so it grows by
//! what is committed meanwhile.

use std::fs::{self, File};
use std::io::Seek;
use std::path::Path;

use rusqlite::Connection;

use crate::store::Store;
use crate::store::error::CopyError;

/// The beginning of the names of unfinished copies; a host that was killed leaves them behind.
const UNFINISHED: &str = "copy-";
/// The room that is left on the disk for what is committed meanwhile.
const SPARE: u64 = 64 << 20;

impl Store {
    /// Copies the store as it is now into a file without a name, which is gone once it is closed. Reads the whole
    /// database.
    pub(crate) fn copy(&self) -> Result<File, CopyError> {
        let failed = |why: String| CopyError::Failed { path: self.database.to_path_buf(), why };
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)
            .map_err(|error| failed(error.to_string()))?;
        let connection = self.database.reader().map_err(|error| failed(error.to_string()))?;
        copy_into(&connection, &self.database, file.path())?;
        // Before `file` is dropped, which removes the name.
        let mut copy = file.reopen().map_err(|error| failed(error.to_string()))?;
        copy.rewind().map_err(|error| failed(error.to_string()))?;
        Ok(copy)
    }
}

/// Copies a database into a file that is not there, or is empty.
pub(in crate::store) fn copy_into(connection: &Connection, database: &Path, into: &Path) -> Result<(), CopyError> {
    let failed = |why: String| CopyError::Failed { path: database.to_owned(), why };
    let bytes = |name: &str| -> rusqlite::Result<u64> {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
    };
    // An upper bound: free pages are not copied.
    let needed = bytes("page_count").and_then(|pages| Ok(pages * bytes("page_size")?));
    let needed = needed.map_err(|error| failed(error.to_string()))? + SPARE;
    let folder = into.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Some(free) = free(folder).filter(|free| *free < needed) {
        return Err(CopyError::NoRoom { folder: folder.to_owned(), needed, free });
    }
    let name = into.to_str().ok_or_else(|| failed(format!("{} is not UTF-8", into.display())))?;
    // Not the backup interface, which begins again whenever another connection commits.
    connection.execute("VACUUM INTO ?1", [name]).map_err(|error| failed(error.to_string()))?;
    Ok(())
}

/// Returns the bytes that are free on the disk of a folder; `None` where the system does not say.
pub(in crate::store) fn free(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The beginnings of the names of files that a killed host may leave in its data folder: copies, components that were
/// tried by hand, and files that were to be renamed into place.
const LEFT_BEHIND: [&str; 3] = [UNFINISHED, "rehearse-", ".tmp"];

/// Removes what hosts that were killed have left unfinished.
pub(in crate::store) fn clear(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if LEFT_BEHIND.iter().any(|prefix| name.starts_with(prefix)) {
            // What cannot be removed takes room, and nothing else.
            let _ = fs::remove_file(entry.path());
        }
    }
}
