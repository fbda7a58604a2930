//! Conversations that have ended, and where those begin that are known.

use std::borrow::Cow;

use caxton_control::conversation::Conversation;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::Expired;
use crate::clock;
use crate::store::Store;
use crate::store::record::{ConversationRow, Record};

/// Conversations that have ended and are still listed; the oldest leave first.
const MAX_ENDED: i64 = 100_000;
/// The number of ended conversations between two removals of the oldest.
const PRUNE: u64 = 1_000;

/// The record as it is kept and shown: with times of the wall clock.
pub(crate) fn on_wall(record: &Conversation) -> Cow<'_, Conversation> {
    // The usual case, without a copy: both clocks agree.
    if !clock::is_set() {
        return Cow::Borrowed(record);
    }
    let (first, last) = (clock::to_wall(record.first), clock::to_wall(record.last));
    let mut record = Conversation { first, last, ..record.clone() };
    record.bindings.iter_mut().for_each(|stay| stay.until = clock::to_wall(stay.until));
    Cow::Owned(record)
}

/// Adds the rows of a conversation that has ended, unless it was never written. `is_named` if its name is still its
/// own: another may have begun under it.
pub(in crate::store) fn push_end<'a>(record: &mut Record<'a>, ended: &'a Expired, is_named: bool, now: u64) {
    let Expired { row: Some(id), record: conversation, began } = ended else { return };
    if is_named {
        let shown = &*on_wall(conversation);
        record.push(ConversationRow::Ended {
            id: *id,
            name: &conversation.name,
            first: shown.first,
            last: shown.last,
            messages: shown.messages,
            record: Cow::Owned(serde_json::to_string(shown).expect("a record is numbers and text")),
            ended: now,
            began: *began,
        });
    }
    // Also if another conversation has the name by now: the row of the activity is its own.
    record.push(ConversationRow::ActivityRemoved { id: *id });
    // In batches: a delete with each end would cost every one of them.
    if id % PRUNE == 0 {
        record.push(ConversationRow::EndedRemoved { before: id.cast_signed() - MAX_ENDED });
    }
}

/// Returns `false` if another conversation has the name of one that ends.
pub(in crate::store) fn is_named(transaction: &Transaction<'_>, ended: &Expired) -> rusqlite::Result<bool> {
    let Some(id) = ended.row else { return Ok(false) };
    let other = "SELECT 1 FROM conversation WHERE name = ?1 AND id <> ?2";
    Ok(!transaction.prepare_cached(other)?.exists(params![ended.record.name, id.cast_signed()])?)
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
            // Records that this version cannot read are left out; the list is worth more than an error.
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

/// Reads a row; `None` if this version cannot parse the record.
fn read_ended(row: &Row<'_>) -> rusqlite::Result<Option<Ended>> {
    let text: String = row.get(0)?;
    let record = serde_json::from_str(&text).ok();
    Ok(record.zip(Some(row.get::<_, i64>(1)?.cast_unsigned())))
}
