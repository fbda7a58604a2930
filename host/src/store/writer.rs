//! The one writer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::sync::{broadcast, oneshot};

use super::Store;

/// The most that one transaction takes up, so that its answers are not held back for too long.
const MAX_BATCH: usize = 4_096;
/// Events that are kept; the oldest leave first.
const MAX_EVENTS: i64 = 100_000;
/// Surplus events are removed when there are this many.
const PRUNE_EVENTS: i64 = 1_000;
/// Events that a slow follower may be behind before it misses some.
const FOLLOW: usize = 1_024;

/// What a handler did to its agent's state.
#[derive(Debug)]
pub(crate) struct Commit {
    /// Whose state.
    pub(crate) agent: Arc<str>,
    /// Keys read, with the version seen (0: there was none); all must still be so.
    pub(crate) reads: HashMap<String, u64>,
    /// Keys written; none removes one.
    pub(crate) writes: BTreeMap<String, Option<Vec<u8>>>,
    /// Told the size of the agent's state after the commit.
    pub(crate) state_bytes: Arc<AtomicU64>,
    /// The most that the agent's state may have, in bytes.
    pub(crate) quota: u64,
}

/// Why nothing was committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommitError {
    /// What was read has changed meanwhile: do it again.
    #[error("what was read has changed meanwhile")]
    Conflict,
    /// The agent's state would be too large.
    #[error("the agent's state would be larger than {0} bytes")]
    Quota(u64),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
}

/// The memory of a stateful agent, in bytes of its own choosing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The number of the revision that saved it.
    pub(crate) revision: u64,
    /// When, in milliseconds since 1970.
    pub(crate) saved_at: u64,
    /// What it saved.
    pub(crate) data: Vec<u8>,
}

/// Something that happened, for people and programs to follow.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Event {
    /// Counts the events of a store; 0 until it is kept.
    pub(crate) id: i64,
    /// When, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Whose; none for the host itself.
    pub(crate) agent: Option<String>,
    /// What, such as `revision.state`.
    pub(crate) kind: String,
    /// The rest.
    pub(crate) data: serde_json::Value,
}

/// A revision, as kept.
#[derive(Debug, Clone)]
pub(crate) struct RevisionRecord {
    /// Whose.
    pub(crate) agent: Arc<str>,
    /// Its number.
    pub(crate) number: u64,
    /// The digest of its bytes.
    pub(crate) digest: String,
    /// Its settings, as JSON.
    pub(crate) settings: String,
    /// When it was made, in milliseconds since 1970.
    pub(crate) created_at: u64,
}

type Done = oneshot::Sender<Result<(), CommitError>>;

/// The size of an agent's state after a job that changed it, or why it changed nothing.
type Written = Result<Option<u64>, CommitError>;

enum Job {
    Commit(Box<Commit>, Done),
    Snapshot(Arc<str>, Snapshot, Done),
    Revision(RevisionRecord, Done),
    Event(Event),
    Flush(Done),
}

/// The thread that writes.
pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    follow: broadcast::Sender<Arc<Event>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(connection: Connection) -> rusqlite::Result<Self> {
        let version: i64 =
            connection.query_row("SELECT value FROM meta WHERE key = 'version'", [], |row| row.get(0))?;
        let (jobs, queue) = mpsc::channel();
        let follow = broadcast::channel(FOLLOW).0;
        let told = follow.clone();
        let thread = std::thread::Builder::new()
            .name("caxton-store".to_owned())
            .spawn(move || run(connection, &queue, version, &told))
            .expect("the system can start a thread");
        Ok(Self { jobs: Some(jobs), follow, thread: Some(thread) })
    }

    fn send(&self, job: Job) {
        // The thread ends only when this sender is dropped; if it panicked, the answers' senders are gone too.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What is queued is written first.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Store {
    async fn ask(&self, job: impl FnOnce(Done) -> Job) -> Result<(), CommitError> {
        let (done, answer) = oneshot::channel();
        self.writer.send(job(done));
        answer.await.unwrap_or_else(|_| Err(CommitError::Store("its writer ended".to_owned())))
    }

    /// Commits what a handler did; returns when it is safe.
    pub(crate) async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let commit = Box::new(commit);
        self.ask(|done| Job::Commit(commit, done)).await
    }

    /// Keeps an agent's memory in place of what was kept before; returns when it is safe.
    pub(crate) async fn save_snapshot(&self, agent: Arc<str>, snapshot: Snapshot) -> Result<(), CommitError> {
        self.ask(|done| Job::Snapshot(agent, snapshot, done)).await
    }

    /// Keeps a new revision; returns when it is safe.
    pub(crate) async fn keep_revision(&self, record: RevisionRecord) -> Result<(), CommitError> {
        self.ask(|done| Job::Revision(record, done)).await
    }

    /// Returns when all that was given before is safe.
    pub(crate) async fn flush(&self) -> Result<(), CommitError> {
        self.ask(Job::Flush).await
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

fn run(
    mut connection: Connection,
    queue: &mpsc::Receiver<Job>,
    mut version: i64,
    follow: &broadcast::Sender<Arc<Event>>,
) {
    let seconds = metrics::histogram!("caxton_commit_seconds");
    let mut batch = Vec::new();
    while let Ok(first) = queue.recv() {
        batch.push(first);
        while batch.len() < MAX_BATCH {
            let Ok(next) = queue.try_recv() else { break };
            batch.push(next);
        }
        let began = Instant::now();
        let mut answers = Vec::with_capacity(batch.len());
        let mut events = Vec::new();
        let written = write(&mut connection, batch.drain(..), &mut version, &mut answers, &mut events);
        seconds.record(began.elapsed());
        if let Err(error) = &written {
            tracing::error!(%error, "a commit failed; nothing of it is kept");
            events.clear();
        }
        for event in events {
            // Nobody may follow.
            let _ = follow.send(Arc::new(event));
        }
        for answer in answers {
            answer.give(written.as_ref().err());
        }
    }
}

/// What is to be said of a job when its transaction is over.
struct Answer {
    done: Done,
    result: Result<(), CommitError>,
    /// The new size of an agent's state.
    size: Option<(Arc<AtomicU64>, u64)>,
}

impl Answer {
    fn give(self, failed: Option<&rusqlite::Error>) {
        let result = match failed {
            Some(error) => Err(CommitError::Store(error.to_string())),
            None => self.result,
        };
        if let (Ok(()), Some((cell, size))) = (&result, &self.size) {
            cell.store(*size, Ordering::Relaxed);
        }
        // Who asked may be gone.
        let _ = self.done.send(result);
    }
}

fn write(
    connection: &mut Connection,
    jobs: impl Iterator<Item = Job>,
    version: &mut i64,
    answers: &mut Vec<Answer>,
    events: &mut Vec<Event>,
) -> rusqlite::Result<()> {
    let jobs: Vec<Job> = jobs.collect();
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate);
    let before = *version;
    // Every asker gets an answer, also when the transaction did not even begin.
    let mut failed =
        transaction.as_ref().err().map(|error| rusqlite::Error::ToSqlConversionFailure(error.to_string().into()));
    for job in jobs {
        let mut apply =
            |work: &mut dyn FnMut(&Transaction<'_>) -> rusqlite::Result<Written>| match (&transaction, &failed) {
                (Ok(transaction), None) => work(transaction).unwrap_or_else(|error| {
                    failed = Some(error);
                    Ok(None)
                }),
                _ => Ok(None),
            };
        match job {
            Job::Commit(commit, done) => {
                let result = apply(&mut |transaction| write_state(transaction, &commit, version));
                let size = result.as_ref().ok().copied().flatten().map(|size| (commit.state_bytes, size));
                answers.push(Answer { done, result: result.map(|_| ()), size });
            }
            Job::Snapshot(agent, snapshot, done) => {
                let result =
                    apply(&mut |transaction| write_snapshot(transaction, &agent, &snapshot).map(|()| Ok(None)));
                answers.push(Answer { done, result: result.map(|_| ()), size: None });
            }
            Job::Revision(record, done) => {
                let result = apply(&mut |transaction| write_revision(transaction, &record).map(|()| Ok(None)));
                answers.push(Answer { done, result: result.map(|_| ()), size: None });
            }
            Job::Event(event) => {
                let mut id = None;
                let _ = apply(&mut |transaction| {
                    id = Some(write_event(transaction, &event)?);
                    Ok(Ok(None))
                });
                events.extend(id.map(|id| Event { id, ..event }));
            }
            Job::Flush(done) => answers.push(Answer { done, result: Ok(()), size: None }),
        }
    }
    let ended = match failed {
        Some(error) => Err(error),
        None => transaction.and_then(|transaction| end(transaction, (*version != before).then_some(*version))),
    };
    ended.inspect_err(|_| *version = before)
}

/// Commits, with the version that the last write has, if there was one.
fn end(transaction: Transaction<'_>, version: Option<i64>) -> rusqlite::Result<()> {
    if let Some(version) = version {
        transaction.prepare_cached("UPDATE meta SET value = ?1 WHERE key = 'version'")?.execute([version])?;
    }
    transaction.commit()
}

/// Writes one handler's changes, unless what it read has changed. Gives the size of the agent's state.
fn write_state(transaction: &Transaction<'_>, commit: &Commit, version: &mut i64) -> rusqlite::Result<Written> {
    let agent = &*commit.agent;
    let mut current = transaction.prepare_cached("SELECT version FROM state WHERE agent = ?1 AND key = ?2")?;
    for (key, seen) in &commit.reads {
        let now: Option<i64> = current.query_row(params![agent, key], |row| row.get(0)).optional()?;
        if now.unwrap_or(0).cast_unsigned() != *seen {
            return Ok(Err(CommitError::Conflict));
        }
    }
    let mut sizes = transaction.prepare_cached("SELECT bytes FROM state_size WHERE agent = ?1")?;
    let mut size: i64 = sizes.query_row([agent], |row| row.get(0)).optional()?.unwrap_or(0);
    let mut old = transaction.prepare_cached("SELECT length(value) FROM state WHERE agent = ?1 AND key = ?2")?;
    for (key, value) in &commit.writes {
        let length = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let replaced: Option<i64> = old.query_row(params![agent, key], |row| row.get(0)).optional()?;
        size -= replaced.map_or(0, |bytes| bytes + length(key.len()));
        size += value.as_ref().map_or(0, |value| length(key.len() + value.len()));
    }
    let grows = commit.writes.values().any(Option::is_some);
    if grows && size.cast_unsigned() > commit.quota {
        return Ok(Err(CommitError::Quota(commit.quota)));
    }
    *version += 1;
    let mut set = transaction.prepare_cached(
        "INSERT INTO state (agent, key, value, version) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (agent, key) DO UPDATE SET value = excluded.value, version = excluded.version",
    )?;
    let mut remove = transaction.prepare_cached("DELETE FROM state WHERE agent = ?1 AND key = ?2")?;
    for (key, value) in &commit.writes {
        match value {
            Some(value) => set.execute(params![agent, key, value, *version])?,
            None => remove.execute(params![agent, key])?,
        };
    }
    transaction
        .prepare_cached(
            "INSERT INTO state_size (agent, bytes) VALUES (?1, ?2)
             ON CONFLICT (agent) DO UPDATE SET bytes = excluded.bytes",
        )?
        .execute(params![agent, size])?;
    Ok(Ok(Some(size.max(0).cast_unsigned())))
}

fn write_snapshot(transaction: &Transaction<'_>, agent: &str, snapshot: &Snapshot) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO snapshot (agent, revision, saved_at, data) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (agent) DO UPDATE
             SET revision = excluded.revision, saved_at = excluded.saved_at, data = excluded.data",
        )?
        .execute(params![agent, snapshot.revision.cast_signed(), snapshot.saved_at.cast_signed(), snapshot.data])
        .map(|_| ())
}

fn write_revision(transaction: &Transaction<'_>, record: &RevisionRecord) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO revision (agent, number, digest, settings, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            &*record.agent,
            record.number.cast_signed(),
            record.digest,
            record.settings,
            record.created_at.cast_signed()
        ])
        .map(|_| ())
}

fn write_event(transaction: &Transaction<'_>, event: &Event) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT INTO event (at, agent, kind, data) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![event.at.cast_signed(), event.agent, event.kind, event.data.to_string()])?;
    let id = transaction.last_insert_rowid();
    if id % PRUNE_EVENTS == 0 {
        transaction.prepare_cached("DELETE FROM event WHERE id <= ?1")?.execute([id - MAX_EVENTS])?;
    }
    Ok(id)
}
