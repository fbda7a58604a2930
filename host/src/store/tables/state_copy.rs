//! Copies of an agent's state, as it was when a revision left it to one that gives it another shape.
//!
//! A copy is made and put back within the database: its bytes never pass through the memory of the host. Both are one
//! transaction of the writer, which other commits wait for as long as the bytes take.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rusqlite::{OptionalExtension, Row, params};

use crate::clock;
use crate::store::commit::CommitError;
use crate::store::handles::StateTable;
use crate::store::record::{Record, StateCopyRow};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::sqlite::whole::value_length;
use crate::store::turn::Turn;
use crate::store::writer::writer_state::WriterState;

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
    /// Set if a change of the state follows, whose [end](StateTable::finish_copy) has to be noted.
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
        let made = self.0.change_early(
            Turn::of(&agent),
            (agent, NewCopy::of(copy)),
            |(agent, new), reader, writer, record| {
                new.read(reader, agent, writer.now)?;
                new.push(agent, record);
                Ok(())
            },
        );
        made.await.map(|(_, new)| new.copy)
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
        let finished = self.0.change_early(Turn::of(&agent), agent, move |agent, reader, _, record| {
            let mark = highest_version(reader, agent)?;
            record.push(StateCopyRow::Finished { agent, revision, mark, migrated: true });
            Ok(())
        });
        finished.await.map(drop)
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
        let subject = (Arc::clone(&agent), keep.map(NewCopy::of), None);
        let restored =
            self.0.change(Turn::of(&subject.0), subject, move |(agent, new, restored), reader, writer, record| {
                *restored = restore(reader, writer, agent, (revision, new.as_mut(), version), record)?;
                Ok(())
            });
        let (_, _, restored) = restored.await?;
        let restored = restored.ok_or_else(missing)?;
        // By way of a commit that changes nothing: in turn with others that tell the size.
        self.remove_expired(agent, Vec::new(), bytes).await?;
        Ok(restored)
    }
}

impl StateTable<'_> {
    /// Forgets the copies of an agent's state that revisions have which are kept no more.
    pub(crate) fn forget_copies(self, agent: Arc<str>, revisions: Vec<u64>) {
        self.0.queue_change(Turn::of(&agent), agent, move |agent, _, _, record| {
            for revision in revisions {
                record.push(StateCopyRow::Removed { agent, revision: Some(revision) });
            }
            Ok(())
        });
    }
}

/// Returns the highest version of an agent's keys; 0 if there are none.
fn highest_version(reader: TableReader<'_>, agent: &str) -> rusqlite::Result<u64> {
    reader
        .prepare("SELECT coalesce(max(version), 0) FROM state WHERE agent = ?1")?
        .query_row([agent], |row| row.get::<_, i64>(0).map(i64::cast_unsigned))
}

/// Returns the number and the bytes of the keys of a table, as quotas count them. `length` is the length of a value.
fn keys_and_bytes(
    reader: TableReader<'_>,
    (source, length): (&str, &str),
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<(u64, u64)> {
    let unsigned = |row: &Row<'_>, at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    reader
        .prepare(&format!("SELECT count(*), coalesce(sum(length(CAST(key AS BLOB)) + {length}), 0) FROM {source}"))?
        .query_row(parameters, |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)))
}

/// A copy of an agent's state that is being made.
struct NewCopy {
    id: i64,
    /// The highest version of a key that does not count as written since.
    mark: u64,
    /// Set if keys that the agent removes do not count as written since.
    migrated: bool,
    copy: StateCopy,
}

impl NewCopy {
    /// Returns a copy of which nothing is read yet.
    fn of(KeepState { revision, holds, rollout, unfinished }: KeepState) -> Self {
        let copy = StateCopy { revision, holds, at: 0, keys: 0, bytes: 0, unfinished, rollout };
        Self { id: 0, mark: 0, migrated: false, copy }
    }

    /// Reads what the copy will have.
    fn read(&mut self, reader: TableReader<'_>, agent: &str, at: u64) -> rusqlite::Result<()> {
        let newest = "SELECT coalesce(max(id), 0) FROM state_copy";
        self.id = reader.prepare(newest)?.query_row([], |row| row.get::<_, i64>(0))? + 1;
        // The versions of keys only grow, so later writes are those above the mark.
        self.mark = highest_version(reader, agent)?;
        let source = "state WHERE agent = ?1 AND (expires_at IS NULL OR expires_at > ?2)";
        (self.copy.keys, self.copy.bytes) =
            keys_and_bytes(reader, (source, value_length!()), params![agent, at.cast_signed()])?;
        self.copy.at = at;
        Ok(())
    }

    /// Adds the copy to a record, in place of an earlier one of the same revision.
    fn push<'r>(&'r self, agent: &'r str, record: &mut Record<'r>) {
        let Self { id, mark, migrated, copy } = self;
        let StateCopy { revision, holds, at, keys, bytes, unfinished, rollout } = copy;
        record.push(StateCopyRow::Removed { agent, revision: Some(*revision) });
        record.push(StateCopyRow::Made {
            id: *id,
            agent,
            revision: *revision,
            holds: Cow::Owned(serde_json::to_string(holds).expect("numbers can be written")),
            at: *at,
            keys: *keys,
            bytes: *bytes,
            mark: *mark,
            unfinished: *unfinished,
            migrated: *migrated,
            rollout: *rollout,
        });
    }
}

/// Decides that an agent's state becomes what a copy has; returns `None` if there is no such copy.
fn restore<'r>(
    reader: TableReader<'_>,
    writer: &mut WriterState,
    agent: &'r Arc<str>,
    (revision, kept, version): (u64, Option<&'r mut NewCopy>, u64),
    record: &mut Record<'r>,
) -> rusqlite::Result<Option<RestoredState>> {
    let id: Option<i64> = reader
        .prepare("SELECT id FROM state_copy WHERE agent = ?1 AND revision = ?2")?
        .query_row(params![&**agent, revision.cast_signed()], |row| row.get(0))
        .optional()?;
    let Some(id) = id else { return Ok(None) };
    let now = writer.now;
    if let Some(new) = kept {
        new.read(reader, agent, now)?;
        if !new.copy.unfinished {
            // What is restored was not written since.
            (new.mark, new.migrated) = (version, true);
        }
        new.push(agent, record);
    } else {
        // It was put back: no rollout came to its end with it.
        record.push(StateCopyRow::RolloutRemoved { agent, revision });
    }
    // The state is what this copy has: also of a migration that broke off nothing is left.
    record.push(StateCopyRow::Finished { agent, revision, mark: version, migrated: false });
    record.push(StateCopyRow::Restored { id, agent, version, now });
    let source = "state_copy_key WHERE copy = ?1 AND (expires_at IS NULL OR expires_at > ?2)";
    let (keys, size) = keys_and_bytes(reader, (source, "length(value)"), params![id, now.cast_signed()])?;
    writer.sizes.insert(Arc::clone(agent), size.cast_signed());
    // The size on disk is written with the others, at the end of the transaction.
    writer.resized.insert(Arc::clone(agent));
    // Keys of all agents, which are looked up again: this is seldom.
    writer.keys.clear();
    Ok(Some(RestoredState { keys }))
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
