//! Copies of an agent's state, as it was when a revision left it to one that gives it another shape.
//!
//! A copy is made and put back within the database: its bytes never pass through the memory of the host. Both are one
//! transaction of the writer, which other commits wait for as long as the bytes take.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rusqlite::{Connection, OptionalExtension, Row, params};
use tokio::sync::oneshot;

use crate::clock;
use crate::store::commit::CommitError;
use crate::store::handles::StateTable;
use crate::store::writer::counters::Counters;

/// The bytes of a row of `state` or of a copy, as quotas count them.
const BYTES: &str = "coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0)";
const COLUMNS: &str = "revision, holds, at, keys, bytes, unfinished, rollout";

/// A copy of an agent's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateCopy {
    /// The number of the revision whose state it is.
    pub(crate) revision: u64,
    /// The versions of the agent's data that it may hold.
    pub(crate) holds: Vec<u32>,
    /// The time at which it was made, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The number of its keys.
    pub(crate) keys: u64,
    /// The bytes of its keys and values.
    pub(crate) bytes: u64,
    /// Set until the migration that it was made for has come to its end.
    pub(crate) unfinished: bool,
    /// The id of the rollout that it was made for.
    pub(crate) rollout: u64,
}

/// A copy that is to be made of an agent's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeepState {
    /// The number of the revision whose state it is; an earlier copy of the same revision goes.
    pub(crate) revision: u64,
    /// The versions of the agent's data that it may hold.
    pub(crate) holds: Vec<u32>,
    /// The id of the rollout that it is made for.
    pub(crate) rollout: u64,
    /// Set if a change of the state follows, whose [end](Store::finish_state_copy) has to be noted.
    pub(crate) unfinished: bool,
}

/// The state that an agent has after it was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestoredState {
    /// The number of its keys.
    pub(crate) keys: u64,
}

impl StateTable<'_> {
    /// Keeps a copy of an agent's state, in place of an earlier one of the same revision, with all that was
    /// acknowledged before. Returns when it is written: nothing that is given later is safe before it is.
    pub(crate) async fn copy(self, agent: Arc<str>, copy: KeepState) -> Result<StateCopy, CommitError> {
        let (sender, receiver) = oneshot::channel();
        self.0
            .change_early(move |transaction, counters| {
                // The caller waits for it.
                let _ = sender.send(keep(transaction, &agent, &copy, counters.now)?);
                Ok(())
            })
            .await?;
        receiver.await.map_err(|_| CommitError::Store("its writer ended".to_owned()))
    }

    /// Returns the copies of an agent's state, the newest first.
    pub(crate) fn copies(self, agent: &str) -> Result<Vec<StateCopy>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM state_copy WHERE agent = ?1 ORDER BY id DESC"))?
                .query_map([agent], read)?
                .collect()
        })
    }

    /// Returns the copies whose migrations did not come to their end, with their agents: a host was killed meanwhile.
    pub(crate) fn unfinished_copies(self) -> Result<Vec<(String, StateCopy)>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS}, agent FROM state_copy WHERE unfinished ORDER BY id"))?
                .query_map([], |row| Ok((row.get(7)?, read(row)?)))?
                .collect()
        })
    }

    /// Notes that the migration which a copy was made for is over. The keys that it changed do not count as [written
    /// since](Self::written_since). Returns when it is written.
    pub(crate) async fn finish_copy(self, agent: Arc<str>, revision: u64) -> Result<(), CommitError> {
        self.0
            .change_early(move |transaction, _| {
                let mark = highest_version(transaction, &agent)?;
                transaction
                .prepare_cached(
                    "UPDATE state_copy SET unfinished = 0, migrated = 1, mark = ?3 WHERE agent = ?1 AND revision = ?2",
                )?
                .execute(params![&*agent, revision.cast_signed(), mark])
                .map(|_| ())
            })
            .await
    }

    /// Counts the keys that an agent wrote since a copy was made and its migration ended. Without a migration, those
    /// that it removed count as well. Keys whose time is over do not. Reads all keys of the agent.
    pub(crate) fn written_since(self, agent: &str, revision: u64) -> Result<u64, String> {
        let now = clock::now_ms().cast_signed();
        self.0.with_reader(|connection| {
            let written: Option<i64> = connection
                .prepare_cached(
                    "SELECT (SELECT count(*) FROM state AS s WHERE s.agent = c.agent AND s.version > c.mark
                                AND (s.expires_at IS NULL OR s.expires_at > ?3))
                        + (SELECT count(*) FROM state_copy_key AS k WHERE NOT c.migrated AND k.copy = c.id
                                AND (k.expires_at IS NULL OR k.expires_at > ?3)
                                AND NOT EXISTS (SELECT 1 FROM state AS s WHERE s.agent = c.agent AND s.key = k.key
                                    AND (s.expires_at IS NULL OR s.expires_at > ?3)))
                     FROM state_copy AS c WHERE c.agent = ?1 AND c.revision = ?2",
                )?
                .query_row(params![agent, revision.cast_signed(), now], |row| row.get(0))
                .optional()?;
            Ok(written.unwrap_or(0).cast_unsigned())
        })
    }

    /// Makes an agent's state what a copy has, without the keys whose time is over by now; returns when that is safe.
    /// `keep` first keeps the state as it is, for the revision of this number. The keys have new versions, so that a
    /// handler that read one before is in conflict, and none counts as [written since](Self::written_since). A
    /// migration that the copy was made for is over with it. `bytes` is told the size of the state then. The copy
    /// stays.
    ///
    /// # Errors
    /// There is no such copy, or `keep` would replace it.
    pub(crate) async fn restore(
        self,
        agent: Arc<str>,
        revision: u64,
        keep: Option<KeepState>,
        bytes: Arc<AtomicU64>,
    ) -> Result<RestoredState, CommitError> {
        let missing = || CommitError::Store(format!("no copy of the state of {agent}@{revision} is kept"));
        // Keeping comes before restoring and would overwrite the copy.
        if keep.as_ref().is_some_and(|keep| keep.revision == revision) {
            let why = format!("the state of {agent}@{revision} cannot be kept in place of the copy that is restored");
            return Err(CommitError::Store(why));
        }
        // Taken before it waits for its turn: what is written after it has a greater one.
        let version = self.next_version();
        let (sender, receiver) = oneshot::channel();
        let name = Arc::clone(&agent);
        self.0
            .change(move |transaction, counters| {
                // The caller waits for it.
                let _ = sender.send(restore(transaction, counters, &name, (revision, keep, version))?);
                Ok(())
            })
            .await?;
        let restored = receiver.await.ok().flatten().ok_or_else(missing)?;
        // By way of a commit that changes nothing: in turn with others that tell the size.
        self.remove_expired(agent, Vec::new(), bytes).await?;
        Ok(restored)
    }
}

impl StateTable<'_> {
    /// Forgets the copies of an agent's state that revisions have which are kept no more.
    pub(crate) fn forget_copies(self, agent: Arc<str>, revisions: Vec<u64>) {
        self.0.tell_writer(move |transaction| {
            for revision in revisions {
                forget(transaction, &agent, Some(revision))?;
            }
            Ok(0)
        });
    }
}

/// Removes the copy of an agent's state that a revision has; without a revision, all of the agent's.
pub(in crate::store) fn forget(connection: &Connection, agent: &str, revision: Option<u64>) -> rusqlite::Result<()> {
    let which = params![agent, revision.map(u64::cast_signed)];
    connection
        .prepare_cached(
            "DELETE FROM state_copy_key WHERE copy IN
                (SELECT id FROM state_copy WHERE agent = ?1 AND (?2 IS NULL OR revision = ?2))",
        )?
        .execute(which)?;
    connection
        .prepare_cached("DELETE FROM state_copy WHERE agent = ?1 AND (?2 IS NULL OR revision = ?2)")?
        .execute(which)
        .map(|_| ())
}

/// Returns the highest version of an agent's keys; 0 if there are none.
fn highest_version(connection: &Connection, agent: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(version), 0) FROM state WHERE agent = ?1")?
        .query_row([agent], |row| row.get(0))
}

/// Makes a copy of an agent's state, and says what it has.
fn keep(connection: &Connection, agent: &str, copy: &KeepState, at: u64) -> rusqlite::Result<StateCopy> {
    let KeepState { revision, holds, rollout, unfinished } = copy;
    forget(connection, agent, Some(*revision))?;
    // The versions of keys only grow, so later writes are those above the mark.
    let mark = highest_version(connection, agent)?;
    let text = serde_json::to_string(holds).expect("numbers can be written");
    connection
        .prepare_cached(
            "INSERT INTO state_copy (agent, revision, holds, at, keys, bytes, mark, unfinished, migrated, rollout)
             VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, 0, ?7)",
        )?
        .execute(params![
            agent,
            revision.cast_signed(),
            text,
            at.cast_signed(),
            mark,
            unfinished,
            rollout.cast_signed()
        ])?;
    // The writer has the connection alone, so no other insert comes between.
    let id = connection.last_insert_rowid();
    connection
        .prepare_cached(
            "INSERT INTO state_copy_key (copy, key, value, version, expires_at)
             SELECT ?1, key, value, version, expires_at FROM state
             WHERE agent = ?2 AND (expires_at IS NULL OR expires_at > ?3) ORDER BY key",
        )?
        .execute(params![id, agent, at.cast_signed()])?;
    connection
        .prepare_cached(&format!(
            "UPDATE state_copy SET (keys, bytes) = (SELECT count(*), {BYTES} FROM state_copy_key WHERE copy = ?1)
             WHERE id = ?1 RETURNING {COLUMNS}"
        ))?
        .query_row([id], read)
}

/// Makes an agent's state what a copy has; none if there is no such copy.
fn restore(
    connection: &Connection,
    counters: &mut Counters,
    agent: &Arc<str>,
    (revision, kept, version): (u64, Option<KeepState>, u64),
) -> rusqlite::Result<Option<RestoredState>> {
    let id: Option<i64> = connection
        .prepare_cached("SELECT id FROM state_copy WHERE agent = ?1 AND revision = ?2")?
        .query_row(params![&**agent, revision.cast_signed()], |row| row.get(0))
        .optional()?;
    let Some(id) = id else { return Ok(None) };
    let (now, version) = (counters.now, version.cast_signed());
    let mut finish = connection.prepare_cached(
        "UPDATE state_copy SET unfinished = 0, mark = ?3, migrated = ?4 WHERE agent = ?1 AND revision = ?2",
    )?;
    if let Some(copy) = kept {
        keep(connection, agent, &copy, now)?;
        if !copy.unfinished {
            // What is restored was not written since.
            finish.execute(params![&**agent, copy.revision.cast_signed(), version, true])?;
        }
    } else {
        // It was put back: no rollout came to its end with it.
        connection
            .prepare_cached("UPDATE state_copy SET rollout = 0 WHERE agent = ?1 AND revision = ?2")?
            .execute(params![&**agent, revision.cast_signed()])?;
    }
    // The state is what this copy has: also of a migration that broke off nothing is left.
    finish.execute(params![&**agent, revision.cast_signed(), version, false])?;
    connection.prepare_cached("DELETE FROM state WHERE agent = ?1")?.execute([&**agent])?;
    let keys = connection
        .prepare_cached(
            "INSERT INTO state (agent, key, value, version, expires_at)
             SELECT ?1, key, value, ?3, expires_at FROM state_copy_key
             WHERE copy = ?2 AND (expires_at IS NULL OR expires_at > ?4) ORDER BY key",
        )?
        .execute(params![&**agent, id, version, now.cast_signed()])?;
    let size = connection
        .prepare_cached(&format!("SELECT {BYTES} FROM state WHERE agent = ?1"))?
        .query_row([&**agent], |row| row.get(0))?;
    counters.sizes.insert(Arc::clone(agent), size);
    // The size on disk is written with the others, at the end of the transaction.
    counters.resized.insert(Arc::clone(agent));
    // Keys of all agents, which are looked up again: this is seldom.
    counters.keys.clear();
    Ok(Some(RestoredState { keys: keys as u64 }))
}

fn read(row: &Row<'_>) -> rusqlite::Result<StateCopy> {
    let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    let holds = serde_json::from_str(row.get_ref(1)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error)))?;
    Ok(StateCopy {
        revision: number(0)?,
        holds,
        at: number(2)?,
        keys: number(3)?,
        bytes: number(4)?,
        unfinished: row.get(5)?,
        rollout: number(6)?,
    })
}

#[cfg(test)]
mod tests;
