//! What stays of messages that are handled or given up: so many of each, the oldest leave first.

use std::collections::VecDeque;

use rusqlite::{Connection, Transaction, params};

/// Handled messages between two marks, and the most that leave in one transaction beside its own work.
const STEP: u64 = 1_000;

/// What is kept, and how much.
#[derive(Debug)]
pub(super) struct History {
    /// Handled messages that are kept.
    keep: u64,
    /// Dead letters that are kept.
    keep_dead: u64,
    /// Messages that were handled since the store was made, about.
    handled: u64,
    /// The highest place among them.
    highest: u64,
    /// After every [`STEP`]: how many were handled by then, and the highest place among them.
    marks: VecDeque<(u64, u64)>,
    dead: u64,
}

impl History {
    /// As the database has it.
    pub(super) fn load(connection: &Connection, keep: u64, keep_dead: u64) -> rusqlite::Result<Self> {
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
        let (handled, dead) = (count("SELECT count(*) FROM ack")?, count("SELECT count(*) FROM dead")?);
        let mut history = Self { keep, keep_dead, handled: 0, highest: 0, marks: VecDeque::new(), dead };
        // Marks as they would have been set.
        let mut statement = connection.prepare("SELECT seq FROM ack ORDER BY seq LIMIT 1 OFFSET ?1")?;
        for at in (STEP..=handled).step_by(usize::try_from(STEP).unwrap_or(usize::MAX)) {
            let seq: i64 = statement.query_row(params![(at - 1).cast_signed()], |row| row.get(0))?;
            history.marks.push_back((at, seq.cast_unsigned()));
        }
        history.handled = handled;
        history.highest = history.marks.back().map_or(0, |(_, seq)| *seq);
        Ok(history)
    }

    /// A message is handled.
    pub(super) fn handled(&mut self, seq: u64) {
        self.handled += 1;
        self.highest = self.highest.max(seq);
        if self.handled % STEP == 0 {
            self.marks.push_back((self.handled, self.highest));
        }
    }

    /// Lets go of handled messages that are too many: those up to one mark.
    pub(super) fn prune(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let surplus = |mark: &(u64, u64)| self.handled - mark.0 >= self.keep;
        let Some((_, up_to)) = self.marks.front().copied().filter(surplus) else { return Ok(()) };
        let up_to = up_to.cast_signed();
        transaction
            .prepare_cached("DELETE FROM message WHERE seq IN (SELECT seq FROM ack WHERE seq <= ?1)")?
            .execute([up_to])?;
        transaction
            .prepare_cached("DELETE FROM attempt WHERE seq IN (SELECT seq FROM ack WHERE seq <= ?1)")?
            .execute([up_to])?;
        transaction.prepare_cached("DELETE FROM ack WHERE seq <= ?1")?.execute([up_to])?;
        self.marks.pop_front();
        Ok(())
    }

    /// A message was given up; the oldest of too many leaves.
    pub(super) fn buried(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.dead += 1;
        if self.dead > self.keep_dead {
            let sql = "DELETE FROM dead WHERE seq = (SELECT min(seq) FROM dead)";
            let gone = transaction.prepare_cached(sql)?.execute([])?;
            self.dead -= gone as u64;
            metrics::counter!("caxton_dead_letters_forgotten_total").increment(gone as u64);
        }
        Ok(())
    }

    /// Dead letters were taken out.
    pub(super) fn revived(&mut self, count: u64) {
        self.dead = self.dead.saturating_sub(count);
    }
}
