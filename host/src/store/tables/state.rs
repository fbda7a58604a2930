//! The state of agents: keys with values.

use std::sync::atomic::Ordering;

use rusqlite::{OptionalExtension, params};

use crate::clock;
use crate::message::Read;
use crate::store::handles::StateTable;
use crate::store::sqlite::whole::{value, value_length};

/// A key of an agent's state, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct StateEntry {
    /// The key.
    pub(crate) key: String,
    /// Bytes of the value.
    pub(crate) bytes: u64,
    /// The time at which the key is gone, in milliseconds since 1970; none if it stays.
    pub(crate) expires_at: Option<u64>,
}

impl StateTable<'_> {
    /// Returns a version for a write of state: greater than all before.
    pub(crate) fn next_version(self) -> u64 {
        self.0.version.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A key of an agent's state, unless its time is over.
    pub(crate) fn read(self, agent: &str, key: &str) -> Result<Option<Read>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(concat!(
                    "SELECT ",
                    value!(),
                    ", version, expires_at FROM state
                         WHERE agent = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)"
                ))?
                .query_row(params![agent, key, clock::now_ms().cast_signed()], |row| {
                    let expires_at = row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned);
                    Ok(Read { value: row.get(0)?, version: row.get::<_, i64>(1)?.cast_unsigned(), expires_at })
                })
                .optional()
        })
    }

    /// The bytes of a key's value, unless its time is over. Does not read the value.
    pub(crate) fn value_bytes(self, agent: &str, key: &str) -> Result<Option<u64>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(concat!(
                    "SELECT ",
                    value_length!(),
                    " FROM state WHERE agent = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)"
                ))?
                .query_row(params![agent, key, clock::now_ms().cast_signed()], |row| row.get::<_, i64>(0))
                .optional()
                .map(|bytes| bytes.map(i64::cast_unsigned))
        })
    }

    /// Keys with a prefix, after a key, in byte order: at most `limit`.
    pub(crate) fn keys(
        self,
        agent: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, String> {
        Ok(self.entries(agent, prefix, after, limit)?.into_iter().map(|entry| entry.key).collect())
    }

    /// Keys with the sizes of their values, after a key, in byte order: at most `limit`, and none whose time is over.
    pub(crate) fn entries(
        self,
        agent: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StateEntry>, String> {
        let from = after.filter(|after| *after >= prefix);
        self.0.with_reader(|connection| {
            // Rows come in order of the key from the first that can match; the first that does not ends it.
            let mut statement = connection.prepare_cached(concat!(
                "SELECT key, ",
                value_length!(),
                ", expires_at FROM state
                     WHERE agent = ?1 AND key >= ?2 AND key > ?3 AND (expires_at IS NULL OR expires_at > ?5)
                     ORDER BY key LIMIT ?4"
            ))?;
            let now = clock::now_ms().cast_signed();
            let rows = statement.query_map(params![agent, prefix, from.unwrap_or(""), limit, now], |row| {
                let expires_at = row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned);
                Ok(StateEntry { key: row.get(0)?, bytes: row.get::<_, i64>(1)?.cast_unsigned(), expires_at })
            })?;
            let mut entries = Vec::new();
            for entry in rows {
                let entry = entry?;
                if !entry.key.starts_with(prefix) {
                    break;
                }
                entries.push(entry);
            }
            Ok(entries)
        })
    }

    /// Bytes of an agent's whole state.
    pub(crate) fn bytes(self, agent: &str) -> Result<u64, String> {
        self.0.with_reader(|connection| {
            let bytes: Option<i64> = connection
                .prepare_cached("SELECT bytes FROM state_size WHERE agent = ?1")?
                .query_row([agent], |row| row.get(0))
                .optional()?;
            Ok(bytes.unwrap_or(0).cast_unsigned())
        })
    }
}
