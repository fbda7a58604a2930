//! The one writer: a thread that makes one transaction of all jobs that came while the last one was synced.

pub(super) mod apply;
pub(super) mod batch;
mod buried;
pub(super) mod decide;
pub(super) mod history;
pub(super) mod job;
mod jobs;
pub(super) mod keys;
pub(super) mod message_row;
pub(super) mod other_rows;
pub(super) mod writer_state;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{broadcast, oneshot};

use crate::store::Store;
use crate::store::commit::CommitError;
use crate::store::commit_request::CommitRequest;
use crate::store::placed::Contents;
use crate::store::sqlite::checkpoint::Checkpointer;
use crate::store::sqlite::notify::Notifier;
use crate::store::sqlite::sync::{Progress, Syncer, WrittenBatch};
use crate::store::tables::conversations::ConversationReader;
use crate::store::turn::Turn;
use crate::store::types::Event;
use crate::store::writer::batch::Batch;
use crate::store::writer::job::{Decide, Job, ResultSender, change_of};
use crate::store::writer::jobs::JobQueue;
use crate::store::writer::writer_state::WriterState;
use crate::telemetry::histogram::Histogram;

/// The interval at which the data folder is compared with what was opened while nothing is written.
const LOOK: Duration = Duration::from_secs(1);
/// Events that a slow follower may be behind before it misses some.
const FOLLOW: usize = 1_024;

/// The thread that writes.
pub(in crate::store) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    pub(in crate::store) follow: broadcast::Sender<Arc<Event>>,
    thread: Option<JoinHandle<()>>,
    checkpointer: Option<Checkpointer>,
}

impl Writer {
    /// Starts the thread. The reader of conversations is closed before its connection is. `checkpoints` is the connection
    /// of the thread that copies the log into the database; `commits` records the duration of each commit. `log` is the
    /// database's log, if commits are to reach the disk: it is synced beside the `connection`, which therefore must not
    /// do so itself. `contents` counts the contents of large commits.
    pub(in crate::store) fn start(
        (connection, reader): (Connection, ConversationReader),
        checkpoints: Connection,
        writer: WriterState,
        (log, progress): (Option<PathBuf>, Arc<Progress>),
        (contents, commits): (Arc<Contents>, Arc<Histogram>),
    ) -> Self {
        // Without a bound: `submit` is called from async tasks, which must not block.
        let (jobs, queue) = mpsc::channel();
        let follow = broadcast::channel(FOLLOW).0;
        let restart = jobs.clone();
        let checkpointer = Checkpointer::start(checkpoints, Arc::clone(&progress), move || {
            // The writer is gone only when the store closes.
            let _ = restart.send(Job::Restart);
        });
        let thread = {
            let notifier = Notifier::new(follow.clone(), commits, &progress);
            let syncer = Syncer::start(log, notifier, Arc::clone(&progress));
            let jobs = JobQueue::new(queue, (contents, writer.keeps_messages));
            let mut thread = Thread { connection, writer, progress, syncer, written: checkpointer.written() };
            std::thread::Builder::new()
                .name("caxton-store".to_owned())
                .spawn(move || {
                    // Cloned, because the closure that may panic borrows the thread mutably.
                    let progress = Arc::clone(&thread.progress);
                    let mut jobs = jobs;
                    progress.run("writer", || thread.run(&mut jobs));
                    // The last connection to close empties the log, which one that only reads cannot do.
                    reader.close();
                })
                .expect("the system can start a thread")
        };
        Self { jobs: Some(jobs), follow, thread: Some(thread), checkpointer: Some(checkpointer) }
    }

    /// Returns the lock that copying of the log waits for.
    pub(in crate::store) fn rest(&self) -> Arc<tokio::sync::RwLock<()>> {
        self.checkpointer.as_ref().expect("it is there until the store closes").rest()
    }

    pub(in crate::store) fn send(&self, job: Job) {
        // The thread ends only when the store closes; if it panicked, the answers' senders are gone too.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It holds a sender of its own.
        drop(self.checkpointer.take());
        // What is queued is written first.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Store {
    pub(in crate::store) async fn ask(&self, job: impl FnOnce(ResultSender) -> Job) -> Result<(), CommitError> {
        let (asker, answer) = oneshot::channel();
        self.writer.send(job(asker));
        // A sender is dropped without an answer only if the writer panicked.
        answer.await.unwrap_or_else(|_| Err(writer_ended()))
    }

    /// Commits after everything that was submitted before. The result is passed to the request's callback once it is
    /// durable.
    pub(crate) fn submit(&self, mut request: CommitRequest) {
        request.begin_to_wait();
        self.writer.send(Job::Commit(Box::new(request)));
    }

    /// Makes any other change; returns the subject of the decision when it is safe.
    pub(in crate::store) async fn change<T: Send + 'static>(
        &self,
        turn: Turn,
        subject: T,
        decide: impl Decide<T>,
    ) -> Result<T, CommitError> {
        let (back, returned) = oneshot::channel();
        self.ask(|asker| Job::Change(turn, change_of(subject, decide, back), asker)).await?;
        returned.await.map_err(|_| writer_ended())
    }

    /// Makes any other change; returns the subject of the decision when it is written. Readers see it then, also after
    /// `kill -9`, and no later job is durable before it is.
    pub(in crate::store) async fn change_early<T: Send + 'static>(
        &self,
        turn: Turn,
        subject: T,
        decide: impl Decide<T>,
    ) -> Result<T, CommitError> {
        let (back, returned) = oneshot::channel();
        self.ask(|asker| Job::EarlyChange(turn, change_of(subject, decide, back), asker)).await?;
        returned.await.map_err(|_| writer_ended())
    }

    /// Returns when all that was given before is safe.
    pub(crate) async fn flush(&self) -> Result<(), CommitError> {
        self.ask(Job::Flush).await
    }

    /// Commits the format that the database has, to find out whether anything can be committed within this time.
    ///
    /// # Errors
    /// A text for a person.
    pub(crate) async fn try_commit(&self, within: Duration) -> Result<(), String> {
        match tokio::time::timeout(within, self.ask(Job::Probe)).await {
            Ok(committed) => committed.map_err(|error| {
                if !self.progress.is_out_of_room() {
                    return format!("nothing can be committed: {error}");
                }
                let folder = self.folder.display();
                format!(
                    "nothing can be committed, as the disk of {folder} is full ({error}): calls that would change \
                     something are refused until there is room; make some, or let `caxton store compact` give back what \
                     is free in the store"
                )
            }),
            Err(_) => Err(format!("nothing was committed within {} s", within.as_secs())),
        }
    }

    /// Lets all that was given before be in the database itself, and its log be empty: for a host that ends.
    pub(crate) async fn empty_log(&self) -> Result<(), CommitError> {
        // SQLite refuses to empty a log that is copied, however long one would wait.
        let _resting = self.writer.rest().read_owned().await;
        self.ask(Job::Empty).await
    }

    /// Makes any other change without waiting for it.
    pub(in crate::store) fn queue_change<T: Send + 'static>(&self, turn: Turn, subject: T, decide: impl Decide<T>) {
        let change = change_of(subject, decide, oneshot::channel().0);
        // The receiver is dropped, so the answer goes nowhere; an error is logged with the transaction.
        self.writer.send(Job::Change(turn, change, oneshot::channel().0));
    }
}

fn writer_ended() -> CommitError {
    CommitError::Store("its writer ended".to_owned())
}

struct Thread {
    connection: Connection,
    writer: WriterState,
    progress: Arc<Progress>,
    syncer: Syncer,
    written: crate::store::sqlite::checkpoint::CheckpointProgress,
}

impl Thread {
    fn run(&mut self, queue: &mut JobQueue) {
        let mut jobs = Vec::new();
        while self.wait(queue) {
            crate::test_hooks::point("store-writer");
            // Without waiting for more: a single job is written at once.
            queue.take(&mut jobs);
            let started = Instant::now();
            let mut batch = Batch { commits: Vec::with_capacity(jobs.len()), ..Batch::default() };
            // Before the write: a reader that sees it can then wait for it (`wait_durable`).
            self.progress.begin();
            let mut kept = if let Some(refusal) = self.progress.refusal() {
                // After a failed sync the content of the log is unknown: a commit on top of it could be lost.
                batch.refuse(jobs.drain(..));
                Err(refusal)
            } else {
                batch.write(&mut self.connection, &mut self.writer, jobs.drain(..))
            };
            self.written.commit();
            // These are answered without a sync of their own, so the folder is compared here.
            if !(batch.early.is_empty() && batch.emptying.is_empty()) {
                self.progress.look();
                kept = kept.and(self.progress.refusal().map_or(Ok(()), Err));
            }
            batch.tell_early(kept.as_ref().err());
            if batch.restart
                && let Err(error) = crate::store::sqlite::checkpoint::copy(&self.connection)
            {
                tracing::warn!(%error, "the store's log could not be copied; it grows until it can be");
            }
            let emptying = std::mem::take(&mut batch.emptying);
            // Before the sync: if nothing waits, syncing on this thread is faster than handing over.
            let is_last = !queue.has_more();
            self.syncer.end(WrittenBatch { batch, kept, started }, is_last);
            for asker in emptying {
                let refused = self.progress.refusal().map(|why| CommitError::Store(why.to_string()));
                // The caller may have left.
                let _ =
                    asker.send(refused.map_or_else(|| crate::store::sqlite::checkpoint::empty(&self.connection), Err));
            }
        }
    }

    /// Returns `true` once there is a job, and `false` once the store closes. Compares the data folder at intervals
    /// meanwhile.
    fn wait(&self, queue: &mut JobQueue) -> bool {
        loop {
            match queue.wait_for(LOOK) {
                Ok(()) => return true,
                Err(mpsc::RecvTimeoutError::Timeout) => self.progress.look(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
}
