//! Rows that are written seldom: keys of clients, attempts, schedules, revisions, events.

use rusqlite::{OptionalExtension, Transaction, params};

use super::commit::{CommitError, Failed, Fired, IdempotencyKey};
use super::kept::{Event, RevisionRecord};
use crate::clock;

/// Events that are kept; the oldest leave first.
const MAX_EVENTS: i64 = 100_000;
/// Surplus events are removed when there are this many.
const PRUNE_EVENTS: i64 = 1_000;
/// How long an idempotency key is remembered, in milliseconds.
const KEY_LIFE: i64 = 24 * 60 * 60 * 1_000;

/// Whether a client's key is free.
pub(super) fn find_key(
    transaction: &Transaction<'_>,
    agent: &str,
    key: &IdempotencyKey,
) -> rusqlite::Result<Result<(), CommitError>> {
    let now = key.at.cast_signed();
    transaction.prepare_cached("DELETE FROM idempotency WHERE at < ?1")?.execute([now - KEY_LIFE])?;
    let known: Option<(Vec<u8>, String, String)> = transaction
        .prepare_cached("SELECT fingerprint, id, conversation FROM idempotency WHERE agent = ?1 AND key = ?2")?
        .query_row(params![agent, key.key], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(match known {
        Some((fingerprint, ..)) if fingerprint != key.fingerprint => Err(CommitError::KeyReused),
        Some((_, id, conversation)) => Err(CommitError::Repeated { id, conversation }),
        None => Ok(()),
    })
}

/// Gives a client's key to its message.
pub(super) fn write_key(transaction: &Transaction<'_>, agent: &str, key: &IdempotencyKey) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO idempotency (agent, key, fingerprint, id, conversation, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![agent, key.key, key.fingerprint, key.id, key.conversation, key.at.cast_signed()])
        .map(|_| ())
}

pub(super) fn write_attempt(transaction: &Transaction<'_>, failed: &Failed) -> rusqlite::Result<()> {
    let attempt = serde_json::to_string(&failed.attempt).expect("an attempt is numbers and text");
    let again_at = clock::to_wall(failed.again_at);
    transaction
        .prepare_cached("INSERT OR REPLACE INTO attempt (seq, number, again_at, attempt) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![failed.seq.cast_signed(), failed.attempt.number, again_at.cast_signed(), attempt])
        .map(|_| ())
}

pub(super) fn write_fired(transaction: &Transaction<'_>, agent: &str, fired: &Fired) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO schedule (agent, schedule, fired_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (agent, schedule) DO UPDATE SET fired_at = excluded.fired_at",
        )?
        .execute(params![agent, fired.schedule, fired.at.cast_signed()])
        .map(|_| ())
}

pub(super) fn write_revision(transaction: &Transaction<'_>, record: &RevisionRecord) -> rusqlite::Result<()> {
    // Only the newest is asked for; what is kept of earlier ones is in the ledger.
    transaction
        .prepare_cached("DELETE FROM revision WHERE agent = ?1 AND number < ?2")?
        .execute(params![&*record.agent, record.number.cast_signed()])?;
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

pub(super) fn write_event(transaction: &Transaction<'_>, event: &Event) -> rusqlite::Result<i64> {
    transaction
        .prepare_cached("INSERT INTO event (at, agent, kind, data) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![event.at.cast_signed(), event.agent, event.kind, event.data.to_string()])?;
    let id = transaction.last_insert_rowid();
    if id % PRUNE_EVENTS == 0 {
        transaction.prepare_cached("DELETE FROM event WHERE id <= ?1")?.execute([id - MAX_EVENTS])?;
    }
    Ok(id)
}
