//! What copies of messages were answered otherwise, by rollout: number 0 is what differs by nature, each other one
//! message.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::Store;

/// The rollouts of an agent whose differences are kept: as many as its ledger remembers.
const ROLLOUTS: u64 = caxton_control::rollout::history::MAX_ROLLOUTS as u64;

impl Store {
    /// Keeps one record of an agent's rollout in place of what has its number. Nobody waits.
    pub(crate) fn keep_difference(&self, agent: Arc<str>, rollout: u64, number: u64, record: String) {
        self.tell_writer(move |transaction| {
            transaction
                .prepare_cached("DELETE FROM difference WHERE agent = ?1 AND rollout <= ?2")?
                .execute(params![&*agent, rollout.saturating_sub(ROLLOUTS).cast_signed()])?;
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO difference (agent, rollout, number, record) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![&*agent, rollout.cast_signed(), number.cast_signed(), record])
        });
    }

    /// How many messages of a rollout are kept, and their bytes.
    pub(crate) fn differences_size(&self, agent: &str, rollout: u64) -> Result<(u64, u64), String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached(
                    "SELECT coalesce(max(number), 0), coalesce(sum(length(record)), 0) FROM difference
                     WHERE agent = ?1 AND rollout = ?2 AND number > 0",
                )?
                .query_row(params![agent, rollout.cast_signed()], |row| {
                    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
                })
        })
    }

    /// The newest rollout of an agent of which something is kept.
    pub(crate) fn newest_difference(&self, agent: &str) -> Result<Option<u64>, String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached("SELECT max(rollout) FROM difference WHERE agent = ?1")?
                .query_row([agent], |row| row.get::<_, Option<i64>>(0))
                .optional()
                .map(|newest| newest.flatten().map(i64::cast_unsigned))
        })
    }

    /// What is kept of a rollout, by number.
    pub(crate) fn differences(&self, agent: &str, rollout: u64) -> Result<Vec<(u64, String)>, String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached(
                    "SELECT number, record FROM difference WHERE agent = ?1 AND rollout = ?2 ORDER BY number",
                )?
                .query_map(params![agent, rollout.cast_signed()], |row| {
                    Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
                })?
                .collect()
        })
    }
}
