//! The size of the store, by kind of record.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;

use crate::api_types::{AgentRecords, StoreStatus};
use crate::store::Store;
use crate::store::sqlite::whole::CONTENT_LENGTH;
use crate::store::tables::dead_letters;

impl Store {
    /// Returns the size of the store. Reads every message row, so it takes a while.
    pub(crate) fn size(&self) -> Result<StoreStatus, String> {
        let connection = self.database.reader().map_err(|error| error.to_string())?;
        let size = size(&connection, &self.database).map_err(|error| error.to_string())?;
        Ok(StoreStatus { commits: self.commits.counted().quantiles(), ..size })
    }
}

/// Returns the size of a database at one moment.
pub(in crate::store) fn size(connection: &Connection, database: &Path) -> rusqlite::Result<StoreStatus> {
    // One transaction, so that the counts agree with each other while commits go on.
    let transaction = connection.unchecked_transaction()?;
    let number = |sql: &str| transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
    let page = number("PRAGMA page_size")?;
    let mut agents: BTreeMap<String, AgentRecords> = BTreeMap::new();
    let mut add = |sql: &str, set: fn(&mut AgentRecords, u64)| -> rusqlite::Result<()> {
        let mut statement = transaction.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        for row in rows {
            let (agent, value): (String, u64) = row?;
            let kept = AgentRecords { agent: agent.clone(), ..AgentRecords::default() };
            set(agents.entry(agent).or_insert(kept), value);
        }
        Ok(())
    };
    add("SELECT agent, count(*) FROM message GROUP BY agent", |kept, count| kept.queued = count)?;
    add("SELECT agent, count(*) FROM ack JOIN message USING (seq) GROUP BY agent", |kept, count| {
        kept.handled = count;
        // A handled message stays in both tables until the history drops it.
        kept.queued = kept.queued.saturating_sub(count);
    })?;
    add("SELECT agent, count(*) FROM timer GROUP BY agent", |kept, count| kept.queued += count)?;
    add("SELECT agent, bytes FROM state_size", |kept, bytes| kept.state_bytes = bytes)?;
    add("SELECT agent, bytes FROM memory", |kept, bytes| kept.snapshot_bytes = bytes)?;
    add("SELECT agent, sum(bytes) FROM state_copy GROUP BY agent", |kept, bytes| kept.state_copy_bytes = bytes)?;
    for (agent, count) in dead_letters::by_agent(&transaction)? {
        let kept = AgentRecords { agent: agent.clone(), ..AgentRecords::default() };
        agents.entry(agent).or_insert(kept).dead = count;
    }
    let agents: Vec<AgentRecords> = agents.into_values().collect();
    let sum = |get: fn(&AgentRecords) -> u64| agents.iter().map(get).sum();
    Ok(StoreStatus {
        path: database.display().to_string(),
        format: transaction.pragma_query_value(None, "user_version", |row| row.get(0))?,
        bytes: length(database),
        log_bytes: length(&with_suffix(database, "-wal")),
        free_bytes: number("PRAGMA freelist_count")? * page,
        queued: sum(|kept| kept.queued),
        handled: sum(|kept| kept.handled),
        handled_bytes: number(&format!("SELECT coalesce(sum({CONTENT_LENGTH}), 0) FROM message JOIN ack USING (seq)"))?,
        dead: sum(|kept| kept.dead),
        dead_bytes: number(&format!("SELECT coalesce(sum({CONTENT_LENGTH}), 0) FROM dead"))?,
        agents,
        // Only a running host has measured them.
        commits: None,
    })
}

/// Returns the length of a file; 0 if it is not there.
pub(in crate::store) fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}

/// A file that stands beside a database.
pub(in crate::store) fn with_suffix(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
