//! What the writer knows without asking the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::{AHashMap, AHashSet};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, params};

use super::conversation::Conversations;
use super::history::History;
use super::keys::KeyCache;
use super::row;
use super::timer::{Counted, Timers};
use crate::clock;
use crate::wasm::{Envelope, rank};

/// What the writer knows without asking the database.
pub(super) struct Counters {
    /// The last message's place.
    pub(super) seq: u64,
    /// The version that the last write of state has; shared with those who take the next.
    pub(super) version: Arc<AtomicU64>,
    /// Whether messages are kept: not when the data is to live as long as the host.
    pub(super) keeps_messages: bool,
    /// Handled messages, until they leave.
    pub(super) history: History,
    /// Conversations that are open.
    pub(super) conversations: Arc<Conversations>,
    /// Messages that wait for their time.
    pub(super) timers: Arc<Timers>,
    /// The changes of the transaction to their counts, in order.
    pub(super) counted: Vec<Counted>,
    /// Bytes of the agents' states, as far as they were asked for.
    pub(super) sizes: AHashMap<Arc<str>, i64>,
    /// Agents whose state has another size than the database says.
    pub(super) resized: AHashSet<Arc<str>>,
    /// Versions and lengths of keys that were written lately, as the transaction has them.
    pub(super) keys: KeyCache,
    /// Where heads are encoded.
    pub(super) buffer: Vec<u8>,
    /// When the transaction began, in milliseconds since 1970.
    pub(super) now: u64,
}

impl Counters {
    /// As the database has them.
    pub(super) fn load(
        connection: &Connection,
        keeps_messages: bool,
        history: History,
        (conversations, timers): (Arc<Conversations>, Arc<Timers>),
    ) -> rusqlite::Result<Self> {
        let meta = |key: &str| -> rusqlite::Result<u64> {
            let sql = "SELECT value FROM meta WHERE key = ?1";
            Ok(connection.query_row(sql, [key], |row| row.get::<_, i64>(0)).optional()?.unwrap_or(0).cast_unsigned())
        };
        let seq = meta("seq")?;
        conversations.safe_up_to(seq);
        Ok(Self {
            seq,
            version: Arc::new(AtomicU64::new(meta("version")?)),
            keeps_messages,
            history,
            conversations,
            timers,
            counted: Vec::new(),
            sizes: AHashMap::new(),
            resized: AHashSet::new(),
            keys: KeyCache::default(),
            buffer: Vec::new(),
            now: 0,
        })
    }

    /// The next message's place.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Keeps a message. Its envelope says where from then on.
    pub(super) fn insert(&mut self, insert: &mut CachedStatement<'_>, envelope: &mut Envelope) -> rusqlite::Result<()> {
        let seq = self.next_seq();
        row::encode(envelope, &mut self.buffer);
        let message = &envelope.message;
        let receipt = row::receipt(message);
        // A wait is kept as a time of the wall clock, so that it goes on after a restart.
        let due = envelope.due.map(|due| envelope.due_at.unwrap_or_else(|| clock::to_wall(due)));
        insert.execute(params![
            seq.cast_signed(),
            message.receiver,
            message.conversation_id,
            rank(message.priority) as i64,
            due.map(u64::cast_signed),
            receipt,
            self.buffer,
            message.content,
            envelope.revived,
        ])?;
        envelope.seq = Some(seq);
        Ok(())
    }

    /// Writes what was counted, at the end of a transaction.
    pub(super) fn finish(&mut self, transaction: &Transaction<'_>, seq_before: u64) -> rusqlite::Result<()> {
        let mut meta = transaction.prepare_cached("UPDATE meta SET value = ?2 WHERE key = ?1 AND value <> ?2")?;
        meta.execute(params!["version", self.version.load(Ordering::SeqCst).cast_signed()])?;
        if self.seq != seq_before {
            meta.execute(params!["seq", self.seq.cast_signed()])?;
        }
        let mut sizes = transaction.prepare_cached(
            "INSERT INTO state_size (agent, bytes) VALUES (?1, ?2)
             ON CONFLICT (agent) DO UPDATE SET bytes = excluded.bytes",
        )?;
        for agent in self.resized.drain() {
            sizes.execute(params![&*agent, self.sizes.get(&agent).copied().unwrap_or(0)])?;
        }
        self.conversations.write(transaction)?;
        self.history.prune(transaction)
    }

    /// Forgets what a transaction has not kept.
    pub(super) fn undo(&mut self, seq_before: u64) {
        self.seq = seq_before;
        self.history.undo();
        self.sizes.clear();
        self.resized.clear();
        self.keys.clear();
        self.counted.clear();
        self.conversations.undo();
    }

    pub(super) fn size(&mut self, transaction: &Transaction<'_>, agent: &Arc<str>) -> rusqlite::Result<i64> {
        if let Some(size) = self.sizes.get(agent) {
            return Ok(*size);
        }
        let mut statement = transaction.prepare_cached("SELECT bytes FROM state_size WHERE agent = ?1")?;
        let size = statement.query_row([&**agent], |row| row.get(0)).optional()?.unwrap_or(0);
        self.sizes.insert(Arc::clone(agent), size);
        Ok(size)
    }
}
