//! Rows that are written seldom: idempotency keys, revisions, events.

use std::borrow::Cow;

use rusqlite::{OptionalExtension, params};

use crate::store::commit::{CommitError, IdempotencyKey};
use crate::store::record::{OtherRow, Record};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::types::{Event, RevisionRecord};

/// Events that are kept; the oldest leave first.
const MAX_EVENTS: i64 = 100_000;
/// Surplus events are removed when there are this many.
const PRUNE_EVENTS: i64 = 1_000;
/// The time for which an idempotency key is remembered, in milliseconds.
pub(in crate::store) const KEY_LIFE: i64 = 24 * 60 * 60 * 1_000;

/// Returns an error if a client's key was used before.
pub(in crate::store) fn find_key(
    reader: TableReader<'_>,
    agent: &str,
    key: &IdempotencyKey,
) -> rusqlite::Result<Result<(), CommitError>> {
    // Old keys are removed only with new ones, so the query leaves out those that are too old.
    let now = key.at.cast_signed();
    let known: Option<(Vec<u8>, String, String)> = reader
        .prepare("SELECT fingerprint, id, conversation FROM idempotency WHERE agent = ?1 AND key = ?2 AND at >= ?3")?
        .query_row(params![agent, key.key, now - KEY_LIFE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(match known {
        Some((fingerprint, ..)) if fingerprint != key.fingerprint => Err(CommitError::KeyReused),
        Some((_, id, conversation)) => Err(CommitError::Repeated { id, conversation }),
        None => Ok(()),
    })
}

/// Adds the row of a revision. Only the newest is asked for: what is kept of earlier ones is in the ledger.
pub(in crate::store) fn push_revision<'a>(record: &mut Record<'a>, revision: &'a RevisionRecord) {
    let RevisionRecord { agent, number, digest, settings, created_at } = revision;
    record.push(OtherRow::RevisionsRemoved { agent, before: *number });
    record.push(OtherRow::Revision { agent, number: *number, digest, settings, created_at: *created_at });
}

/// Adds the row of an event that has its id.
pub(in crate::store) fn push_event<'a>(record: &mut Record<'a>, event: &'a Event) {
    record.push(OtherRow::Event {
        id: event.id,
        at: event.at,
        agent: event.agent.as_deref(),
        kind: &event.kind,
        data: Cow::Owned(event.data.to_string()),
    });
    // In batches: a delete beside each insert would cost every event.
    if event.id % PRUNE_EVENTS == 0 {
        record.push(OtherRow::EventsRemoved { up_to: event.id - MAX_EVENTS });
    }
}
