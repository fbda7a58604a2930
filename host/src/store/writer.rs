//! The one writer: a thread that makes one transaction of whatever came while the last one was synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{broadcast, oneshot};

use super::Store;
use super::batch::{Batch, Counters};
use super::checkpoint::Checkpointer;
use super::commit::{Commit, CommitError, Committed};
use super::kept::{Event, RevisionRecord, Snapshot};
use crate::histogram::Histogram;

/// The most that one transaction takes up, so that its answers are not held back for too long.
const MAX_BATCH: usize = 4_096;
/// Events that a slow follower may be behind before it misses some.
const FOLLOW: usize = 1_024;
/// Up to so many commits the writer tells of itself; more are told by a task, while the next batch is written.
const TOLD_HERE: usize = 16;

/// Who asked for something to be kept, and waits.
pub(super) type Asker = oneshot::Sender<Result<(), CommitError>>;

/// Something to be done in the next transaction.
pub(super) enum Job {
    /// What handling a message comes to.
    Commit(Box<Commit>),
    /// The memory of a stateful agent.
    Snapshot(Arc<str>, Snapshot, Asker),
    /// A new revision.
    Revision(RevisionRecord, Asker),
    /// Something that happened. Nobody waits.
    Event(Event),
    /// Anything else, which is seldom.
    Other(Other, Asker),
    /// Nothing: what was given before is safe when this is answered.
    Flush(Asker),
    /// The log of the database is to begin anew: what is left of it is copied first.
    Restart,
    /// All of the log is to be copied, and the log to be empty.
    Empty(Asker),
}

/// A change that has no kind of its own.
pub(super) type Other = Box<dyn FnOnce(&rusqlite::Transaction<'_>, &mut Counters) -> rusqlite::Result<()> + Send>;

/// The thread that writes.
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    follow: broadcast::Sender<Arc<Event>>,
    thread: Option<JoinHandle<()>>,
    checkpointer: Option<Checkpointer>,
}

impl Writer {
    /// Starts the thread. `checkpoints` is a connection of its own for whoever copies the log into the database;
    /// `commits` is told how long each commit took.
    pub(super) fn start(
        connection: Connection,
        checkpoints: Connection,
        counters: Counters,
        commits: Arc<Histogram>,
    ) -> Self {
        let (jobs, queue) = mpsc::channel();
        let follow = broadcast::channel(FOLLOW).0;
        let restart = jobs.clone();
        let checkpointer = Checkpointer::start(checkpoints, move || {
            // The writer is gone only when the store closes.
            let _ = restart.send(Job::Restart);
        });
        let thread = {
            let telling = Telling::start();
            let mut thread = Thread {
                connection,
                counters,
                follow: follow.clone(),
                telling,
                written: checkpointer.written(),
                commits,
            };
            std::thread::Builder::new()
                .name("caxton-store".to_owned())
                .spawn(move || thread.run(&queue))
                .expect("the system can start a thread")
        };
        Self { jobs: Some(jobs), follow, thread: Some(thread), checkpointer: Some(checkpointer) }
    }

    pub(super) fn send(&self, job: Job) {
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
    async fn ask(&self, job: impl FnOnce(Asker) -> Job) -> Result<(), CommitError> {
        let (asker, answer) = oneshot::channel();
        self.writer.send(job(asker));
        answer.await.unwrap_or_else(|_| Err(CommitError::Store("its writer ended".to_owned())))
    }

    /// Commits when what is before it is safe; `commit.done` hears of it.
    pub(crate) fn submit(&self, commit: Commit) {
        self.writer.send(Job::Commit(Box::new(commit)));
    }

    /// Keeps an agent's memory in place of what was kept before; returns when it is safe.
    pub(crate) async fn save_snapshot(&self, agent: Arc<str>, snapshot: Snapshot) -> Result<(), CommitError> {
        self.ask(|asker| Job::Snapshot(agent, snapshot, asker)).await
    }

    /// Keeps a new revision; returns when it is safe.
    pub(crate) async fn keep_revision(&self, record: RevisionRecord) -> Result<(), CommitError> {
        self.ask(|asker| Job::Revision(record, asker)).await
    }

    /// Makes any other change; returns when it is safe.
    pub(super) async fn change(
        &self,
        change: impl FnOnce(&rusqlite::Transaction<'_>, &mut Counters) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), CommitError> {
        self.ask(|asker| Job::Other(Box::new(change), asker)).await
    }

    /// Returns when all that was given before is safe.
    pub(crate) async fn flush(&self) -> Result<(), CommitError> {
        self.ask(Job::Flush).await
    }

    /// Lets all that was given before be in the database itself, and its log be empty: for a host that ends.
    pub(crate) async fn empty_log(&self) -> Result<(), CommitError> {
        self.ask(Job::Empty).await
    }

    /// Keeps an event. Nobody waits for it.
    pub(crate) fn keep_event(&self, event: Event) {
        self.writer.send(Job::Event(event));
    }

    /// All events that are committed from now on, with their ids: whoever first follows and then reads misses
    /// none.
    pub(crate) fn follow_events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.writer.follow.subscribe()
    }
}

struct Thread {
    connection: Connection,
    counters: Counters,
    follow: broadcast::Sender<Arc<Event>>,
    telling: Telling,
    written: super::checkpoint::Written,
    /// How long commits took.
    commits: Arc<Histogram>,
}

impl Thread {
    fn run(&mut self, queue: &mpsc::Receiver<Job>) {
        let seconds = metrics::histogram!("caxton_commit_seconds");
        let mut jobs = Vec::new();
        while let Ok(first) = queue.recv() {
            jobs.push(first);
            jobs.extend(queue.try_iter().take(MAX_BATCH - 1));
            let began = Instant::now();
            let mut batch = Batch::default();
            let kept = batch.write(&mut self.connection, &mut self.counters, jobs.drain(..));
            let took = began.elapsed();
            seconds.record(took);
            self.commits.record(took);
            if batch.restart
                && let Err(error) = super::checkpoint::copy(&self.connection)
            {
                tracing::warn!(%error, "the store's log could not be copied; it grows until it can be");
            }
            let emptying = std::mem::take(&mut batch.emptying);
            self.tell(batch, kept);
            for asker in emptying {
                // Who asked may be gone.
                let _ = asker.send(super::checkpoint::empty(&self.connection));
            }
            self.written.commit();
        }
    }

    fn tell(&self, batch: Batch, kept: rusqlite::Result<()>) {
        let failed = kept.err().map(|error| {
            tracing::error!(%error, "a commit failed; nothing of it is kept");
            CommitError::Store(error.to_string())
        });
        let Batch { commits, askers, events, restart: _, emptying: _ } = batch;
        if failed.is_none() {
            for event in events {
                // Nobody may follow.
                let _ = self.follow.send(Arc::new(event));
            }
        }
        for (asker, result) in askers {
            // Who asked may be gone.
            let _ = asker.send(failed.clone().map_or(result, Err));
        }
        let told: Vec<Told> = commits
            .into_iter()
            .map(|(commit, result)| {
                let Commit { done, sends, state, dead, .. } = *commit;
                let result = failed.clone().map_or(result, Err);
                if let (Ok(()), Some(state)) = (&result, &state)
                    && let Some(size) = state.size
                {
                    state.bytes.store(size, Ordering::Relaxed);
                }
                Told { done, committed: Committed { result, sends, state, dead } }
            })
            .collect();
        self.telling.tell(told);
    }
}

/// Somebody to be told what became of a commit.
struct Told {
    done: super::commit::Done,
    committed: Committed,
}

/// Tells of commits in their order: a few at once, many by a task, so that the disk does not wait.
struct Telling {
    runtime: Option<tokio::runtime::Handle>,
    task: tokio::sync::mpsc::UnboundedSender<Vec<Told>>,
    /// Batches that the task has not told of yet.
    behind: Arc<AtomicUsize>,
}

impl Telling {
    fn start() -> Self {
        let runtime = tokio::runtime::Handle::try_current().ok();
        let (task, mut batches) = tokio::sync::mpsc::unbounded_channel::<Vec<Told>>();
        let behind = Arc::new(AtomicUsize::new(0));
        if let Some(runtime) = &runtime {
            let behind = Arc::clone(&behind);
            runtime.spawn(async move {
                while let Some(batch) = batches.recv().await {
                    tell_all(batch);
                    behind.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
        Self { runtime, task, behind }
    }

    fn tell(&self, batch: Vec<Told>) {
        if batch.is_empty() {
            return;
        }
        let in_order = self.behind.load(Ordering::SeqCst) == 0;
        let Some(runtime) = &self.runtime else { return tell_all(batch) };
        if in_order && batch.len() <= TOLD_HERE {
            let _guard = runtime.enter();
            return tell_all(batch);
        }
        self.behind.fetch_add(1, Ordering::SeqCst);
        if let Err(unsent) = self.task.send(batch) {
            // The runtime has ended; whoever still waits hears it here.
            let _guard = runtime.enter();
            tell_all(unsent.0);
        }
    }
}

fn tell_all(batch: Vec<Told>) {
    for Told { done, committed } in batch {
        done(committed);
    }
}
