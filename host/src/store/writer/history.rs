//! The number of messages that stay after they were handled or given up; the oldest leave first.

use std::collections::VecDeque;

use rusqlite::{Connection, OptionalExtension};

use crate::store::record::{DeadRow, QueueRow, Record};
use crate::store::sqlite::table_reader::TableReader;

/// The handled messages between two marks, and the most that leave in one transaction beside its own work.
const STEP: u64 = 1_000;

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
    /// The marks, one after every [`STEP`]: the number handled by then, and the highest sequence number among them.
    marks: VecDeque<(u64, u64)>,
    dead: u64,
    /// The dead letters that the transaction in progress added.
    buried: u64,
    before: Before,
}

/// The counts before a transaction.
#[derive(Debug, Default)]
struct Before {
    handled: u64,
    highest: u64,
    marks: usize,
    /// The mark up to which handled messages leave in it.
    left: Option<(u64, u64)>,
    dead: u64,
}

impl History {
    /// Loads the counts of the database.
    pub(in crate::store) fn load(connection: &Connection, keep: u64, keep_dead: u64) -> rusqlite::Result<Self> {
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
        let (handled, dead) = (count("SELECT count(*) FROM ack")?, count("SELECT count(*) FROM dead")?);
        let (marks, before) = (VecDeque::new(), Before::default());
        let mut history = Self { keep, keep_dead, handled: 0, highest: 0, marks, dead, buried: 0, before };
        // Marks as they would have been set.
        let sql = format!("SELECT seq FROM ack WHERE seq > ?1 ORDER BY seq LIMIT 1 OFFSET {}", STEP - 1);
        let mut statement = connection.prepare(&sql)?;
        let (mut at, mut last) = (0, i64::MIN);
        while let Some(seq) = statement.query_row([last], |row| row.get::<_, i64>(0)).optional()? {
            (at, last) = (at + STEP, seq);
            history.marks.push_back((at, seq.cast_unsigned()));
        }
        history.handled = handled;
        history.highest = history.marks.back().map_or(0, |(_, seq)| *seq);
        Ok(history)
    }

    /// Notes the counts at the beginning of a transaction.
    pub(in crate::store) fn begin(&mut self) {
        let Self { handled, highest, dead, .. } = *self;
        self.buried = 0;
        self.before = Before { handled, highest, marks: self.marks.len(), left: None, dead };
    }

    /// Forgets what a transaction has not kept.
    pub(in crate::store) fn undo(&mut self) {
        let Before { handled, highest, marks, left, dead } = std::mem::take(&mut self.before);
        (self.handled, self.highest, self.dead) = (handled, highest, dead);
        if let Some(left) = left {
            self.marks.push_front(left);
        }
        // After the removed mark is back in front, since the length counts it.
        self.marks.truncate(marks);
    }

    /// Counts a message that is handled.
    pub(in crate::store) fn handled(&mut self, seq: u64) {
        self.handled += 1;
        self.highest = self.highest.max(seq);
        if self.handled.is_multiple_of(STEP) {
            self.marks.push_back((self.handled, self.highest));
        }
    }

    /// Adds to a record what leaves at the end of a transaction: handled messages up to one mark, and as many of the
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
        let surplus = |mark: &(u64, u64)| self.handled - mark.0 >= self.keep;
        // One mark at most, so that no transaction removes more than about a thousand rows.
        if self.marks.front().is_some_and(surplus) {
            self.before.left = self.marks.pop_front();
            record.push(QueueRow::HandledRemoved { up_to: self.before.left.map_or(0, |(_, up_to)| up_to) });
        }
        Ok(())
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
            history.handled(seq);
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
        assert_eq!((again.handled, &again.marks), (2_000, &VecDeque::from([(1_000, 8_999), (2_000, 9_999)])));
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
            assert_eq!(history.marks, [(1_000, 999)]);
        }
    }
}
