//! The cost of the rows of a durable hop in SQLite alone: the physical limit for Caxton.

use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, TransactionBehavior, params};

const CONVERSATION: &str = "0192f3a0-1111-7222-8333-444455556666-0000";

fn open(folder: &Path, name: &str) -> Connection {
    let connection = Connection::open(folder.join(name)).expect("the folder can be written to");
    // The settings of a host with `durability = "fsync"`.
    for (pragma, value) in [("journal_mode", "WAL"), ("synchronous", "FULL")] {
        connection.pragma_update(None, pragma, value).expect("a pragma of SQLite");
    }
    connection
        .execute_batch(
            "CREATE TABLE message (seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, conversation TEXT NOT NULL,
                rank INTEGER NOT NULL, due INTEGER, receipt TEXT, head BLOB NOT NULL, content BLOB NOT NULL);
             CREATE TABLE ack (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, revision INTEGER NOT NULL);
             CREATE TABLE state (agent TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
                version INTEGER NOT NULL, PRIMARY KEY (agent, key)) WITHOUT ROWID;
             CREATE TABLE conversation (id INTEGER PRIMARY KEY, last INTEGER NOT NULL, messages INTEGER NOT NULL);",
        )
        .expect("the tables are new");
    connection
}

/// The number of handled messages kept, and the number deleted at once beyond that; equal to Caxton's.
const HISTORY: usize = 100_000;
const STEP: usize = 1_000;

/// Writes the rows of `hops` hops, each a message, an acknowledgement, a key and a counter, in transactions of `batch`
/// hops over a number of conversations, and deletes the oldest messages as Caxton does. Returns hops per second.
///
/// # Panics
/// SQLite fails.
pub fn plain_batches(folder: &Path, hops: usize, batch: usize, conversations: usize) -> f64 {
    let mut connection = open(folder, "plain.db");
    for id in 0..conversations {
        connection.execute("INSERT INTO conversation VALUES (?1, 1, 1)", [id as i64]).expect("a row");
    }
    let keys: Vec<String> = (0..conversations).map(|id| format!("{CONVERSATION}{id}")).collect();
    // The sizes of a message that two relays pass to each other.
    let (head, content) = (vec![7u8; 150], vec![9u8; 261]);
    let began = Instant::now();
    let (mut seq, mut gone) = (0i64, 0);
    while (seq as usize) < hops {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).expect("a transaction");
        {
            // Cached, as the host's writer does, so that parsing is no part of the comparison.
            let prepare = |sql| transaction.prepare_cached(sql).expect("a statement");
            let mut insert = prepare("INSERT INTO message VALUES (?1, ?2, ?3, 1, NULL, NULL, ?4, ?5)");
            let mut acknowledge = prepare("INSERT INTO ack VALUES (?1, ?2, 1)");
            let mut set = prepare(
                "INSERT INTO state VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (agent, key) DO UPDATE SET value = excluded.value, version = excluded.version",
            );
            let mut counted = prepare("UPDATE conversation SET last = ?2, messages = ?3 WHERE id = ?1");
            for _ in 0..batch {
                seq += 1;
                let at = seq as usize % conversations;
                let agent = if seq % 2 == 0 { "ping" } else { "pong" };
                acknowledge.execute(params![seq, 1_700_000_000_000i64 + seq]).expect("a row");
                set.execute(params![agent, keys[at], &content[..4], seq]).expect("a row");
                insert.execute(params![seq, agent, keys[at], head, content]).expect("a row");
                counted.execute(params![at as i64, 1_700_000_000_000i64 + seq, seq]).expect("a row");
            }
            while seq as usize - gone >= HISTORY + STEP {
                gone += STEP;
                let up_to = [gone as i64];
                prepare("DELETE FROM message WHERE seq IN (SELECT seq FROM ack WHERE seq <= ?1)")
                    .execute(up_to)
                    .expect("old messages leave");
                prepare("DELETE FROM ack WHERE seq <= ?1").execute(up_to).expect("old acknowledgements leave");
            }
        }
        transaction.commit().expect("a commit");
    }
    seq as f64 / began.elapsed().as_secs_f64()
}

/// Writes `count` rows in a transaction each. Returns the microseconds of one.
///
/// # Panics
/// SQLite fails.
pub fn plain_single(folder: &Path, count: usize) -> f64 {
    let connection = open(folder, "single.db");
    let began = Instant::now();
    for seq in 0..count {
        connection
            .execute("INSERT INTO ack VALUES (?1, ?2, 1)", params![seq as i64, 1_700_000_000_000i64])
            .expect("a row");
    }
    began.elapsed().as_secs_f64() * 1e6 / count as f64
}
