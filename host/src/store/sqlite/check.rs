//! Checks a store: that the database is undamaged, and that its tables agree with each other.

use rusqlite::Connection;
use serde::de::DeserializeOwned;

use crate::api_types::{Defect, StoreCheck};
use crate::message::Attempt;
use crate::store::Store;
use crate::store::writer::message_row::{self, columns};

/// The most damages of the database that are reported.
const DAMAGES: u32 = 20;

/// The rules of a sound store: a code, a query that counts the rows that break the rule, and what that means.
const RULES: &[(&str, &str, &str)] = &[
    (
        "ack-without-message",
        "SELECT count(*) FROM ack WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.seq = ack.seq)",
        "handled messages are not there",
    ),
    (
        "attempt-without-message",
        "SELECT count(*) FROM attempt WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.seq = attempt.seq)",
        "attempts are of messages that are not there",
    ),
    (
        "journal-without-message",
        "SELECT count(DISTINCT seq) FROM journal WHERE NOT EXISTS (SELECT 1 FROM dead WHERE dead.seq = journal.seq)
            AND NOT EXISTS (SELECT 1 FROM message WHERE message.seq = journal.seq)",
        "calls are recorded of messages that are not there",
    ),
    (
        "dead-and-waiting",
        "SELECT count(*) FROM dead JOIN message USING (seq)
         WHERE NOT EXISTS (SELECT 1 FROM ack WHERE ack.seq = dead.seq)",
        "dead letters wait to be handled as well",
    ),
    (
        "place-beyond-counter",
        "SELECT count(*) FROM (SELECT seq FROM message UNION ALL SELECT seq FROM ack UNION ALL SELECT seq FROM dead
                              UNION ALL SELECT seq FROM timer)
         WHERE seq > (SELECT value FROM meta WHERE key = 'seq')",
        "places of messages are beyond their counter, so they would be given twice",
    ),
    (
        "version-beyond-counter",
        "SELECT count(*) FROM (SELECT version FROM state UNION ALL SELECT version FROM state_copy_key
                              UNION ALL SELECT mark FROM state_copy)
         WHERE version > (SELECT value FROM meta WHERE key = 'version')",
        "keys of agents' states have versions beyond their counter",
    ),
    (
        "state-size",
        "SELECT count(*) FROM (
            SELECT agent, sum(length(CAST(key AS BLOB)) + length(value) + coalesce(
                (SELECT sum(length(data)) FROM content_piece AS p WHERE p.content = placed), 0)) AS bytes
            FROM state GROUP BY agent
            UNION ALL SELECT agent, 0 FROM state_size WHERE agent NOT IN (SELECT agent FROM state)
         ) AS found LEFT JOIN state_size AS told USING (agent) WHERE told.bytes IS NOT found.bytes",
        "agents' states have another size than is told",
    ),
    (
        "unknown-revision",
        "SELECT count(*) FROM ack JOIN message USING (seq) WHERE ack.revision > 0 AND NOT EXISTS
            (SELECT 1 FROM revision AS r WHERE r.agent = message.agent AND r.number = ack.revision)",
        "messages were handled by revisions that are not known",
    ),
    (
        "unknown-snapshot",
        "SELECT count(*) FROM snapshot AS s WHERE NOT EXISTS
            (SELECT 1 FROM revision AS r WHERE r.agent = s.agent AND r.number = s.revision)",
        "agents' memories were saved by revisions that are not known",
    ),
    (
        "snapshot-without-handoff",
        "SELECT count(*) FROM snapshot AS s WHERE handed IS NOT NULL AND NOT EXISTS
            (SELECT 1 FROM handoff AS h WHERE h.agent = s.agent AND h.revision = s.handed)",
        "agents' memories are not where they were handed over",
    ),
    (
        "memory-not-whole",
        "SELECT count(*) FROM (
            SELECT pieces, bytes FROM snapshot WHERE pieces IS NOT NULL
            UNION SELECT pieces, bytes FROM handoff WHERE pieces IS NOT NULL
         ) AS m WHERE m.bytes IS NOT (SELECT sum(length(data)) FROM piece WHERE piece.memory = m.pieces)",
        "agents' memories are not whole",
    ),
    (
        "content-missing",
        "SELECT count(*) FROM (
            SELECT placed FROM message UNION ALL SELECT placed FROM timer UNION ALL SELECT placed FROM dead
            UNION ALL SELECT placed FROM state
         ) AS m WHERE placed IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM content_piece AS p WHERE p.content = m.placed AND p.number = 0)",
        "contents of messages or values are not there",
    ),
    (
        "state-copy-not-whole",
        "SELECT count(*) FROM state_copy AS c WHERE (keys, bytes) IS NOT
            (SELECT count(*), coalesce(sum(length(CAST(key AS BLOB)) + length(value)), 0)
             FROM state_copy_key WHERE copy = c.id)",
        "copies of agents' states are not whole",
    ),
    (
        "state-copy-of-none",
        "SELECT count(DISTINCT copy) FROM state_copy_key WHERE copy NOT IN (SELECT id FROM state_copy)",
        "keys of copies of agents' states are in no copy",
    ),
];

impl Store {
    /// Looks through all of it, while commits go on. Takes long.
    pub(crate) fn check(&self) -> Result<StoreCheck, String> {
        Ok(check(&self.database.reader().map_err(|error| error.to_string())?))
    }
}

/// Looks through a whole database, as it is at one moment.
pub(in crate::store) fn check(connection: &Connection) -> StoreCheck {
    let mut defects = Vec::new();
    // One transaction: commits between two rules would look like defects.
    let looked = connection.unchecked_transaction().and_then(|transaction| look(&transaction, &mut defects));
    if let Err(error) = looked {
        defects.push(defect("unreadable", format!("the database cannot be read to its end: {error}"), 1));
    }
    StoreCheck { ok: defects.is_empty(), defects }
}

fn defect(code: &str, what: impl Into<String>, count: u64) -> Defect {
    Defect { code: code.to_owned(), what: what.into(), count }
}

fn look(connection: &Connection, defects: &mut Vec<Defect>) -> rusqlite::Result<()> {
    // Bounded, because one damaged page can break thousands of rows.
    let mut damages = connection.prepare(&format!("PRAGMA integrity_check({DAMAGES})"))?;
    for damage in damages.query_map([], |row| row.get::<_, String>(0))? {
        let damage = damage?;
        // A sound database gives one row, `ok`.
        if damage != "ok" {
            defects.push(defect("damaged", damage.replace('\n', "; "), 1));
        }
    }
    for (code, sql, what) in RULES {
        let count: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        if count > 0 {
            defects.push(defect(code, *what, count.cast_unsigned()));
        }
    }
    // Decoded as a host does: the check of the database knows nothing of encoded columns.
    for (table, code) in
        [("message", "unreadable-message"), ("timer", "unreadable-timer"), ("dead", "unreadable-dead-letter")]
    {
        let count = unreadable(connection, table)?;
        if count > 0 {
            defects.push(defect(code, format!("rows of the table `{table}` cannot be read"), count));
        }
    }
    let count = unreadable_json::<Attempt>(connection, "SELECT attempt FROM attempt")?
        + unreadable_json::<Vec<Attempt>>(connection, "SELECT attempts FROM dead")?;
    if count > 0 {
        defects.push(defect("unreadable-attempt", "what is kept of attempts cannot be read", count));
    }
    let count = unreadable_json::<Vec<u32>>(connection, "SELECT holds FROM state_copy")?;
    if count > 0 {
        defects.push(defect("unreadable-state-copy", "what copies of agents' states hold cannot be read", count));
    }
    Ok(())
}

/// Counts the messages of a table that cannot be decoded.
fn unreadable(connection: &Connection, table: &str) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare(&format!("SELECT {} FROM {table}", columns()))?;
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(found) = rows.next()? {
        count += u64::from(message_row::decode(found).is_err());
    }
    Ok(count)
}

/// Counts the texts that cannot be parsed as this type.
fn unreadable_json<T: DeserializeOwned>(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let good = row.get_ref(0)?.as_str().is_ok_and(|text| serde_json::from_str::<T>(text).is_ok());
        count += u64::from(!good);
    }
    Ok(count)
}
