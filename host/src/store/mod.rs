//! The durable store of messages, agents' state and snapshots, revisions and events: an embedded SQLite in the data
//! folder.
//!
//! ```text
//! commit --> queue --> the writer: begin, all that waits, commit --> one fsync --> the callers are told, in order
//! read   --> a connection of the reader's own thread, never behind the writer
//! the log of the database --> copied into it by a thread of its own
//! ```
//! One writer makes one commit of all that came while the last fsync ran; a commit never waits for company. The next is
//! written while the last is synced. A commit is acknowledged only once its data is as safe as `store.durability` asks.

mod backup;
mod batch;
mod check;
mod checkpoint;
mod commit;
mod commit_request;
mod conversations;
mod counters;
mod dead;
mod decide;
mod difference;
mod expired;
mod gate;
mod held;
mod history;
mod keys;
mod ledger;
mod memory;
mod message_row;
mod notify;
mod offline;
mod other_rows;
pub(crate) mod prefetch;
mod query;
mod queue;
mod recent;
mod record;
mod schema;
mod size;
mod state_copy;
mod sync;
mod tables;
mod timer;
mod types;
mod unhandled;
mod writer;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_control::desired::{self, Durability};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::FlockOperation;

use self::counters::Counters;
use self::history::History;
use crate::telemetry::histogram::Histogram;

pub(crate) use backup::CopyError;
pub(crate) use checkpoint::Rest;
pub(crate) use commit::{
    Add, ClosedQuestion, Commit, CommitError, DeadLetter, EndedConversation, Failed, Fired, Handled, IdempotencyKey,
    RevisionBinding, StateChange, TOO_MANY_HOPS, beyond,
};
pub(crate) use commit_request::{CommitRequest, Committed};
pub(crate) use conversations::{ConversationReader, ListedConversation, on_wall};
pub(crate) use dead::{Dead, DeadCount, DeadFilter, DeadInFull};
pub(crate) use gate::CommitGate;
pub(crate) use offline::{OfflineStore, ledgers, restore};
pub(crate) use query::EventFilter;
pub(crate) use queue::{Queued, Threaded};
pub(crate) use recent::RecentMessage;
pub(crate) use record::{ConversationRow, Record};
pub(crate) use state_copy::{KeepState, RestoredState, StateCopy};
pub(crate) use timer::{AgentTimers, Timers, WaitingTimer};
pub(crate) use types::{Event, RevisionRecord, Snapshot};

/// The database within the data folder.
const DATABASE: &str = "caxton.db";
/// The file by which a host holds the data folder.
const LOCK: &str = "lock";

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
    #[error("this needs {} MiB beside the store {}, where {} MiB are free: make room first", needed >> 20, path.display(), free >> 20)]
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
    fn of(path: &Path, cause: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase, PermissionDenied, ReadOnly};

        let path = path.to_owned();
        match cause.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged { path, cause },
            Some(ReadOnly | CannotOpen | PermissionDenied) => Self::ReadOnly { path, cause },
            Some(DiskFull) => Self::Full { path, cause },
            _ => Self::Database { path, cause },
        }
    }
}

/// The data folder, held against other hosts, with its database.
pub(crate) struct Store {
    folder: PathBuf,
    database: PathBuf,
    /// Tells this store's connections from those of another in the same process.
    id: u64,
    writer: writer::Writer,
    /// The version that the last write of state has.
    version: Arc<AtomicU64>,
    keeps_messages: bool,
    /// The progress of the writer.
    progress: Arc<sync::Progress>,
    /// Memories of agents that are in pieces.
    pieces: Arc<memory::Pieces>,
    /// The judge of what commits say.
    gate: Arc<dyn CommitGate>,
    /// Messages that wait for their time.
    pub(crate) timers: Arc<Timers>,
    /// The durations of commits.
    commits: Arc<Histogram>,
    /// Locks the folder for as long as the store is open.
    _lock: Lock,
}

impl Store {
    /// Opens the store in a folder, making both when they are not there. `load` makes the judge of commits from the
    /// conversations that are there.
    pub(crate) fn open<G: CommitGate + 'static>(
        folder: &Path,
        settings: &desired::StoreSpec,
        load: impl FnOnce(ConversationReader) -> rusqlite::Result<G>,
    ) -> Result<(Arc<Self>, Arc<G>), StoreError> {
        let lock = lock(folder)?;
        // After the lock: before it the unfinished copies may be those of a running host.
        backup::clear(folder);
        let database = folder.join(DATABASE);
        let keeps_messages = settings.durability != Durability::Memory;
        if !keeps_messages {
            // What a host with this setting kept before is not to come back.
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(folder.join(format!("{DATABASE}{suffix}")));
            }
        }
        let connection = schema::open(&database, settings.durability)?;
        // Before anything is loaded, which would fail on damage with less clear errors.
        schema::check(&connection, &database)?;
        let wrong = |source| StoreError::of(&database, source);
        let history = History::load(&connection, settings.history, settings.dead_letters).map_err(wrong)?;
        let reader = ConversationReader::new(connect(&database).map_err(wrong)?);
        let loaded = Arc::new(load(reader.clone()).map_err(wrong)?);
        let gate: Arc<dyn CommitGate> = Arc::clone(&loaded) as _;
        let timers = Arc::new(Timers::load(&connection).map_err(wrong)?);
        let shared = (Arc::clone(&gate), Arc::clone(&timers));
        let counters = Counters::load(&connection, keeps_messages, history, shared).map_err(wrong)?;
        let version = Arc::clone(&counters.version);
        let pieces = Arc::new(memory::Pieces::load(&connection).map_err(wrong)?);
        let checkpoints = schema::open(&database, settings.durability)?;
        let commits = Arc::new(Histogram::default());
        let log = (settings.durability == Durability::Fsync).then(|| folder.join(format!("{DATABASE}-wal")));
        if log.is_some() {
            // Its commits are synced beside it.
            connection.pragma_update(None, "synchronous", "NORMAL").map_err(wrong)?;
        }
        let progress = sync::Progress::new(held::Held::new(folder, &lock.file)?);
        let syncing = (log, Arc::clone(&progress));
        let writer = writer::Writer::start((connection, reader), checkpoints, counters, syncing, Arc::clone(&commits));
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only uniqueness matters.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let store = Arc::new(Self {
            folder: folder.to_owned(),
            database,
            id,
            writer,
            version,
            keeps_messages,
            progress,
            pieces,
            gate,
            timers,
            commits,
            _lock: lock,
        });
        Ok((store, loaded))
    }

    /// A version for a write of state: greater than all before.
    pub(crate) fn next_version(&self) -> u64 {
        self.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Returns `true` if messages are kept: not when the data is to live as long as the host.
    pub(crate) fn keeps_messages(&self) -> bool {
        self.keeps_messages
    }

    /// Returns the durations of commits since it was opened.
    pub(crate) fn commits(&self) -> &Histogram {
        &self.commits
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A connection that only reads.
fn connect(database: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Readers wait only while the log is recovered or emptied.
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

/// The locks that keep other hosts from the folder. They end with the process, however that ends.
struct Lock {
    file: File,
    _path: held::Claim,
}

/// Takes the folder for this process.
fn lock(folder: &Path) -> Result<Lock, StoreError> {
    let wrong = |cause| StoreError::Folder { path: folder.to_owned(), cause };
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    }
    // Not truncated before the lock is held: it may name the process of another host.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK))
        .map_err(wrong)?;
    // A lock of the kernel and not a file with a process id, which would outlive `kill -9`.
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        return Err(StoreError::InUse { path: folder.to_owned(), pid: text.trim().parse().ok() });
    }
    let write = || -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(&file, "{}", std::process::id())
    };
    let mut write = write;
    // After the lock, whose holder the file names by its process id.
    let path = held::Claim::take(folder)?;
    write().map_err(wrong)?;
    Ok(Lock { file, _path: path })
}

#[cfg(test)]
pub(crate) mod tests;
