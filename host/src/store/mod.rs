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

mod backlog;
mod commit;
mod commit_request;
mod error;
mod gate;
mod handles;
mod placed;
pub(crate) mod prefetch;
mod record;
mod sqlite;
mod tables;
mod turn;
mod types;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_control::desired::{self, Durability};

use self::sqlite::database_file::DatabaseFile;
use self::sqlite::folder_files::DATABASE;
use self::sqlite::lock::{Lock, lock};
use self::sqlite::{backup, held, private, schema, sync};
use self::tables::snapshots;
use self::writer::history::History;
use self::writer::writer_state::WriterState;
use crate::telemetry::histogram::Histogram;

pub(crate) use backlog::CommitBacklog;
pub(crate) use commit::{
    Add, ClosedQuestion, Commit, CommitError, DeadLetter, EndedConversation, Failed, Fired, Handled, IdempotencyKey,
    RevisionBinding, StateChange, TOO_MANY_HOPS, beyond,
};
pub(crate) use commit_request::{CommitRequest, Committed};
pub(crate) use error::{CopyError, StoreError, lacks_room};
pub(crate) use gate::CommitGate;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use record::wire::examine_record;
pub(crate) use record::{ConversationRow, Record};
pub(crate) use sqlite::checkpoint::Rest;
pub(crate) use sqlite::lock::Lock as FolderLock;
pub(crate) use sqlite::offline::{OfflineStore, ledgers, restore};
pub(crate) use tables::conversations::{ConversationReader, ListedConversation, on_wall};
pub(crate) use tables::dead_letters::{Dead, DeadCount, DeadFilter, DeadInFull};
pub(crate) use tables::events::EventFilter;
pub(crate) use tables::queue::{Queued, Threaded};
pub(crate) use tables::recent::RecentMessage;
pub(crate) use tables::state_copy::{KeepState, RestoredState, StateCopy};
pub(crate) use tables::timers::{AgentTimers, TimerCounts, WaitingTimer};
pub(crate) use types::{Event, RevisionRecord, Snapshot};

/// The data folder, held against other hosts, with its database.
pub(crate) struct Store {
    folder: PathBuf,
    database: DatabaseFile,
    /// Tells this store's connections from those of another in the same process.
    id: u64,
    writer: writer::Writer,
    /// The version that the last write of state has.
    version: Arc<AtomicU64>,
    keeps_messages: bool,
    /// The progress of the writer.
    progress: Arc<sync::Progress>,
    /// Memories of agents that are in pieces.
    pieces: Arc<snapshots::Pieces>,
    /// Contents of large commits that are in pieces.
    contents: Arc<placed::Contents>,
    /// The judge of what commits say.
    gate: Arc<dyn CommitGate>,
    /// Messages that wait for their time.
    pub(crate) timer_counts: Arc<TimerCounts>,
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
        private::close(folder);
        // After the lock: before it the unfinished copies may be those of a running host.
        backup::clear(folder);
        let keeps_messages = settings.durability != Durability::Memory;
        if !keeps_messages {
            // What a host with this setting kept before is not to come back.
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(folder.join(format!("{DATABASE}{suffix}")));
            }
        }
        let (database, connection) = DatabaseFile::open(&folder.join(DATABASE), settings.durability)?;
        // Before anything is loaded, which would fail on damage with less clear errors.
        schema::check(&connection, &database)?;
        let wrong = |source| StoreError::of(&database, source);
        let history = History::load(&connection, settings.history, settings.dead_letters).map_err(wrong)?;
        let reader = ConversationReader::new(database.reader().map_err(wrong)?);
        let loaded = Arc::new(load(reader.clone()).map_err(wrong)?);
        let gate: Arc<dyn CommitGate> = Arc::clone(&loaded) as _;
        let timers = Arc::new(TimerCounts::load(&connection).map_err(wrong)?);
        let shared = (Arc::clone(&gate), Arc::clone(&timers));
        let writer_state = WriterState::load(&connection, keeps_messages, history, shared).map_err(wrong)?;
        let version = Arc::clone(&writer_state.version);
        let pieces = Arc::new(snapshots::Pieces::load(&connection).map_err(wrong)?);
        let contents = Arc::new(placed::Contents::load(&connection).map_err(wrong)?);
        let checkpoints = database.writer(settings.durability)?;
        let commits = Arc::new(Histogram::default());
        let log = (settings.durability == Durability::Fsync).then(|| folder.join(format!("{DATABASE}-wal")));
        if log.is_some() {
            // Its commits are synced beside it.
            connection.pragma_update(None, "synchronous", "NORMAL").map_err(wrong)?;
        }
        let progress = sync::Progress::new(held::Held::new(folder, &lock.file)?);
        let syncing = (log, Arc::clone(&progress));
        let (own, shared) = ((connection, reader), (Arc::clone(&contents), Arc::clone(&commits)));
        let writer = writer::Writer::start(own, checkpoints, writer_state, syncing, shared);
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
            contents,
            gate,
            timer_counts: timers,
            commits,
            _lock: lock,
        });
        Ok((store, loaded))
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

#[cfg(test)]
pub(crate) mod tests;
