//! The tables, by version.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use caxton_control::desired::Durability;
use rusqlite::Connection;

use crate::bounds;
use crate::store::StoreError;
use crate::store::sqlite::whole;

/// The steps that bring a database from one format to the next; the format is their count.
pub(in crate::store) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('version', 0);
    CREATE TABLE state (
        agent TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL,
        PRIMARY KEY (agent, key)
    ) WITHOUT ROWID;
    CREATE TABLE state_size (agent TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE snapshot (
        agent TEXT PRIMARY KEY, revision INTEGER NOT NULL, saved_at INTEGER NOT NULL, data BLOB NOT NULL
    );
    CREATE TABLE revision (
        agent TEXT NOT NULL, number INTEGER NOT NULL, digest TEXT NOT NULL, settings TEXT NOT NULL,
        created_at INTEGER NOT NULL, PRIMARY KEY (agent, number)
    ) WITHOUT ROWID;
    CREATE TABLE event (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, agent TEXT, kind TEXT NOT NULL,
        data TEXT NOT NULL
    );
    CREATE INDEX event_agent ON event (agent, id);
",
    "
    INSERT INTO meta VALUES ('seq', 0);
    -- A message stays as it was written. That it is handled is said by a row of ack, which is only appended too.
    CREATE TABLE message (
        seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, conversation TEXT NOT NULL, rank INTEGER NOT NULL, due INTEGER,
        receipt TEXT, head BLOB NOT NULL, content BLOB NOT NULL
    );
    CREATE UNIQUE INDEX message_receipt ON message (receipt) WHERE receipt IS NOT NULL;
    CREATE TABLE ack (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, revision INTEGER NOT NULL);
    CREATE TABLE attempt (
        seq INTEGER NOT NULL, number INTEGER NOT NULL, again_at INTEGER NOT NULL, attempt TEXT NOT NULL,
        PRIMARY KEY (seq, number)
    ) WITHOUT ROWID;
    CREATE TABLE dead (
        seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, conversation TEXT NOT NULL, rank INTEGER NOT NULL, due INTEGER,
        head BLOB NOT NULL, content BLOB NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL, error TEXT NOT NULL,
        attempts TEXT NOT NULL
    );
    CREATE INDEX dead_agent ON dead (agent, seq);
    CREATE TABLE idempotency (
        agent TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL, id TEXT NOT NULL,
        conversation TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (agent, key)
    ) WITHOUT ROWID;
    CREATE INDEX idempotency_at ON idempotency (at);
    CREATE TABLE schedule (
        agent TEXT NOT NULL, schedule TEXT NOT NULL, fired_at INTEGER NOT NULL, PRIMARY KEY (agent, schedule)
    ) WITHOUT ROWID;
    CREATE TABLE paused (agent TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE conversation (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first INTEGER NOT NULL, last INTEGER NOT NULL,
        messages INTEGER NOT NULL, record TEXT NOT NULL, ended INTEGER
    );
    CREATE INDEX conversation_last ON conversation (last);
",
    "
    -- No message of the conversation has a place before this one.
    ALTER TABLE conversation ADD COLUMN began INTEGER NOT NULL DEFAULT 0;
    -- A dead letter is found by its id as long as it is kept, which may be longer than its message is.
    ALTER TABLE dead ADD COLUMN receipt TEXT;
    UPDATE dead SET receipt = (SELECT receipt FROM message WHERE message.seq = dead.seq);
    CREATE INDEX dead_receipt ON dead (receipt) WHERE receipt IS NOT NULL;
    -- What changes with every message is apart from the rest, in rows so short that a page has hundreds of them.
    CREATE TABLE activity (conversation INTEGER PRIMARY KEY, last INTEGER NOT NULL, messages INTEGER NOT NULL);
    INSERT INTO activity SELECT id, last, messages FROM conversation WHERE ended IS NULL;
    DROP INDEX conversation_last;
    CREATE INDEX conversation_ended ON conversation (last) WHERE ended IS NOT NULL;
",
    "
    CREATE TABLE ledger (agent TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
    -- The memory that each kept revision gave when it handed over, to be taken back.
    CREATE TABLE handoff (
        agent TEXT NOT NULL, revision INTEGER NOT NULL, saved_at INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (agent, revision)
    ) WITHOUT ROWID;
",
    "
    -- What copies of messages were answered otherwise, by rollout.
    CREATE TABLE difference (
        agent TEXT NOT NULL, rollout INTEGER NOT NULL, number INTEGER NOT NULL, record TEXT NOT NULL,
        PRIMARY KEY (agent, rollout, number)
    ) WITHOUT ROWID;
    -- The last messages of agents whose changes are rehearsed.
    CREATE TABLE recent (
        agent TEXT NOT NULL, seq INTEGER NOT NULL, conversation TEXT NOT NULL, rank INTEGER NOT NULL, due INTEGER,
        head BLOB NOT NULL, content BLOB NOT NULL, PRIMARY KEY (agent, seq)
    );
",
    "
    -- Whose handoff has the bytes, so that a mailbox that waits for them waits for them once; otherwise data has them.
    ALTER TABLE snapshot ADD COLUMN handed INTEGER;
    CREATE VIEW memory AS
        SELECT s.agent, s.revision, s.saved_at, coalesce(h.data, s.data) AS data
        FROM snapshot AS s LEFT JOIN handoff AS h ON h.agent = s.agent AND h.revision = s.handed;
",
    "
    -- Memories that are too large for one commit, in pieces. A row of snapshot or handoff names those of one memory, and
    -- has its bytes itself if it names none.
    CREATE TABLE piece (
        memory INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (memory, number)
    );
    ALTER TABLE snapshot ADD COLUMN pieces INTEGER;
    ALTER TABLE snapshot ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE handoff ADD COLUMN pieces INTEGER;
    ALTER TABLE handoff ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE snapshot SET bytes = length(data);
    UPDATE handoff SET bytes = length(data);
    DROP VIEW memory;
    CREATE VIEW memory AS
        SELECT s.agent, s.revision, s.saved_at,
            CASE WHEN h.agent IS NULL THEN s.data ELSE h.data END AS data,
            CASE WHEN h.agent IS NULL THEN s.pieces ELSE h.pieces END AS pieces,
            CASE WHEN h.agent IS NULL THEN s.bytes ELSE h.bytes END AS bytes
        FROM snapshot AS s LEFT JOIN handoff AS h ON h.agent = s.agent AND h.revision = s.handed;
",
    "
    -- When conversations began of which no record is written, with agents whose conversations stay where they began.
    CREATE TABLE beginning (
        agent TEXT NOT NULL, conversation TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        PRIMARY KEY (agent, conversation)
    ) WITHOUT ROWID;
    CREATE INDEX beginning_last ON beginning (last);
",
    "
    -- Keys that are gone at a time of the wall clock, whether they are removed by then or not.
    ALTER TABLE state ADD COLUMN expires_at INTEGER;
    CREATE INDEX state_expires ON state (expires_at) WHERE expires_at IS NOT NULL;
",
    "
    -- Whether it was a dead letter that an operator let be handled again.
    ALTER TABLE message ADD COLUMN revived INTEGER NOT NULL DEFAULT 0;
",
    "
    -- How often the handler of a message ran in the attempt that handled it: more than once after conflicts.
    ALTER TABLE ack ADD COLUMN runs INTEGER NOT NULL DEFAULT 1;
",
    "
    -- Messages that wait for their time, apart from those that wait in a mailbox: due is of the clock that goes only
    -- forward, at is the date, and dated says whether the date was named.
    CREATE TABLE timer (
        seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, due INTEGER NOT NULL, at INTEGER NOT NULL, dated INTEGER NOT NULL,
        conversation TEXT NOT NULL, rank INTEGER NOT NULL, id TEXT NOT NULL, sender TEXT NOT NULL, name TEXT,
        head BLOB NOT NULL, content BLOB NOT NULL
    );
    CREATE INDEX timer_due ON timer (agent, due);
    CREATE INDEX timer_id ON timer (id);
    CREATE UNIQUE INDEX timer_name ON timer (sender, name) WHERE name IS NOT NULL;
    -- Both are empty as long as nobody sets the clock, and names no date.
    CREATE INDEX timer_moved ON timer (seq) WHERE due <> at;
    CREATE INDEX timer_dated ON timer (seq) WHERE dated;
    -- A head begins with the id, the act and the sender; each text comes after its length.
    INSERT INTO timer
        SELECT seq, agent, due, due, 0, conversation, rank,
            CAST(substr(head, 2, unicode(substr(head, 1, 1))) AS TEXT),
            CAST(substr(head, 4 + unicode(substr(head, 1, 1)), unicode(substr(head, 3 + unicode(substr(head, 1, 1)), 1)))
                AS TEXT),
            NULL, head, content
        FROM message AS m WHERE due > unixepoch('subsec') * 1000 AND NOT EXISTS (SELECT 1 FROM ack WHERE ack.seq = m.seq);
    DELETE FROM message WHERE seq IN (SELECT seq FROM timer);
",
    "
    -- Agents' states as they were when a revision left them to one of another shape. What has a higher version than the
    -- mark was written since; holds is a list of versions of the agent's data.
    CREATE TABLE state_copy (
        id INTEGER PRIMARY KEY, agent TEXT NOT NULL, revision INTEGER NOT NULL, holds TEXT NOT NULL, at INTEGER NOT NULL,
        keys INTEGER NOT NULL, bytes INTEGER NOT NULL, mark INTEGER NOT NULL, unfinished INTEGER NOT NULL,
        migrated INTEGER NOT NULL, rollout INTEGER NOT NULL, UNIQUE (agent, revision)
    );
    CREATE TABLE state_copy_key (
        copy INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, version INTEGER NOT NULL, expires_at INTEGER,
        PRIMARY KEY (copy, key)
    ) WITHOUT ROWID;
",
    "
    -- The answer that was given to the message; none if there was none, or it was kept by a version before this.
    ALTER TABLE recent ADD COLUMN answer BLOB;
",
    "
    -- Tells a store from other databases: `Cxtn`.
    PRAGMA application_id = 1131967598;
",
    "
    -- Contents and values of large commits, written in pieces before the commit. A row that has one names it in placed,
    -- and its own column is empty; unplaced has those that no row names.
    CREATE TABLE content_piece (
        content INTEGER NOT NULL, number INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (content, number)
    );
    CREATE TABLE unplaced (content INTEGER PRIMARY KEY);
    ALTER TABLE message ADD COLUMN placed INTEGER;
    ALTER TABLE timer ADD COLUMN placed INTEGER;
    ALTER TABLE dead ADD COLUMN placed INTEGER;
    ALTER TABLE state ADD COLUMN placed INTEGER;
    CREATE INDEX message_placed ON message (seq, placed) WHERE placed IS NOT NULL;
    CREATE INDEX state_placed ON state (agent, key, placed) WHERE placed IS NOT NULL;
",
    "
    -- The calls over HTTP of messages that wait and of dead letters, by the place of the message, the hash of the request
    -- and the number among those of that hash. The outcome is a status, or 0 for a response that was too large; a call
    -- that has none began, and may have been carried out.
    CREATE TABLE journal (
        seq INTEGER NOT NULL, hash BLOB NOT NULL, nth INTEGER NOT NULL, line TEXT NOT NULL, at INTEGER NOT NULL,
        outcome INTEGER, response BLOB NOT NULL, PRIMARY KEY (seq, hash, nth)
    );
    -- What the calls over HTTP of the message were answered.
    ALTER TABLE recent ADD COLUMN calls BLOB;
    -- The trees of messages that have a budget, with what was used of it; linked says that the tree has or had a message in
    -- the store, and tree_link which. Both are empty on a host without budgets.
    CREATE TABLE tree (
        id TEXT PRIMARY KEY, budget TEXT NOT NULL, conversation TEXT NOT NULL, last INTEGER NOT NULL,
        linked INTEGER NOT NULL, record TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX tree_conversation ON tree (conversation, last);
    CREATE INDEX tree_budget ON tree (budget, last);
    CREATE INDEX tree_last ON tree (last);
    CREATE INDEX tree_unlinked ON tree (last) WHERE NOT linked;
    CREATE TABLE tree_link (seq INTEGER PRIMARY KEY, tree TEXT NOT NULL);
    CREATE INDEX tree_link_tree ON tree_link (tree);
",
];

/// The application id of a store, and the format from which on stores have it.
const APPLICATION: (i64, i64) = (1_131_967_598, 15);

/// Checks that a database is a store, undamaged, and has the tables of its format and nothing else.
///
/// A view or a trigger of another origin would run with the next statement that uses its table.
pub(in crate::store) fn check_origin(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wrong = |source| StoreError::of(path, source);
    let foreign = |why: String| StoreError::Foreign { path: path.to_owned(), why };
    let format = format(connection, path)?;
    if format == 0 {
        return Err(StoreError::NoStore { path: path.to_owned() });
    }
    let id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(wrong)?;
    // Copies of earlier formats have no id, and another program's is one too many.
    let expected = if format >= APPLICATION.1 { APPLICATION.0 } else { 0 };
    if id != expected {
        return Err(foreign(format!(
            "its application id is {id}, and that of a store of format {format} is {expected}"
        )));
    }
    // Before the schema is used: the text of a damaged one is anything.
    check(connection, path)?;
    let known = Connection::open_in_memory().map_err(wrong)?;
    for migration in MIGRATIONS.iter().take(usize::try_from(format).unwrap_or(0)) {
        known.execute_batch(migration).map_err(wrong)?;
    }
    let (found, expected) = (objects(connection).map_err(wrong)?, objects(&known).map_err(wrong)?);
    if let Some(SchemaObject { kind, name, .. }) = found.difference(&expected).next() {
        let name = bounds::quoted(name);
        return Err(foreign(format!("its {kind} `{name}` is not that of a store of format {format}")));
    }
    match expected.difference(&found).next() {
        Some(SchemaObject { kind, name, .. }) => Err(foreign(format!("it has no {kind} `{name}`"))),
        None => Ok(()),
    }
}

/// A table, an index, a view or a trigger.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SchemaObject {
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

fn objects(connection: &Connection) -> rusqlite::Result<BTreeSet<SchemaObject>> {
    // Without the statistics that `ANALYZE` makes.
    let sql = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\'";
    let mut statement = connection.prepare(sql)?;
    let objects = statement.query_map([], |row| {
        Ok(SchemaObject { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    objects.collect()
}

/// Prepares a connection that writes, and brings the database to the newest format.
pub(in crate::store) fn prepare(
    mut connection: Connection,
    path: &Path,
    durability: Durability,
) -> Result<Connection, StoreError> {
    let wrong = |source| StoreError::of(path, source);
    whole::register(&connection).map_err(wrong)?;
    // Messages are for the owner's eyes, whatever the folder lets others see. A file system without modes has none
    // to set.
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    // Before the first write: a database of a newer version must stay as it is.
    let found = format(&connection, path)?;
    configure(&connection, durability).map_err(wrong)?;
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        // A step and its number are one transaction, so that a killed migration goes on where it was.
        let transaction = connection.transaction().map_err(wrong)?;
        transaction.execute_batch(migration).map_err(wrong)?;
        transaction
            .pragma_update(None, "user_version", i64::try_from(index + 1).expect("there are few"))
            .map_err(wrong)?;
        transaction.commit().map_err(wrong)?;
    }
    Ok(connection)
}

/// Bytes of a database that is read through before it is used, which takes a second about; what is damaged in a
/// larger one shows when it is read.
const MAX_CHECKED: u64 = 1 << 30;

/// Looks for damage before anything is built on it.
pub(in crate::store) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    if std::fs::metadata(path).is_ok_and(|file| file.len() > MAX_CHECKED) {
        return Ok(());
    }
    // The quick check does not compare indexes with tables, which would take several times as long.
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match found.map_err(|source| StoreError::of(path, source))? {
        fine if fine == "ok" => Ok(()),
        what => {
            let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            let source = rusqlite::Error::SqliteFailure(corrupt, Some(what));
            Err(StoreError::Damaged { path: path.to_owned(), cause: source })
        }
    }
}

/// Returns the newest format.
pub(in crate::store) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("there are few")
}

/// Writes the newest format into a database that has it.
pub(in crate::store) fn write_format(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", known())
}

/// The format that a database has; 0 for one that is empty.
pub(in crate::store) fn format(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|source| StoreError::of(path, source))?;
    let known = known();
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    Ok(found)
}

fn configure(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(64);
    // Only a new database takes it; larger pages cost less for each message, which is mostly appended.
    connection.pragma_update(None, "page_size", 8_192)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // In WAL mode FULL syncs at every commit, NORMAL only at a checkpoint, OFF never.
    let synchronous = match durability {
        Durability::Fsync => "FULL",
        Durability::Os => "NORMAL",
        Durability::Memory => "OFF",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // The log is copied by a thread of its own.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}
