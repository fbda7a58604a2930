//! Conversations that have ended, and where those begin that are known.

use std::borrow::Cow;

use caxton_control::conversation::Conversation;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::Expired;
use crate::clock;
use crate::store::Store;

/// Conversations that have ended and are still listed; the oldest leave first.
const MAX_ENDED: i64 = 100_000;
/// Surplus ones leave when one of so many ends.
const PRUNE: u64 = 1_000;

/// The record as it is kept and shown: with times of the wall clock.
pub(crate) fn on_wall(record: &Conversation) -> Cow<'_, Conversation> {
    if !clock::is_set() {
        return Cow::Borrowed(record);
    }
    let (first, last) = (clock::to_wall(record.first), clock::to_wall(record.last));
    let mut record = Conversation { first, last, ..record.clone() };
    record.stays.iter_mut().for_each(|stay| stay.until = clock::to_wall(stay.until));
    Cow::Owned(record)
}

/// Keeps that a conversation has ended, unless another has begun under its name.
pub(in crate::store) fn write_end(transaction: &Transaction<'_>, ended: &Expired, now: u64) -> rusqlite::Result<()> {
    let Expired { row: Some(row), record, began } = ended else { return Ok(()) };
    let record = &*on_wall(record);
    let text = serde_json::to_string(record).expect("a record is numbers and text");
    let (first, last) = (record.first.cast_signed(), record.last.cast_signed());
    let (messages, now) = (record.messages.cast_signed(), now.cast_signed());
    transaction
        .prepare_cached(
            "INSERT INTO conversation (id, name, first, last, messages, record, ended, began)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (id) DO UPDATE SET last = excluded.last, messages = excluded.messages,
                 record = excluded.record, ended = excluded.ended
             ON CONFLICT (name) DO NOTHING",
        )?
        .execute(params![row.cast_signed(), record.name, first, last, messages, text, now, began.cast_signed()])?;
    transaction.prepare_cached("DELETE FROM activity WHERE conversation = ?1")?.execute([row.cast_signed()])?;
    if row % PRUNE == 0 {
        transaction
            .prepare_cached("DELETE FROM conversation WHERE ended IS NOT NULL AND id < ?1")?
            .execute([row.cast_signed() - MAX_ENDED])?;
    }
    Ok(())
}

/// A conversation that has ended, as it was then, and when it ended in milliseconds since 1970.
type Ended = (Conversation, u64);

impl Store {
    /// Conversations that have ended, with the latest activity first, at most so many; only those of `participant`, if
    /// one is given.
    pub(crate) fn ended(&self, participant: Option<&str>, limit: u32) -> Result<Vec<Ended>, String> {
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT record, ended FROM conversation
                 WHERE ended IS NOT NULL AND (?1 IS NULL
                     OR EXISTS (SELECT 1 FROM json_each(record, '$.participants') WHERE value = ?1))
                 ORDER BY last DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![participant, limit], read_ended)?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// A conversation that has ended.
    pub(crate) fn ended_conversation(&self, name: &str) -> Result<Option<Ended>, String> {
        self.with_reader(|connection| {
            let sql = "SELECT record, ended FROM conversation WHERE ended IS NOT NULL AND name = ?1";
            Ok(connection.prepare_cached(sql)?.query_row([name], read_ended).optional()?.flatten())
        })
    }
}

/// None if this version cannot read the record.
fn read_ended(row: &Row<'_>) -> rusqlite::Result<Option<Ended>> {
    let text: String = row.get(0)?;
    let record = serde_json::from_str(&text).ok();
    Ok(record.zip(Some(row.get::<_, i64>(1)?.cast_unsigned())))
}
