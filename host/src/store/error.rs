//! Errors of a store that cannot be used.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The error of a store that cannot be used: what the system or SQLite said, and what to try.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The data folder cannot be made or written to.
    #[error("the data folder {} cannot be used: {cause}; choose another with `--data DIR` or `store.path`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        cause: std::io::Error,
    },
    /// A host that is running has it.
    #[error("the data folder {} is in use by another host{}; stop that one, or choose another folder with `--data DIR`", path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other host, as it wrote itself down.
        pid: Option<u32>,
    },
    /// The path is held by another host, for which it led to another folder.
    #[error("another host still has the path {}, whose folder was removed or exchanged under it; it ends within seconds, start this one then", path.display())]
    PathInUse {
        /// The folder.
        path: PathBuf,
    },
    /// A newer program made it.
    #[error("the store {} has format {found}, made by a newer version; this one knows formats up to {known}: use the newer version, or another folder with `--data DIR`", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The newest format known.
        known: i64,
    },
    /// An older program made it, and no host of this version has opened it yet.
    #[error("the store {} has format {found}, made by an older version; a host brings it to format {known} when it starts: start one with `caxton up` first", path.display())]
    Older {
        /// The database.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The format of this version.
        known: i64,
    },
    /// The store does not exist.
    #[error("there is no store {}; say where it is with `--data DIR`", path.display())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// A store exists where none was expected.
    #[error("there is a store {} already; with `--force` it is kept beside the new one", path.display())]
    Exists {
        /// The database.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a copy of a store; `caxton store backup FILE` makes one", path.display())]
    NoStore {
        /// The file.
        path: PathBuf,
    },
    /// The database is not what a backup makes.
    #[error("{} is not a copy of a store: {why}; `caxton store backup FILE` makes one", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The difference.
        why: String,
    },
    /// The database is damaged.
    #[error("the store {} is damaged ({cause}): `caxton store check` says more; put a backup in its place with `caxton store restore FILE --force`, or move it away to begin anew", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        cause: rusqlite::Error,
    },
    /// The database or its folder cannot be written to.
    #[error("the store {} cannot be opened for writing ({cause}): mend the permissions of it and its folder, or choose another with `--data DIR`", path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        cause: rusqlite::Error,
    },
    /// The disk is full.
    #[error("there is no room on the disk for the store {} ({cause}): make some, or choose a folder elsewhere with `--data DIR`", path.display())]
    Full {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        cause: rusqlite::Error,
    },
    /// The operation would fill the disk.
    #[error("this needs {} KiB beside the store {}, where {} KiB are free: make room first", needed.div_ceil(1 << 10), path.display(), free >> 10)]
    NoRoom {
        /// The database.
        path: PathBuf,
        /// The bytes that are needed.
        needed: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// The store cannot be copied.
    #[error(transparent)]
    Copy(CopyError),
    /// The database cannot be opened or read for another reason.
    #[error("the store {} cannot be used: {cause}; `caxton store check` says whether it is damaged", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// The error of SQLite.
        cause: rusqlite::Error,
    },
}

impl StoreError {
    /// Returns the error for what SQLite says of a database.
    pub(in crate::store) fn of(path: &Path, cause: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, PermissionDenied, ReadOnly};

        let path = path.to_owned();
        match cause.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged { path, cause },
            Some(ReadOnly | CannotOpen | PermissionDenied) => Self::ReadOnly { path, cause },
            _ if is_out_of_room(&cause) => Self::Full { path, cause },
            _ => Self::Database { path, cause },
        }
    }
}

impl StoreError {
    /// Returns `true` if the store could be opened with more room on its disk.
    pub(crate) fn lacks_room(&self) -> bool {
        match self {
            Self::Full { .. } | Self::NoRoom { .. } => true,
            Self::Folder { cause, .. } => lacks_room(cause),
            Self::InUse { .. }
            | Self::PathInUse { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::Missing { .. }
            | Self::Exists { .. }
            | Self::NoStore { .. }
            | Self::Foreign { .. }
            | Self::Damaged { .. }
            | Self::ReadOnly { .. }
            | Self::Copy(_)
            | Self::Database { .. } => false,
        }
    }
}

/// Returns `true` if a file could not be written for want of room. A bound on the size of files (`ulimit -f`) counts as
/// well.
pub(crate) fn lacks_room(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Returns `true` if SQLite could not write a file, or not make the index of its log as large as it has to be. Of a full
/// disk it says so only where it writes to the database.
pub(in crate::store) fn is_out_of_room(cause: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{
        SQLITE_FULL, SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE,
    };

    let codes = [SQLITE_FULL, SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE];
    cause.sqlite_error().is_some_and(|error| codes.contains(&error.extended_code))
}

/// The error of making a copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The copy would fill the disk.
    #[error("a copy needs {} MiB in {}, where {} MiB are free", needed >> 20, folder.display(), free >> 20)]
    NoRoom {
        /// The file that was to be made.
        folder: PathBuf,
        /// The bytes that it needs.
        needed: u64,
        /// The bytes that are free.
        free: u64,
    },
    /// The store cannot be read, or the copy not be written.
    #[error("copying the store {}: {why}", path.display())]
    Failed {
        /// The database.
        path: PathBuf,
        /// The error of SQLite or the system.
        why: String,
    },
}
