//! The messages that stay after they were handled or given up, bounded in number and bytes; the oldest leave first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension};

use crate::store::record::{QueueRow, Record};
use crate::store::retention::{Left, Retention};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::sqlite::whole::CONTENT_LENGTH;
use crate::store::writer::buried::{BuriedLetters, ROW};

/// The handled messages between two marks, and the most that leave in one transaction beside its own work.
const STEP: u64 = 1_000;
/// The bytes of contents for which the same holds: each page of a row that leaves is read and written to the list of
/// free ones.
const STEP_BYTES: u64 = 1 << 20;

/// The counts of handled messages and dead letters, and their bounds.
#[derive(Debug)]
pub(in crate::store) struct History {
    /// The bounds, and what has left.
    retention: Arc<Retention>,
    /// Messages that were handled since the store was made, about.
    handled: u64,
    /// The highest sequence number among them.
    highest: u64,
    /// The marks, one after every [`STEP`] or [`STEP_BYTES`].
    marks: VecDeque<Mark>,
    /// The first marks, of an earlier run of the host, whose bytes are not known.
    unmeasured: usize,
    /// The messages, and the bytes of their contents, since the last mark.
    since: (u64, u64),
    /// The bytes of the messages that are known, those since the last mark included.
    bytes: u64,
    dead: BuriedLetters,
    /// The most bytes that the tables can have: those of the database when it was loaded, and what was added since.
    most_bytes: u64,
    /// The bytes that the transaction in progress added.
    added: u64,
    before: Before,
}

/// A place in the line of handled messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    /// The number of messages handled by then.
    handled: u64,
    /// The highest sequence number among them.
    highest: u64,
    /// The messages since the mark before.
    count: u64,
    /// The bytes of these; `None` until they are measured.
    bytes: Option<u64>,
}

/// The counts before a transaction.
#[derive(Debug, Default)]
struct Before {
    handled: u64,
    highest: u64,
    marks: usize,
    since: (u64, u64),
    bytes: u64,
    dead: BuriedLetters,
    /// The marks up to which handled messages leave in it.
    left: Vec<Mark>,
    /// The messages that leave in it: for their number, and for their bytes.
    by_bound: [Left; 2],
    /// The dead letters that leave in it, by agent.
    forgotten: BTreeMap<String, Left>,
}

impl History {
    /// Loads the counts of the database.
    pub(in crate::store) fn load(connection: &Connection, retention: Arc<Retention>) -> rusqlite::Result<Self> {
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
        let (handled, dead) = (number("SELECT count(*) FROM ack")?, number("SELECT count(*) FROM dead")?);
        // To sum up the contents would read every message, at each start. No bound is passed while all of the database is
        // smaller.
        let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
        let most_bytes = pages * number("PRAGMA page_size")?;
        let mut history = Self {
            retention,
            handled: 0,
            highest: 0,
            marks: VecDeque::new(),
            unmeasured: 0,
            since: (0, 0),
            bytes: 0,
            dead: BuriedLetters::unmeasured(dead),
            most_bytes,
            added: 0,
            before: Before::default(),
        };
        // Marks as they would have been set.
        let sql = format!("SELECT seq FROM ack WHERE seq > ?1 ORDER BY seq LIMIT 1 OFFSET {}", STEP - 1);
        let mut statement = connection.prepare(&sql)?;
        let (mut at, mut last) = (0, i64::MIN);
        while let Some(seq) = statement.query_row([last], |row| row.get::<_, i64>(0)).optional()? {
            (at, last) = (at + STEP, seq);
            history.marks.push_back(Mark { handled: at, highest: seq.cast_unsigned(), count: STEP, bytes: None });
        }
        let last: Option<i64> = connection.query_row("SELECT max(seq) FROM ack", [], |row| row.get(0))?;
        history.highest = last.unwrap_or(0).cast_unsigned();
        if handled > at {
            history.marks.push_back(Mark { handled, highest: history.highest, count: handled - at, bytes: None });
        }
        history.handled = handled;
        history.unmeasured = history.marks.len();
        Ok(history)
    }

    /// Notes the counts at the beginning of a transaction.
    pub(in crate::store) fn begin(&mut self) {
        let Self { handled, highest, since, bytes, dead, .. } = *self;
        self.added = 0;
        self.dead.begin();
        self.before = Before { handled, highest, marks: self.marks.len(), since, bytes, dead, ..Before::default() };
    }

    /// Forgets what a transaction has not kept.
    pub(in crate::store) fn undo(&mut self) {
        let Before { handled, highest, marks, since, bytes, left, dead, .. } = std::mem::take(&mut self.before);
        (self.handled, self.highest, self.since, self.dead, self.bytes) = (handled, highest, since, dead, bytes);
        for mark in left.into_iter().rev() {
            self.unmeasured += usize::from(mark.bytes.is_none());
            self.marks.push_front(mark);
        }
        // After the removed mark is back in front, since the length counts it.
        self.marks.truncate(marks);
    }

    /// Reports what has left, once the transaction is written.
    pub(in crate::store) fn written(&mut self) {
        let Before { by_bound, forgotten, .. } = std::mem::take(&mut self.before);
        for (bound, left) in ["messages", "bytes"].into_iter().zip(by_bound) {
            if left.count > 0 {
                metrics::counter!("caxton_history_forgotten_total", "bound" => bound).increment(left.count);
            }
        }
        let dead = forgotten.values().map(|left| left.count).sum();
        if dead > 0 {
            metrics::counter!("caxton_dead_letters_forgotten_total").increment(dead);
        }
        self.retention.note_left(by_bound[1], forgotten);
    }

    /// Counts a message that is handled, with the bytes of its content.
    pub(in crate::store) fn handled(&mut self, seq: u64, bytes: u64) {
        let bytes = bytes + ROW;
        self.add(bytes);
        self.handled += 1;
        self.highest = self.highest.max(seq);
        self.since = (self.since.0 + 1, self.since.1 + bytes);
        self.bytes += bytes;
        if self.since.0 >= STEP || self.since.1 >= STEP_BYTES {
            let (count, bytes) = std::mem::take(&mut self.since);
            let bytes = Some(bytes);
            self.marks.push_back(Mark { handled: self.handled, highest: self.highest, count, bytes });
        }
    }

    fn add(&mut self, bytes: u64) {
        self.added += bytes;
        self.most_bytes += bytes;
    }

    /// Adds to a record what leaves at the end of a transaction: handled messages up to a mark, and the oldest dead
    /// letters beyond the bounds.
    pub(in crate::store) fn prune(&mut self, reader: TableReader<'_>, record: &mut Record<'_>) -> rusqlite::Result<()> {
        let retention = Arc::clone(&self.retention);
        // More than was added, or a store that takes large messages would pass its bound all the same.
        let large_step = STEP_BYTES.max(self.added.saturating_mul(2));
        let bounds =
            (retention.dead_letters.load(Ordering::Relaxed), retention.dead_letters_bytes.load(Ordering::Relaxed));
        if self.most_bytes > bounds.1 {
            self.dead.measure(reader)?;
        }
        self.dead.prune(reader, record, bounds, large_step, &mut self.before.forgotten)?;
        let (keep, most) = (retention.history.load(Ordering::Relaxed), retention.history_bytes.load(Ordering::Relaxed));
        if self.most_bytes > most && self.bytes <= most {
            self.measure(reader)?;
        }
        let step = if self.bytes > most { large_step } else { STEP_BYTES };
        let mut left = Left::default();
        // One mark at least, and no more than about a thousand rows or a mebibyte in one transaction.
        while let Some(mark) = self.marks.front().copied() {
            let by_count = self.handled - mark.handled >= keep;
            if !by_count && self.bytes <= most {
                break;
            }
            let bytes = mark.bytes.unwrap_or(0);
            left = left.and(Left { count: mark.count, bytes });
            if !self.before.left.is_empty() && (left.count > STEP || left.bytes > step) {
                break;
            }
            self.marks.pop_front();
            self.unmeasured -= usize::from(mark.bytes.is_none());
            self.bytes = self.bytes.saturating_sub(bytes);
            let bound = &mut self.before.by_bound[usize::from(!by_count)];
            *bound = bound.and(Left { count: mark.count, bytes });
            self.before.left.push(mark);
        }
        if let Some(mark) = self.before.left.last() {
            record.push(QueueRow::HandledRemoved { up_to: mark.highest });
        }
        Ok(())
    }

    /// Measures the messages up to the newest mark of an earlier run that is not measured, and sets marks among them as
    /// it would have. One in a transaction, as others wait for it.
    fn measure(&mut self, reader: TableReader<'_>) -> rusqlite::Result<()> {
        let Some(at) = self.unmeasured.checked_sub(1) else { return Ok(()) };
        let after = at.checked_sub(1).map_or(i64::MIN, |before| self.marks[before].highest.cast_signed());
        let sql = format!(
            "SELECT seq, {CONTENT_LENGTH} + {ROW} FROM message JOIN ack USING (seq)
             WHERE seq > ?1 AND seq <= ?2 ORDER BY seq"
        );
        let whole = self.marks[at];
        let mut statement = reader.prepare(&sql)?;
        let mut rows = statement.query([after, whole.highest.cast_signed()])?;
        let mut handled = whole.handled - whole.count;
        let (mut marks, mut since, mut sum) = (Vec::new(), (0, 0), 0);
        while let Some(row) = rows.next()? {
            let (seq, bytes) = (row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned());
            (handled, since, sum) = (handled + 1, (since.0 + 1, since.1 + bytes), sum + bytes);
            if since.1 >= STEP_BYTES && seq < whole.highest {
                let (count, bytes) = std::mem::take(&mut since);
                marks.push(Mark { handled, highest: seq, count, bytes: Some(bytes) });
            }
        }
        marks.push(Mark { count: since.0, bytes: Some(since.1), ..whole });
        // It is so whether this transaction is kept or not.
        (self.bytes, self.before.bytes) = (self.bytes + sum, self.before.bytes + sum);
        self.before.marks += marks.len() - 1;
        self.unmeasured = at;
        let newer = self.marks.split_off(at + 1);
        self.marks.pop_back();
        self.marks.extend(marks.into_iter().chain(newer));
        Ok(())
    }

    /// Counts a message that was given up, with its number, and the bytes of its content and of what went wrong.
    pub(in crate::store) fn buried(&mut self, seq: u64, bytes: u64) {
        self.add(bytes + ROW);
        self.dead.add(seq, bytes + ROW);
    }

    /// Counts dead letters that were taken out.
    pub(in crate::store) fn revived(&mut self, count: u64) {
        self.dead.take_out(count);
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Transaction;

    use super::*;
    use crate::store::writer::apply::Tables;

    /// The counts of a database that keeps so much.
    fn load(connection: &Connection, messages: u64, bytes: u64, dead: (u64, u64)) -> History {
        let retention = Retention::new(&caxton_control::desired::StoreSpec {
            history: messages,
            history_max_bytes: bytes,
            dead_letters: dead.0,
            dead_letters_max_bytes: dead.1,
            ..crate::store::tests::settings(caxton_control::desired::Durability::Os)
        });
        History::load(connection, Arc::new(retention)).unwrap()
    }

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE message (seq INTEGER PRIMARY KEY, content BLOB, placed INTEGER);
                 CREATE TABLE attempt (seq INTEGER); CREATE TABLE content_piece (content INTEGER, data BLOB);
                 CREATE TABLE ack (seq INTEGER PRIMARY KEY);
                 CREATE TABLE dead (
                     seq INTEGER PRIMARY KEY, agent TEXT, content BLOB, placed INTEGER, error TEXT, attempts TEXT
                 );",
            )
            .unwrap();
        connection
    }

    fn rows(connection: &Connection, table: &str) -> i64 {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }

    /// Handles the messages of these sequence numbers in one transaction.
    fn handle(history: &mut History, transaction: &Transaction<'_>, seqs: std::ops::Range<u64>) {
        history.begin();
        for seq in seqs {
            transaction.execute("INSERT INTO ack VALUES (?1)", [seq.cast_signed()]).unwrap();
            history.handled(seq, 10);
        }
        let mut record = Record::default();
        history.prune(TableReader::new(transaction), &mut record).unwrap();
        Tables::new(transaction).apply(&record).unwrap();
    }

    #[test]
    fn so_many_are_kept_as_are_to_be_and_after_opening_again_too() {
        let mut connection = database();
        let mut history = load(&connection, 2_000, u64::MAX, (10, u64::MAX));
        for thousand in 0..10 {
            let transaction = connection.transaction().unwrap();
            handle(&mut history, &transaction, thousand * 1_000..(thousand + 1) * 1_000);
            transaction.commit().unwrap();
            assert_eq!(rows(&connection, "ack"), 1_000 * i64::try_from(thousand.min(1) + 1).unwrap());
        }
        let mut again = load(&connection, 2_000, u64::MAX, (10, u64::MAX));
        let marks: Vec<_> = again.marks.iter().map(|mark| (mark.handled, mark.highest)).collect();
        assert_eq!((again.handled, marks), (2_000, vec![(1_000, 8_999), (2_000, 9_999)]));
        let transaction = connection.transaction().unwrap();
        handle(&mut again, &transaction, 10_000..11_000);
        transaction.commit().unwrap();
        assert_eq!(rows(&connection, "ack"), 2_000);
    }

    #[test]
    fn a_transaction_that_failed_counts_for_nothing() {
        let mut connection = database();
        let mut history = load(&connection, 1_000, u64::MAX, (2, u64::MAX));
        let transaction = connection.transaction().unwrap();
        handle(&mut history, &transaction, 0..1_500);
        transaction.commit().unwrap();
        for _ in 0..5 {
            let transaction = connection.transaction().unwrap();
            handle(&mut history, &transaction, 1_500..2_500);
            transaction.execute("INSERT INTO dead (seq) VALUES (7)", []).unwrap();
            history.buried(7, 0);
            transaction.rollback().unwrap();
            history.undo();
            assert_eq!((history.handled, history.highest, history.dead.count), (1_500, 1_499, 0));
            let bytes = 1_000 * (10 + ROW);
            assert_eq!(history.marks, [Mark { handled: 1_000, highest: 999, count: 1_000, bytes: Some(bytes) }]);
            assert_eq!(history.bytes, 1_500 * (10 + ROW));
        }
    }

    #[test]
    fn large_messages_leave_a_mebibyte_at_a_time() {
        let mut history = load(&database(), 100, u64::MAX, (10, u64::MAX));
        let mut removed = Vec::new();
        for transaction in 0..40 {
            history.begin();
            (0..10).for_each(|at| history.handled(transaction * 10 + at, 200 << 10));
            let mut record = Record::default();
            history.prune(TableReader::new(&database()), &mut record).unwrap();
            removed.extend(record.rows.iter().map(|row| match row {
                crate::store::record::RowChange::Queue(QueueRow::HandledRemoved { up_to }) => *up_to,
                other => panic!("{other:?}"),
            }));
        }
        let steps: Vec<u64> = removed.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| *step <= 6), "{steps:?}");
        assert!(*removed.last().unwrap() > 150, "it keeps pace: {removed:?}");
    }

    const KIB: u64 = 1 << 10;

    /// Handles messages of so many bytes, and gives up others, in one transaction.
    fn transact(connection: &mut Connection, history: &mut History, handled: &[(u64, u64)], dead: &[(u64, u64)]) {
        let transaction = connection.transaction().unwrap();
        history.begin();
        for (seq, bytes) in handled {
            let sql = "INSERT INTO message (seq, content) VALUES (?1, zeroblob(?2))";
            transaction.execute(sql, [*seq, *bytes].map(u64::cast_signed)).unwrap();
            transaction.execute("INSERT INTO ack VALUES (?1)", [seq.cast_signed()]).unwrap();
            history.handled(*seq, *bytes);
        }
        for (seq, bytes) in dead {
            let sql = "INSERT INTO dead VALUES (?1, 'desk', zeroblob(?2), NULL, '', '')";
            transaction.execute(sql, [*seq, *bytes].map(u64::cast_signed)).unwrap();
            history.buried(*seq, *bytes);
        }
        let mut record = Record::default();
        history.prune(TableReader::new(&transaction), &mut record).unwrap();
        Tables::new(&transaction).apply(&record).unwrap();
        transaction.commit().unwrap();
        history.written();
    }

    fn bytes_of(connection: &Connection, table: &str) -> u64 {
        let sql = format!("SELECT coalesce(sum(length(content) + {ROW}), 0) FROM {table}");
        connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned()
    }

    #[test]
    fn handled_messages_are_bounded_in_bytes_and_after_opening_again_too() {
        let mut connection = database();
        let most = 4 << 20;
        let mut history = load(&connection, 1_000_000, most, (10, u64::MAX));
        for step in 0..100 {
            let messages: Vec<_> = (0..10).map(|at| (step * 10 + at, 100 * KIB)).collect();
            transact(&mut connection, &mut history, &messages, &[]);
            assert!(bytes_of(&connection, "message") <= most + STEP_BYTES, "step {step}");
        }
        let left = history.retention.take_history();
        assert_eq!(
            (left.count, history.retention.take_history()),
            (1_000 - rows(&connection, "ack") as u64, Left::default())
        );
        assert!(rows(&connection, "ack") >= 30, "no more leave than have to");
        // A smaller bound, over messages whose bytes this run of the host has not counted: all that are there and more.
        let before: Vec<_> = (10_000..14_000).map(|seq| (seq, KIB)).collect();
        transact(&mut connection, &mut history, &before, &[]);
        let most = 3 << 20;
        let mut again = load(&connection, 1_000_000, most, (10, u64::MAX));
        assert_eq!(again.bytes, 0, "nothing is measured at the start");
        for seq in 20_000..20_040 {
            transact(&mut connection, &mut again, &[(seq, 10)], &[]);
        }
        let kept = bytes_of(&connection, "message");
        assert!(kept <= most && kept >= most - 2 * STEP_BYTES, "{kept} bytes");
    }

    #[test]
    fn dead_letters_are_bounded_in_bytes_and_those_that_leave_are_told() {
        let mut connection = database();
        let most = 2 << 20;
        let mut history = load(&connection, 1_000, u64::MAX, (100_000, most));
        for step in 0..50 {
            transact(&mut connection, &mut history, &[], &[(step * 2, 100 * KIB), (step * 2 + 1, 100 * KIB)]);
            assert!(bytes_of(&connection, "dead") <= most, "step {step}");
        }
        let kept = rows(&connection, "dead");
        let gone = history.retention.take_dead();
        assert_eq!(gone["desk"].count, 100 - kept.cast_unsigned());
        assert!(kept >= 19 && gone["desk"].bytes == gone["desk"].count * (100 * KIB + ROW), "{kept} {gone:?}");
        let oldest: i64 = connection.query_row("SELECT min(seq) FROM dead", [], |row| row.get(0)).unwrap();
        assert_eq!(oldest, 100 - kept, "the oldest leave");
        // One that is larger than the bound is kept alone.
        transact(&mut connection, &mut history, &[], &[(500, 3 << 20)]);
        assert_eq!(rows(&connection, "dead"), 1);
        // Those of an earlier run of the host are measured when they may be too many.
        let mut again = load(&connection, 1_000, u64::MAX, (100_000, most));
        transact(&mut connection, &mut again, &[], &[(600, KIB)]);
        assert_eq!((rows(&connection, "dead"), again.dead.bytes), (1, KIB + ROW));
        again.begin();
        again.revived(1);
        again.undo();
        assert_eq!((again.dead.count, again.dead.bytes), (1, KIB + ROW), "what was not written is not counted");
    }
}
