//! Syncs written transactions while the next one is being written.
//!
//! ```text
//! the writer: write A | write B         | write C ...
//! this:               | sync A, tell A  | sync B, tell B ...
//! ```
//! The writer appends a transaction to the database's log without a sync of its own; the log is synced here, and
//! only then are the callers answered. At most one transaction is ahead of the sync, so that many still share one. When
//! nothing else waits, or the disk is faster than the writer, the writer syncs by itself: that saves the way to another
//! thread, and more transactions share one sync.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::Store;
use crate::store::error::is_out_of_room;
use crate::store::sqlite::held::Held;
use crate::store::sqlite::notify::Notifier;
use crate::store::writer::batch::Batch;
use crate::telemetry::logging;

/// A transaction that is written, or that failed.
pub(in crate::store) struct WrittenBatch {
    /// The jobs, with their callers.
    pub(in crate::store) batch: Batch,
    /// `Ok` if it was written.
    pub(in crate::store) kept: rusqlite::Result<()>,
    /// The time at which it started.
    pub(in crate::store) started: Instant,
}

/// The progress of the writer, for readers of what it writes.
pub(in crate::store) struct Progress {
    /// The number of transactions begun.
    begun: AtomicU64,
    /// Transactions that are over: safe, or refused.
    over: watch::Sender<u64>,
    /// Set once the log could not be synced: its content may be lost, so nothing is committed any more.
    broken: AtomicBool,
    /// Set while the last transaction failed for want of room on the disk.
    out_of_room: AtomicBool,
    /// The reason why the store failed for good, once it has.
    lost: watch::Sender<Option<Arc<str>>>,
    /// The files that have to stay.
    held: Held,
}

impl Progress {
    pub(in crate::store) fn new(held: Held) -> Arc<Self> {
        Arc::new(Self {
            begun: AtomicU64::new(0),
            over: watch::Sender::new(0),
            broken: AtomicBool::new(false),
            out_of_room: AtomicBool::new(false),
            lost: watch::Sender::new(None),
            held,
        })
    }

    /// Transactions begun.
    #[cfg(test)]
    pub(in crate::store) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// A transaction begins: readers may see it before it is safe.
    pub(in crate::store) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns the error for everything after the store has failed; none as long as it is well.
    pub(in crate::store) fn refusal(&self) -> Option<rusqlite::Error> {
        if let Some(why) = &*self.lost.borrow() {
            return Some(failure(why));
        }
        self.broken.load(Ordering::SeqCst).then(|| failure(BROKEN))
    }

    /// Returns `true` while nothing can be written for want of room on the disk.
    pub(in crate::store) fn is_out_of_room(&self) -> bool {
        self.out_of_room.load(Ordering::Relaxed)
    }

    /// Compares the data folder with what was opened. Nothing may be acknowledged before.
    pub(in crate::store) fn look(&self) {
        if let Err(why) = self.held.check() {
            self.lose(&why);
        }
    }

    /// Ends the store for good, for the first reason that is given.
    pub(in crate::store) fn lose(&self, why: &str) {
        // The first reason is the cause; later ones follow from it.
        let first = self.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert_with(|| why.into());
            first
        });
        if first {
            tracing::error!("{why}");
        }
    }

    /// Runs a thread of the store, which ends the store if it panics.
    pub(in crate::store) fn run(&self, name: &str, work: impl FnOnce()) {
        // Unwind safe: the store accepts nothing after this, so no broken state is used.
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
            self.lose(&format!("a thread of the store died ({name}): {}", logging::reason(&*panic)));
            // Releases callers of `wait_durable`: nothing is written after this.
            self.over.send_replace(u64::MAX);
        }
    }
}

impl Store {
    /// Returns when all that could be read so far is safe. Does not wait for what is written later.
    pub(crate) async fn wait_durable(&self) {
        // Read once, at the call: the caller can have seen no later transaction.
        let begun = self.progress.begun.load(Ordering::SeqCst);
        // The sender lives as long as the store.
        let _ = self.progress.over.subscribe().wait_for(|over| *over >= begun).await;
    }
}

impl Store {
    /// Returns the reason why the store failed for good: its folder is not the one that was opened, or one of its
    /// threads died. `None` as long as it is well.
    pub(crate) fn lost(&self) -> Option<Arc<str>> {
        self.progress.lost.borrow().clone()
    }

    /// Compares the data folder with what was opened now, and returns the same as [`lost`](Self::lost).
    pub(crate) fn look_if_lost(&self) -> Option<Arc<str>> {
        self.progress.look();
        self.lost()
    }

    /// Waits until the store has failed for good; returns the reason.
    pub(crate) async fn until_lost(&self) -> Arc<str> {
        // The sender lives as long as the store.
        let mut lost = self.progress.lost.subscribe();
        lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()).unwrap_or_default()
    }
}

/// The error of everything after a sync that failed.
const BROKEN: &str = "the disk failed to keep what was written; start the host again once it is mended";

/// The last stage of a transaction: syncs the log and reports the results, one transaction after the other.
struct Last {
    /// The database's log; none if commits need not reach the disk.
    log: Option<WriteAheadLog>,
    notifier: Notifier,
    progress: Arc<Progress>,
    took: Arc<SyncTime>,
}

/// The duration of syncs in nanoseconds: a moving average in which a new one weighs an eighth.
#[derive(Debug, Default)]
struct SyncTime(AtomicU64);

impl SyncTime {
    fn took(&self, took: Duration) {
        let (before, took) = (self.get(), u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        // Load and store are two steps, but only the holder of the lock of `Last` records.
        self.0.store(before - before / 8 + took / 8, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The log of the database, which is there from the first commit on.
struct WriteAheadLog {
    path: PathBuf,
    file: Option<File>,
}

impl WriteAheadLog {
    fn sync(&mut self) -> std::io::Result<()> {
        // Opened once: SQLite overwrites the log and never replaces it while the store is open.
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        // Without timestamps, which nothing reads; a new length is synced with the data.
        let synced = file.sync_data();
        self.file = Some(file);
        synced
    }
}

impl Last {
    fn end(&mut self, done: WrittenBatch) {
        let WrittenBatch { batch, mut kept, started } = done;
        let syncing = Instant::now();
        // A transaction that failed has added nothing to sync.
        if kept.is_ok()
            && let Some(log) = &mut self.log
            && let Err(error) = log.sync()
        {
            tracing::error!(file = %log.path.display(), %error, "the store's log cannot be synced; nothing is committed any more");
            // For good: the kernel may drop dirty pages after a failed sync, and the next one would report success.
            self.progress.broken.store(true, Ordering::SeqCst);
        }
        self.took.took(syncing.elapsed());
        // After the sync, so that nothing comes between this and the answers but the answers.
        self.progress.look();
        if let Some(refusal) = self.progress.refusal() {
            kept = kept.and(Err(refusal));
        }
        // Before the answers, whose receivers may ask for it.
        self.progress.out_of_room.store(kept.as_ref().is_err_and(is_out_of_room), Ordering::Relaxed);
        self.notifier.tell(batch, kept, started.elapsed());
        self.progress.over.send_modify(|over| *over = over.saturating_add(1));
    }
}

/// The error of everything after the store has failed.
fn failure(why: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
    rusqlite::Error::SqliteFailure(code, Some(why.to_owned()))
}

/// The stage to which the writer hands written transactions. Dropping it waits until all of them are synced.
pub(in crate::store) struct Syncer {
    last: Arc<Mutex<Last>>,
    /// The channel to the thread, without a buffer: a send returns when the thread takes the transaction. `None` if
    /// nothing is synced.
    thread: Option<(mpsc::SyncSender<WrittenBatch>, JoinHandle<()>)>,
    /// Transactions that the thread has not ended.
    ahead: Arc<AtomicU64>,
    took: Arc<SyncTime>,
}

impl Syncer {
    /// `log` is the database's log, if commits are to reach the disk.
    pub(in crate::store) fn start(log: Option<PathBuf>, notifier: Notifier, progress: Arc<Progress>) -> Self {
        let synced = log.is_some();
        let log = log.map(|path| WriteAheadLog { path, file: None });
        let took = Arc::<SyncTime>::default();
        let of_thread = Arc::clone(&progress);
        let last = Arc::new(Mutex::new(Last { log, notifier, progress, took: Arc::clone(&took) }));
        let ahead = Arc::new(AtomicU64::new(0));
        let thread = synced.then(|| {
            // Without a buffer: a hand-over waits until the transaction before is synced.
            let (sender, receiver) = mpsc::sync_channel::<WrittenBatch>(0);
            let (last, ahead) = (Arc::clone(&last), Arc::clone(&ahead));
            let thread = std::thread::Builder::new()
                .name("caxton-sync".to_owned())
                .spawn(move || {
                    of_thread.run("sync", || {
                        while let Ok(done) = receiver.recv() {
                            crate::test_hooks::point("store-sync");
                            last.lock().end(done);
                            ahead.fetch_sub(1, Ordering::SeqCst);
                        }
                    });
                })
                .expect("the system can start a thread");
            (sender, thread)
        });
        Self { last, thread, ahead, took }
    }

    /// Makes a transaction safe and tells of it, after those before. `alone`: nothing else waits to be written.
    pub(in crate::store) fn end(&self, done: WrittenBatch, alone: bool) {
        let wrote = u64::try_from(done.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // The hand-over pays only if the disk is slower than the writer, which would wait for the thread otherwise.
        let beside = !alone && self.took.get() > wrote;
        match &self.thread {
            // Behind one that the thread still has, since results are reported in order.
            Some((sender, _)) if beside || self.ahead.load(Ordering::SeqCst) > 0 => {
                self.ahead.fetch_add(1, Ordering::SeqCst);
                // The thread ends only after this.
                let _ = sender.send(done);
            }
            Some(_) | None => self.last.lock().end(done),
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            // Closes the channel, which ends the thread once it has synced the rest.
            drop(sender);
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use tokio::sync::broadcast;

    use super::{Progress, Syncer, WrittenBatch};
    use crate::store::sqlite::held::Held;
    use crate::store::sqlite::notify::Notifier;
    use crate::store::types::Event;
    use crate::store::writer::batch::Batch;

    /// A transaction that can be told from others by what happened in it.
    fn transaction(id: i64) -> WrittenBatch {
        let event = Event { id, at: 0, agent: None, kind: "tick".to_owned(), data: serde_json::Value::Null };
        let batch = Batch { events: vec![event], ..Batch::default() };
        WrittenBatch { batch, kept: Ok(()), started: Instant::now() }
    }

    #[test]
    fn after_a_sync_that_failed_nothing_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let progress = progress(folder.path());
        let (follow, mut told) = broadcast::channel(64);
        let notifier = Notifier::new(follow, Arc::default(), &progress);
        // It cannot be opened, and so not be synced.
        let syncer = Syncer::start(Some(folder.path().join("nothing/log")), notifier, Arc::clone(&progress));
        syncer.end(transaction(1), true);
        assert!(told.try_recv().is_err());
        assert!(progress.refusal().unwrap().to_string().contains("the disk failed to keep what was written"));
        assert!(progress.lost.borrow().is_none(), "a host goes on that may still answer for what it has");
    }

    /// Creates a folder with the files of a store.
    fn progress(folder: &std::path::Path) -> Arc<Progress> {
        let lock = std::fs::File::create(folder.join("lock")).unwrap();
        std::fs::write(folder.join("caxton.db"), "").unwrap();
        Progress::new(Held::new(folder, &lock).unwrap())
    }

    #[test]
    fn a_slow_disk_is_waited_for_beside_the_writer_and_told_of_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "").unwrap();
        let (follow, mut told) = broadcast::channel(64);
        let progress = progress(folder.path());
        let syncer = Syncer::start(Some(log), Notifier::new(follow, Arc::default(), &progress), Arc::clone(&progress));

        // A disk of which nothing is known is taken for a fast one: the writer waits for it.
        syncer.end(transaction(1), false);
        assert_eq!(told.try_recv().unwrap().id, 1);

        for _ in 0..100 {
            syncer.took.took(Duration::from_secs(1));
        }
        let disk = syncer.last.lock();
        syncer.end(transaction(2), false);
        assert!(told.try_recv().is_err(), "told before it was safe");
        drop(disk);
        // Also one that is alone comes after those that the thread has.
        for id in 3..=40 {
            syncer.end(transaction(id), id % 3 == 0);
        }
        drop(syncer);
        let order: Vec<i64> = std::iter::from_fn(|| told.try_recv().ok()).map(|event| event.id).collect();
        assert_eq!(order, (2..=40).collect::<Vec<_>>());
        assert_eq!(*progress.over.borrow(), 40);
    }
}
