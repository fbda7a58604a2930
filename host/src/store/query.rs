//! Reads. Each thread has a connection of its own and sees what was committed last.

use std::cell::RefCell;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Event, Store};
use crate::clock;
use crate::message::Read;

thread_local! {
    /// The connection of this thread, with the store that it belongs to.
    static READER: RefCell<Option<(u64, Connection)>> = const { RefCell::new(None) };
}

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

/// A filter of events.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventFilter {
    /// Selects only this agent's.
    pub(crate) agent: Option<String>,
    /// Selects only those after this id, the oldest first; 0 asks for the newest.
    pub(crate) after: i64,
    /// Limits their number.
    pub(crate) limit: u32,
}

impl Store {
    pub(super) fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, String> {
        // The database may show transactions that were refused because their sync failed.
        if let Some(refusal) = self.progress.refusal() {
            return Err(refusal.to_string());
        }
        READER.with_borrow_mut(|reader| {
            // A thread may have read another store of this process before, as tests do.
            let stale = reader.as_ref().is_none_or(|(id, _)| *id != self.id);
            if stale {
                let connection = super::connect(&self.database).map_err(|error| error.to_string())?;
                *reader = Some((self.id, connection));
            }
            let (_, connection) = reader.as_ref().expect("it was set just now");
            read(connection).map_err(|error| error.to_string())
        })
    }

    /// A key of an agent's state, unless its time is over.
    pub(crate) fn read(&self, agent: &str, key: &str) -> Result<Option<Read>, String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached(
                    "SELECT value, version, expires_at FROM state
                     WHERE agent = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
                )?
                .query_row(params![agent, key, clock::now_ms().cast_signed()], |row| {
                    let expires_at = row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned);
                    Ok(Read { value: row.get(0)?, version: row.get::<_, i64>(1)?.cast_unsigned(), expires_at })
                })
                .optional()
        })
    }

    /// Keys with a prefix, after a key, in byte order: at most `limit`.
    pub(crate) fn keys(
        &self,
        agent: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, String> {
        Ok(self.entries(agent, prefix, after, limit)?.into_iter().map(|entry| entry.key).collect())
    }

    /// Keys with the sizes of their values, after a key, in byte order: at most `limit`, and none whose time is over.
    pub(crate) fn entries(
        &self,
        agent: &str,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StateEntry>, String> {
        let from = after.filter(|after| *after >= prefix);
        self.with_reader(|connection| {
            // Rows come in order of the key from the first that can match; the first that does not ends it.
            let mut statement = connection.prepare_cached(
                "SELECT key, length(value), expires_at FROM state
                 WHERE agent = ?1 AND key >= ?2 AND key > ?3 AND (expires_at IS NULL OR expires_at > ?5)
                 ORDER BY key LIMIT ?4",
            )?;
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
    pub(crate) fn state_bytes(&self, agent: &str) -> Result<u64, String> {
        self.with_reader(|connection| {
            let bytes: Option<i64> = connection
                .prepare_cached("SELECT bytes FROM state_size WHERE agent = ?1")?
                .query_row([agent], |row| row.get(0))
                .optional()?;
            Ok(bytes.unwrap_or(0).cast_unsigned())
        })
    }

    /// The number of an agent's newest revision, its digest and its settings.
    pub(crate) fn last_revision(&self, agent: &str) -> Result<Option<(u64, String, String)>, String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached(
                    "SELECT number, digest, settings FROM revision WHERE agent = ?1 ORDER BY number DESC LIMIT 1",
                )?
                .query_row([agent], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?, row.get(2)?)))
                .optional()
        })
    }

    /// Events in order of their ids.
    pub(crate) fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, String> {
        let newest = filter.after == 0;
        let sql = if newest {
            "SELECT id, at, agent, kind, data FROM event
             WHERE id > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY id DESC LIMIT ?3"
        } else {
            "SELECT id, at, agent, kind, data FROM event
             WHERE id > ?1 AND (?2 IS NULL OR agent = ?2) ORDER BY id LIMIT ?3"
        };
        self.with_reader(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![filter.after, filter.agent, filter.limit], |row| {
                let data: String = row.get(4)?;
                Ok(Event {
                    id: row.get(0)?,
                    at: row.get::<_, i64>(1)?.cast_unsigned(),
                    agent: row.get(2)?,
                    kind: row.get(3)?,
                    // One that is not JSON is shown as text: it must not hide the other events.
                    data: serde_json::from_str(&data).unwrap_or(serde_json::Value::String(data)),
                })
            })?;
            let mut events: Vec<Event> = rows.collect::<rusqlite::Result<_>>()?;
            if newest {
                events.reverse();
            }
            Ok(events)
        })
    }
}
