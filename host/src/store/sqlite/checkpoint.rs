//! Copies the log of the database into the database, beside the writer.
//!
//! SQLite appends every commit to a log and copies it into the database from time to time, for which the commit
//! that triggers it would have to wait. Here a thread copies with a connection of its own while commits go on; the
//! writer copies only the little that came meanwhile, so that the log can begin anew and does not grow for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::RwLock;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::Store;
use crate::store::commit::CommitError;
use crate::store::sqlite::sync::Progress;

/// The pause between two copies. The writer copies what came in this time before the log begins anew, and commits wait
/// for that, so it is short.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes in the log above which it is to begin anew.
const MAX_LOG: i64 = 64 << 20;
/// The longest time for which a caller puts off copying. A longer task is not harmed by one more sync, and the log
/// must not grow without bound meanwhile.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The state that the writer and the copying thread share.
#[derive(Default)]
struct Shared {
    /// Set if something was written since the last copy began.
    written: Mutex<bool>,
    woken: Condvar,
    stop: AtomicBool,
    /// A lock that a copy holds for writing, and each [`Rest`] for reading.
    rest: Arc<RwLock<()>>,
}

/// A guard against copying: until it is dropped the log is not copied, and the disk serves commits alone.
#[derive(Debug)]
pub(crate) struct Rest {
    _ends: DropGuard,
}

impl Store {
    /// Waits until all earlier jobs are durable and no copy of the log is under way. No copy begins while the returned
    /// guard lives, for a second at most.
    pub(crate) async fn rest(&self) -> Rest {
        // Before the flush, so that no copy begins between it and the caller's work.
        let resting = self.writer.rest().read_owned().await;
        // A store that failed reports that to its next commit.
        let _ = self.flush().await;
        let ended = CancellationToken::new();
        let rest = Rest { _ends: ended.clone().drop_guard() };
        // A task holds the lock, because the caller may keep its guard for too long.
        tokio::spawn(async move {
            // Either the guard is dropped or its time is over: both end the rest.
            let _ = tokio::time::timeout(LONGEST_REST, ended.cancelled()).await;
            drop(resting);
        });
        rest
    }
}

/// Tells the copying thread that there is something to copy.
#[derive(Clone)]
pub(in crate::store) struct CheckpointProgress(Arc<Shared>);

impl CheckpointProgress {
    /// Notes that something was written.
    pub(in crate::store) fn commit(&self) {
        let mut written = self.0.written.lock();
        // One wake-up serves many commits; each is a system call.
        if !*written {
            *written = true;
            self.0.woken.notify_one();
        }
    }
}

/// The copying thread; ends when this is dropped.
pub(in crate::store) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Starts the thread, without which the log would grow for ever. `restart` asks the writer to copy the rest.
    pub(in crate::store) fn start(
        connection: Connection,
        progress: Arc<Progress>,
        restart: impl Fn() + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("caxton-checkpoint".to_owned())
                .spawn(move || progress.run("checkpoint", || run(&shared, &connection, restart)))
                .expect("the system can start a thread")
        };
        Self { shared, thread: Some(thread) }
    }

    /// Returns the lock that copying waits for.
    pub(in crate::store) fn rest(&self) -> Arc<RwLock<()>> {
        Arc::clone(&self.shared.rest)
    }

    /// Returns the handle by which the writer wakes the thread.
    pub(in crate::store) fn written(&self) -> CheckpointProgress {
        CheckpointProgress(Arc::clone(&self.shared))
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Under the lock, so that the thread is not between its look and its wait.
        drop(self.shared.written.lock());
        self.shared.woken.notify_one();
        if let Some(thread) = self.thread.take() {
            // `Progress::run` has caught and reported a panic.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, connection: &Connection, restart: impl Fn()) {
    let page = connection.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0)).unwrap_or(4_096);
    // In pages, as the checkpoint reports the length of the log. 512 bytes are the least that SQLite has.
    let max_pages = MAX_LOG / page.max(512);
    let stopped = || shared.stop.load(Ordering::SeqCst);
    loop {
        {
            let mut written = shared.written.lock();
            while !*written && !stopped() {
                shared.woken.wait(&mut written);
            }
            // A little later there is more to copy at once.
            if !stopped() {
                shared.woken.wait_for(&mut written, PAUSE);
            }
            // Before the copy: what is written during it asks for another.
            *written = false;
        }
        if stopped() {
            return;
        }
        crate::test_hooks::point("store-checkpoint");
        // Held for both copies: a `Rest` that is taken meanwhile waits until the disk is free.
        let _alone = shared.rest.blocking_write();
        // What came during a copy is little, and what came during the next one is less: the writer has to wait for the
        // rest.
        let copied = copy(connection).and_then(|pages| if pages > max_pages { copy(connection) } else { Ok(pages) });
        match copied {
            Ok(pages) if pages > max_pages => restart(),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the store's log could not be copied; it grows until it can be"),
        }
    }
}

/// Copies what is safe to copy now. Returns the number of pages in the log.
pub(in crate::store) fn copy(connection: &Connection) -> rusqlite::Result<i64> {
    // Passive: it waits neither for readers nor for the writer, and copies what it can.
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))
}

/// Copies all of the log and empties it. Waits for readers up to the busy timeout, and not for another copy.
pub(in crate::store) fn empty(connection: &Connection) -> Result<(), CommitError> {
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    match busy {
        Ok(false) => Ok(()),
        Ok(true) => Err(CommitError::Store("somebody still reads it".to_owned())),
        Err(error) => Err(CommitError::Store(error.to_string())),
    }
}
