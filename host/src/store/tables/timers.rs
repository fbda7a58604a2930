//! Timers: messages that wait for their time, apart from those that wait in a mailbox.
//!
//! ```text
//! commit of the sender --> timer --> due: moved into the mailbox's table, and from there handled as any message
//!                            '-- cancelled, or replaced by one of the same name: gone
//! ```
//! They are rows and nothing else: of each agent the memory has how many there are and when the first is due, so that a
//! million cost no more of it than one. Where messages are not kept timers still have their rows, which end with the
//! host. `due` is of the steady clock, `at` is the date; they differ where the wall clock was set, and a start goes by
//! the date.

mod list;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::clock;
use crate::message::Dispatch;
use crate::message::{Envelope, TimerCancel, TimerName};
use crate::store::commit::{ClosedQuestion, Commit, CommitError};
use crate::store::handles::TimerTable;
use crate::store::record::{Record, TimerRow};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::sqlite::whole::CONTENT;
use crate::store::turn::Turn;
use crate::store::writer::message_row;
use crate::store::writer::writer_state::WriterState;

pub(crate) use list::WaitingTimer;

/// Bytes of contents above which no further timer fires in one transaction: others' commits wait for it.
const FIRE_BYTES: usize = 512 << 10;
/// Timers that get another time in one transaction, so that others' commits do not wait for long.
const AT_ONCE: u32 = 10_000;

/// The column to look in for a timer, and what for.
fn column(timer: &TimerName) -> (&'static str, &str) {
    match timer {
        TimerName::Id(id) => ("id", id),
        TimerName::Name(name) => ("name", name),
    }
}

/// The timers of one agent, as they are counted.
#[derive(Debug)]
pub(crate) struct AgentTimers {
    /// The number of timers in the store.
    kept: AtomicU64,
    /// Places of those that are yet to be committed.
    reserved: AtomicU64,
    /// The time at which the first is due, by the steady clock, or earlier; the end of time for never.
    next: AtomicU64,
}

impl Default for AgentTimers {
    fn default() -> Self {
        Self { kept: AtomicU64::new(0), reserved: AtomicU64::new(0), next: AtomicU64::new(u64::MAX) }
    }
}

impl AgentTimers {
    /// Returns how many wait.
    pub(crate) fn count(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Returns when the first is due by the steady clock. There may be none any more then.
    pub(crate) fn next(&self) -> Option<u64> {
        Some(self.next.load(Ordering::Acquire)).filter(|next| *next < u64::MAX)
    }

    /// Keeps a place for one more. False if there are as many as there may be.
    pub(crate) fn reserve(&self, bound: u64) -> bool {
        // Added before it is compared: two callers cannot both take the last place.
        let reserved = self.reserved.fetch_add(1, Ordering::SeqCst);
        let free = self.count().saturating_add(reserved) < bound;
        if !free {
            self.release();
        }
        free
    }

    /// Keeps a place for one that takes another's.
    pub(crate) fn reserve_beyond(&self) {
        self.reserved.fetch_add(1, Ordering::SeqCst);
    }

    /// Releases a reserved place: the store has the timer, or it is not sent.
    pub(crate) fn release(&self) {
        self.reserved.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The timers of all agents, as they are counted.
#[derive(Debug, Default)]
pub(crate) struct TimerCounts(Mutex<AHashMap<Arc<str>, Arc<AgentTimers>>>);

/// A change that a transaction makes to the counts.
#[derive(Debug)]
pub(in crate::store) enum TimerChange {
    /// A timer of this agent that is due then is kept.
    Kept(Arc<str>, u64),
    /// Removes so many of an agent.
    Gone(Arc<str>, u64),
    /// The first of an agent is due then.
    Next(Arc<str>, Option<u64>),
}

impl TimerCounts {
    /// Counts those that the database has. Waits for a time of this run's clock what waited for one of another's.
    pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        // Of an index that has only these.
        connection.execute("UPDATE timer SET due = at WHERE due <> at", [])?;
        let timers = Self::default();
        let mut counts = connection.prepare("SELECT agent, count(*), min(due) FROM timer GROUP BY agent")?;
        let mut rows = counts.query([])?;
        while let Some(row) = rows.next()? {
            let of = timers.of(row.get_ref(0)?.as_str()?);
            of.kept.store(row.get::<_, i64>(1)?.cast_unsigned(), Ordering::Relaxed);
            of.next.store(row.get::<_, i64>(2)?.cast_unsigned(), Ordering::Release);
        }
        drop(rows);
        drop(counts);
        Ok(timers)
    }

    /// Returns the counts of one agent.
    pub(crate) fn of(&self, agent: &str) -> Arc<AgentTimers> {
        let mut agents = self.0.lock();
        // Without allocating the name of an agent that is known, which is the usual case.
        match agents.get(agent) {
            Some(timers) => Arc::clone(timers),
            None => Arc::clone(agents.entry(agent.into()).or_default()),
        }
    }

    /// Returns the agents for which timers wait, with how many.
    pub(crate) fn agents(&self) -> Vec<(Arc<str>, u64)> {
        let agents = self.0.lock();
        agents.iter().map(|(name, of)| (Arc::clone(name), of.count())).filter(|(_, count)| *count > 0).collect()
    }

    /// Takes in what a transaction did, in its order.
    pub(in crate::store) fn apply(&self, changes: &mut Vec<TimerChange>) {
        for change in changes.drain(..) {
            match change {
                TimerChange::Kept(agent, due) => {
                    let of = self.of(&agent);
                    of.kept.fetch_add(1, Ordering::SeqCst);
                    of.next.fetch_min(due, Ordering::AcqRel);
                }
                TimerChange::Gone(agent, count) => drop(self.of(&agent).kept.fetch_sub(count, Ordering::SeqCst)),
                TimerChange::Next(agent, next) => {
                    self.of(&agent).next.store(next.unwrap_or(u64::MAX), Ordering::Release);
                }
            }
        }
    }
}

/// A timer as the store has it.
pub(in crate::store) struct FoundTimer {
    seq: u64,
    id: String,
    /// The receiver.
    agent: String,
    /// The question that it asks, which is closed with it.
    pub(in crate::store) closed: ClosedQuestion,
}

/// Finds a timer of a sender.
fn find(reader: TableReader<'_>, sender: &str, timer: &TimerName) -> rusqlite::Result<Option<FoundTimer>> {
    let (column, value) = column(timer);
    let sql = format!("SELECT seq, id, agent, conversation, head FROM timer WHERE sender = ?1 AND {column} = ?2");
    reader
        .prepare(&sql)?
        .query_row(params![sender, value], |found| {
            let (id, agent): (String, String) = (found.get(1)?, found.get(2)?);
            let key = message_row::reply_with(found.get_ref(4)?.as_blob()?).unwrap_or_else(|| id.clone());
            let closed =
                ClosedQuestion { conversation: found.get(3)?, from: sender.to_owned(), to: agent.clone(), key };
            Ok(FoundTimer { seq: found.get::<_, i64>(0)?.cast_unsigned(), id, agent, closed })
        })
        .optional()
}

/// Returns the timers that a commit cancels; a conflict if its handler was told otherwise.
pub(in crate::store) fn check_cancels(
    reader: TableReader<'_>,
    sender: &str,
    cancels: &[TimerCancel],
) -> rusqlite::Result<Result<Vec<FoundTimer>, CommitError>> {
    let mut cancelled = Vec::new();
    for TimerCancel { timer, found: expected, was_reported: told } in cancels {
        let found = find(reader, sender, timer)?;
        // It has fired, or another of the name was set, since the handler asked.
        if *told && found.as_ref().map(|found| &found.id) != expected.as_ref() {
            return Ok(Err(CommitError::Conflict(format!("timer {}", timer.text()))));
        }
        add(&mut cancelled, found);
    }
    Ok(Ok(cancelled))
}

/// Adds the timers in whose place a commit sends others of their names.
pub(in crate::store) fn find_replaced(
    reader: TableReader<'_>,
    commit: &Commit,
    cancelled: &mut Vec<FoundTimer>,
) -> rusqlite::Result<()> {
    for sent in commit.sends.iter().filter(|sent| sent.exceeded_limit.is_none()) {
        if let Some(name) = &sent.envelope.timer {
            add(cancelled, find(reader, &sent.envelope.message.sender, &TimerName::Name(name.clone()))?);
        }
    }
    Ok(())
}

/// Adds a timer once: a commit may cancel one by its id and by its name.
fn add(cancelled: &mut Vec<FoundTimer>, found: Option<FoundTimer>) {
    cancelled.extend(found.filter(|found| cancelled.iter().all(|other| other.seq != found.seq)));
}

/// Returns the timer of the same commit in whose place a message is sent.
pub(in crate::store) fn replaced_within(before: &[Dispatch], envelope: &Envelope) -> Option<FoundTimer> {
    let name = envelope.timer.as_ref()?;
    let same = |other: &&Dispatch| {
        let other = &other.envelope;
        other.timer.as_ref() == Some(name) && other.message.sender == envelope.message.sender
    };
    // The last of the name has replaced those before it.
    let replaced = before.iter().rev().filter(|sent| sent.exceeded_limit.is_none()).find(same)?;
    let (seq, message) = (replaced.seq.filter(|_| replaced.envelope.waits)?, &replaced.envelope.message);
    let closed = ClosedQuestion {
        conversation: message.conversation_id.clone(),
        from: message.sender.clone(),
        to: message.receiver.clone(),
        key: message.reply_with.as_ref().unwrap_or(&message.id).clone(),
    };
    Some(FoundTimer { seq, id: message.id.clone(), agent: message.receiver.clone(), closed })
}

/// Adds the removal of a timer to a record, and counts it.
pub(in crate::store) fn push_removed(writer: &mut WriterState, record: &mut Record<'_>, found: &FoundTimer) {
    record.push(TimerRow::Removed { seq: found.seq });
    writer.timer_changes.push(TimerChange::Gone(found.agent.as_str().into(), 1));
}

/// Decides that a timer is removed, and closes its question. Returns `false` if it is not there.
fn cancel(
    reader: TableReader<'_>,
    writer: &mut WriterState,
    sender: &str,
    timer: &TimerName,
    record: &mut Record<'_>,
) -> rusqlite::Result<bool> {
    let Some(found) = find(reader, sender, timer)? else { return Ok(false) };
    writer.gate.close_question(&found.closed);
    push_removed(writer, record, &found);
    Ok(true)
}

/// Returns the columns of a timer as [`message_row::decode`] reads them, and when it is due by the steady clock.
fn columns() -> String {
    format!("seq, agent, conversation, rank, at, head, {CONTENT}, due")
}
/// The place of the last of [`columns`].
const DUE: usize = 7;

fn decode(found: &rusqlite::Row<'_>) -> rusqlite::Result<Envelope> {
    let due = found.get::<_, i64>(DUE)?.cast_unsigned();
    Ok(Envelope { due: Some(due), ..message_row::decode(found)? })
}

/// Decides which of an agent's timers move to the messages that wait in its mailbox: those that are due by `now`.
fn fire<'r>(
    reader: TableReader<'_>,
    writer: &mut WriterState,
    (agent, fired): (&Arc<str>, &'r mut Vec<Envelope>),
    (now, most): (u64, u32),
    record: &mut Record<'r>,
) -> rusqlite::Result<()> {
    let sql = format!("SELECT {} FROM timer WHERE agent = ?1 AND due <= ?2 ORDER BY due, seq LIMIT ?3", columns());
    let mut statement = reader.prepare(&sql)?;
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![&**agent, now, most])?;
    let (mut bytes, mut last) = (0, (i64::MIN, i64::MIN));
    while bytes < FIRE_BYTES
        && let Some(found) = rows.next()?
    {
        let envelope = decode(found)?;
        bytes += envelope.message.content.len();
        last = (found.get(DUE)?, found.get(0)?);
        fired.push(envelope);
    }
    // The first of those that stay.
    let next: Option<i64> = reader
        .prepare("SELECT due FROM timer WHERE agent = ?1 AND (due, seq) > (?2, ?3) ORDER BY due, seq LIMIT 1")?
        .query_row(params![&**agent, last.0, last.1], |row| row.get(0))
        .optional()?;
    for envelope in &mut *fired {
        record.push(TimerRow::Removed { seq: envelope.seq.take().unwrap_or_default() });
        envelope.seq = writer.keeps_messages.then(|| writer.next_seq());
    }
    writer.timer_changes.push(TimerChange::Gone(Arc::clone(agent), fired.len() as u64));
    writer.timer_changes.push(TimerChange::Next(Arc::clone(agent), next.map(i64::cast_unsigned)));
    // In a loop of its own, because rows borrow the envelopes, which the loop above changes.
    for envelope in &*fired {
        if let Some(seq) = envelope.seq {
            message_row::push_message(record, envelope, seq, None);
        }
    }
    Ok(())
}

/// Takes note of the first timer of each agent.
fn count_firsts(reader: TableReader<'_>, writer: &mut WriterState) -> rusqlite::Result<()> {
    let mut firsts = reader.prepare("SELECT agent, min(due) FROM timer GROUP BY agent")?;
    let mut rows = firsts.query([])?;
    while let Some(row) = rows.next()? {
        let (agent, due): (String, i64) = (row.get(0)?, row.get(1)?);
        writer.timer_changes.push(TimerChange::Next(agent.into(), Some(due.cast_unsigned())));
    }
    Ok(())
}

impl TimerTable<'_> {
    /// Lets an agent's timers that are due by `now` become messages that wait, the earliest first and so many at most.
    /// Returns them when that is written: what follows from them is not safe before it is.
    pub(crate) async fn fire(self, agent: Arc<str>, now: u64, most: u32) -> Result<Vec<Envelope>, CommitError> {
        // The agent may be gone by then; the store has them for the next start.
        let fired = self.0.change_early(
            Turn::of(&agent),
            (agent, Vec::new()),
            move |(agent, fired), reader, writer, record| fire(reader, writer, (agent, fired), (now, most), record),
        );
        fired.await.map(|(_, fired)| fired)
    }

    /// Returns the id of a timer of a sender, and for whom it waits; none if there is none.
    pub(crate) fn get(self, sender: &str, timer: &TimerName) -> Result<Option<(String, String)>, String> {
        let (column, value) = column(timer);
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(&format!("SELECT id, agent FROM timer WHERE sender = ?1 AND {column} = ?2"))?
                .query_row(params![sender, value], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })
    }

    /// Computes anew when timers with a date are due, after the wall clock was set. None is due before now, since it
    /// has not waited since then.
    pub(crate) async fn redate(self) -> Result<(), CommitError> {
        let mut after: i64 = 0;
        loop {
            let redated = self.0.change_early(Turn::AfterAll, None, move |last, reader, writer, record| {
                // Last of these, so that the next begins behind it.
                let sql = "SELECT max(seq) FROM
                               (SELECT seq FROM timer WHERE dated AND seq > ?1 ORDER BY seq LIMIT ?2)";
                *last = reader.prepare(sql)?.query_row(params![after, AT_ONCE], |row| row.get::<_, Option<i64>>(0))?;
                match *last {
                    Some(last) => {
                        let (after, last) = (after.cast_unsigned(), last.cast_unsigned());
                        let (ahead, now) = (clock::ahead(), clock::steady_ms());
                        record.push(TimerRow::Redated { after, last, ahead, now });
                        Ok(())
                    }
                    // At the end only: the first timer of an agent may be in any portion.
                    None => count_firsts(reader, writer),
                }
            });
            match redated.await? {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }
}

/// Returns the timers of a conversation from this sequence number on, the newest so many.
pub(in crate::store) fn of_conversation(
    connection: &Connection,
    name: &str,
    first_seq: i64,
    most: u32,
) -> rusqlite::Result<Vec<Envelope>> {
    let sql =
        format!("SELECT {} FROM timer WHERE conversation = ?1 AND seq >= ?2 ORDER BY seq DESC LIMIT ?3", columns());
    connection.prepare_cached(&sql)?.query_map(params![name, first_seq, most], decode)?.collect()
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use caxton_control::desired::Durability;

    use super::*;
    use crate::store::Store;
    use crate::store::sqlite::schema::MIGRATIONS;
    use crate::store::tests::{message, opened, settings};

    /// The last format in which timers were messages like all others.
    const BEFORE: usize = 10;

    #[tokio::test]
    async fn timers_of_an_older_store_are_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        {
            let older = Connection::open(folder.path().join("caxton.db")).unwrap();
            MIGRATIONS[..BEFORE].iter().for_each(|step| older.execute_batch(step).unwrap());
            older.pragma_update(None, "user_version", i64::try_from(BEFORE).unwrap()).unwrap();
            let hour = (clock::now_ms() + 3_600_000).cast_signed();
            // One that waits for its time, one that was due, one without a time, one that is handled.
            for (seq, due) in [(1, Some(hour)), (2, Some(1)), (3, None), (4, Some(hour))] {
                let mut head = Vec::new();
                message_row::encode(&message(&format!("m-{seq}"), "triage", "desk"), &mut head);
                let insert = "INSERT INTO message VALUES (?1, 'desk', 'c', 1, ?2, NULL, ?3, x'00', 0)";
                older.execute(insert, params![seq, due, head]).unwrap();
            }
            older
                .execute_batch("INSERT INTO ack VALUES (4, 1, 0); UPDATE meta SET value = 4 WHERE key = 'seq'")
                .unwrap();
        }
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let waiting = |store: &Store| {
            let queued = store.queue().queued(&RandomState::new()).unwrap();
            queued.get("desk").map_or_else(Vec::new, |found| found.iter().map(|one| one.seq).collect::<Vec<_>>())
        };
        assert_eq!((store.timer_counts.of("desk").count(), waiting(&store)), (1, vec![2, 3]));
        let found = store.timers().get("triage", &TimerName::Id("m-1".to_owned())).unwrap();
        assert_eq!(found, Some(("m-1".to_owned(), "desk".to_owned())));
        assert_eq!(store.timers().get("ledger", &TimerName::Id("m-1".to_owned())).unwrap(), None, "it is another's");
        assert!(store.timers().fire("desk".into(), clock::steady_ms(), 9).await.unwrap().is_empty(), "it is not due");
        let fired = store.timers().fire("desk".into(), u64::MAX, 9).await.unwrap();
        let ids: Vec<&str> = fired.iter().map(|envelope| envelope.message.id.as_str()).collect();
        assert_eq!((ids, store.timer_counts.of("desk").count(), waiting(&store)), (vec!["m-1"], 0, vec![2, 3, 5]));
        assert_eq!(store.timer_counts.of("desk").next(), None);
        assert!(store.check().unwrap().defects.is_empty(), "{:?}", store.check().unwrap().defects);
    }

    #[tokio::test]
    async fn what_is_done_with_many_timers_reads_few() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let plan = |sql: &str| {
            store
                .with_reader(|connection| {
                    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
                    let steps: rusqlite::Result<Vec<String>> = plan.query_map([], |row| row.get(3))?.collect();
                    Ok(steps?.join("; "))
                })
                .unwrap()
        };
        for (sql, index) in [
            ("SELECT seq FROM timer WHERE agent = 'a' AND due <= 1 ORDER BY due, seq LIMIT 9", "timer_due"),
            (
                "SELECT due FROM timer WHERE agent = 'a' AND (due, seq) > (1, 2) ORDER BY due, seq LIMIT 1",
                "timer_due (agent=? AND due>?)",
            ),
            ("SELECT agent, count(*), min(due) FROM timer GROUP BY agent", "COVERING INDEX timer_due"),
            ("SELECT seq FROM timer WHERE sender = 'a' AND id = 'b'", "timer_id"),
            ("SELECT seq FROM timer WHERE sender = 'a' AND name = 'b'", "timer_name"),
            ("UPDATE timer SET due = at WHERE due <> at", "timer_moved"),
            ("SELECT seq FROM timer WHERE dated AND seq > 1 ORDER BY seq LIMIT 9", "timer_dated"),
        ] {
            let steps = plan(sql);
            assert!(steps.contains(index) && !steps.contains("TEMP B-TREE"), "{sql}: {steps}");
        }
    }

    #[tokio::test]
    async fn a_place_is_kept_up_to_the_bound() {
        let timers = AgentTimers::default();
        assert!(timers.reserve(2) && timers.reserve(2) && !timers.reserve(2));
        timers.release();
        assert!(timers.reserve(2));
        timers.reserve_beyond();
        assert!(!timers.reserve(3), "what takes another's place counts while it is on its way");
    }
}
