//! The number of messages that stay after they were handled or given up; the oldest leave first.

use std::collections::VecDeque;

use rusqlite::{Connection, OptionalExtension};

use crate::store::record::{DeadRow, QueueRow, Record};
use crate::store::sqlite::table_reader::TableReader;

/// The handled messages between two marks, and the most that leave in one transaction beside its own work.
const STEP: u64 = 1_000;
/// The bytes of contents for which the same holds: each page of a row that leaves is read and written to the list of
/// free ones.
const STEP_BYTES: u64 = 1 << 20;

/// The counts of handled messages and dead letters, and their bounds.
#[derive(Debug)]
pub(in crate::store) struct History {
    /// The bound of handled messages.
    keep: u64,
    /// The bound of dead letters.
    keep_dead: u64,
    /// Messages that were handled since the store was made, about.
    handled: u64,
    /// The highest sequence number among them.
    highest: u64,
    /// The marks, one after every [`STEP`] or [`STEP_BYTES`].
    marks: VecDeque<Mark>,
    /// The messages, and the bytes of their contents, since the last mark.
    since: (u64, u64),
    dead: u64,
    /// The dead letters that the transaction in progress added.
    buried: u64,
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
    /// The bytes of their contents; 0 for those of an earlier run of the host, which did not count them.
    bytes: u64,
}

/// The counts before a transaction.
#[derive(Debug, Default)]
struct Before {
    handled: u64,
    highest: u64,
    marks: usize,
    since: (u64, u64),
    /// The marks up to which handled messages leave in it.
    left: Vec<Mark>,
    dead: u64,
}

impl History {
    /// Loads the counts of the database.
    pub(in crate::store) fn load(connection: &Connection, keep: u64, keep_dead: u64) -> rusqlite::Result<Self> {
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
        let (handled, dead) = (count("SELECT count(*) FROM ack")?, count("SELECT count(*) FROM dead")?);
        let (marks, before) = (VecDeque::new(), Before::default());
        let mut history =
            Self { keep, keep_dead, handled: 0, highest: 0, marks, since: (0, 0), dead, buried: 0, before };
        // Marks as they would have been set.
        let sql = format!("SELECT seq FROM ack WHERE seq > ?1 ORDER BY seq LIMIT 1 OFFSET {}", STEP - 1);
        let mut statement = connection.prepare(&sql)?;
        let (mut at, mut last) = (0, i64::MIN);
        while let Some(seq) = statement.query_row([last], |row| row.get::<_, i64>(0)).optional()? {
            (at, last) = (at + STEP, seq);
            history.marks.push_back(Mark { handled: at, highest: seq.cast_unsigned(), count: STEP, bytes: 0 });
        }
        history.handled = handled;
        history.since = (handled - at, 0);
        history.highest = history.marks.back().map_or(0, |mark| mark.highest);
        Ok(history)
    }

    /// Notes the counts at the beginning of a transaction.
    pub(in crate::store) fn begin(&mut self) {
        let Self { handled, highest, since, dead, .. } = *self;
        self.buried = 0;
        self.before = Before { handled, highest, marks: self.marks.len(), since, left: Vec::new(), dead };
    }

    /// Forgets what a transaction has not kept.
    pub(in crate::store) fn undo(&mut self) {
        let Before { handled, highest, marks, since, left, dead } = std::mem::take(&mut self.before);
        (self.handled, self.highest, self.since, self.dead) = (handled, highest, since, dead);
        left.into_iter().rev().for_each(|mark| self.marks.push_front(mark));
        // After the removed mark is back in front, since the length counts it.
        self.marks.truncate(marks);
    }

    /// Counts a message that is handled, with the bytes of its content.
    pub(in crate::store) fn handled(&mut self, seq: u64, bytes: u64) {
        self.handled += 1;
        self.highest = self.highest.max(seq);
        self.since = (self.since.0 + 1, self.since.1 + bytes);
        if self.since.0 >= STEP || self.since.1 >= STEP_BYTES {
            let (count, bytes) = std::mem::take(&mut self.since);
            self.marks.push_back(Mark { handled: self.handled, highest: self.highest, count, bytes });
        }
    }

    /// Adds to a record what leaves at the end of a transaction: handled messages up to a mark, and as many of the
    /// oldest dead letters as were added beyond the bound.
    pub(in crate::store) fn prune(&mut self, reader: TableReader<'_>, record: &mut Record<'_>) -> rusqlite::Result<()> {
        // No more than were added: after the bound was lowered one transaction must not remove thousands.
        let surplus = self.dead.saturating_sub(self.keep_dead).min(std::mem::take(&mut self.buried));
        if surplus > 0 {
            let mut oldest = reader.prepare("SELECT seq FROM dead ORDER BY seq LIMIT ?1")?;
            for seq in oldest.query_map([surplus.cast_signed()], |row| row.get::<_, i64>(0))? {
                record.push(DeadRow::Removed { seq: seq?.cast_unsigned() });
                self.dead -= 1;
                metrics::counter!("caxton_dead_letters_forgotten_total").increment(1);
            }
        }
        let (mut count, mut bytes) = (0, 0);
        // One mark at least, and no more than about a thousand rows or a mebibyte in one transaction.
        while let Some(mark) = self.marks.front().copied().filter(|mark| self.handled - mark.handled >= self.keep) {
            (count, bytes) = (count + mark.count, bytes + mark.bytes);
            if !self.before.left.is_empty() && (count > STEP || bytes > STEP_BYTES) {
                break;
            }
            self.marks.pop_front();
            self.before.left.push(mark);
        }
        if let Some(mark) = self.before.left.last() {
            record.push(QueueRow::HandledRemoved { up_to: mark.highest });
        }
        Ok(())
    }

    /// Returns the sequence number up to which handled messages leave in the transaction in progress.
    pub(in crate::store) fn left_up_to(&self) -> Option<u64> {
        self.before.left.last().map(|mark| mark.highest)
    }

    /// Counts a message that was given up.
    pub(in crate::store) fn buried(&mut self) {
        self.dead += 1;
        self.buried += 1;
    }

    /// Counts dead letters that were taken out.
    pub(in crate::store) fn revived(&mut self, count: u64) {
        self.dead = self.dead.saturating_sub(count);
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Transaction;

    use super::*;
    use crate::store::writer::apply::Tables;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE message (seq INTEGER PRIMARY KEY); CREATE TABLE attempt (seq INTEGER);
                 CREATE TABLE content_piece (content INTEGER);
                 CREATE TABLE ack (seq INTEGER PRIMARY KEY); CREATE TABLE dead (seq INTEGER PRIMARY KEY);",
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
        let mut history = History::load(&connection, 2_000, 10).unwrap();
        for thousand in 0..10 {
            let transaction = connection.transaction().unwrap();
            handle(&mut history, &transaction, thousand * 1_000..(thousand + 1) * 1_000);
            transaction.commit().unwrap();
            assert_eq!(rows(&connection, "ack"), 1_000 * i64::try_from(thousand.min(1) + 1).unwrap());
        }
        let mut again = History::load(&connection, 2_000, 10).unwrap();
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
        let mut history = History::load(&connection, 1_000, 2).unwrap();
        let transaction = connection.transaction().unwrap();
        handle(&mut history, &transaction, 0..1_500);
        transaction.commit().unwrap();
        for _ in 0..5 {
            let transaction = connection.transaction().unwrap();
            handle(&mut history, &transaction, 1_500..2_500);
            transaction.execute("INSERT INTO dead VALUES (7)", []).unwrap();
            history.buried();
            transaction.rollback().unwrap();
            history.undo();
            assert_eq!((history.handled, history.highest, history.dead), (1_500, 1_499, 0));
            assert_eq!(history.marks, [Mark { handled: 1_000, highest: 999, count: 1_000, bytes: 10_000 }]);
        }
    }

    #[test]
    fn large_messages_leave_a_mebibyte_at_a_time() {
        let mut history = History::load(&database(), 100, 10).unwrap();
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
}
