//! The state of the writer that it need not ask the database for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::{AHashMap, AHashSet};
use rusqlite::{Connection, OptionalExtension};

use crate::budgets::{TreeRecord, TreeState};
use crate::store::gate::CommitGate;
use crate::store::record::{OtherRow, Record, RecordBuffers, StateRow, TreeRow};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::tables::timers::{TimerChange, TimerCounts};
use crate::store::tables::trees;
use crate::store::writer::apply::Tables;
use crate::store::writer::history::History;
use crate::store::writer::keys::KeyCache;

/// The state of the writer that it need not ask the database for.
pub(in crate::store) struct WriterState {
    /// The sequence number of the last message.
    pub(in crate::store) seq: u64,
    /// The version that the last write of state has; shared with the callers of `Store::next_version`.
    pub(in crate::store) version: Arc<AtomicU64>,
    /// Set if messages are kept: not when the data is to live as long as the host.
    pub(in crate::store) keeps_messages: bool,
    /// The handled messages, until they leave.
    pub(in crate::store) history: History,
    /// The judge of what commits say.
    pub(in crate::store) gate: Arc<dyn CommitGate>,
    /// Messages that wait for their time.
    pub(in crate::store) timers: Arc<TimerCounts>,
    /// The changes of the transaction to their counts, in order.
    pub(in crate::store) timer_changes: Vec<TimerChange>,
    /// Bytes of the agents' states, as far as they were asked for.
    pub(in crate::store) sizes: AHashMap<Arc<str>, i64>,
    /// Agents whose state has another size than the database says.
    pub(in crate::store) resized: AHashSet<Arc<str>>,
    /// Versions and lengths of keys that were written lately, as the transaction has them.
    pub(in crate::store) keys: KeyCache,
    /// The trees whose rows the transaction writes at its end, each once.
    trees: AHashMap<Arc<str>, Arc<TreeState>>,
    /// The rows of trees that were written since some were removed.
    tree_rows: usize,
    /// The last event's id.
    pub(in crate::store) event: i64,
    /// The memory of the next record.
    buffers: RecordBuffers,
    /// The time at which the transaction began, in milliseconds since 1970.
    pub(in crate::store) now: u64,
    /// The encoded records, once a test asks for them.
    #[cfg(test)]
    pub(in crate::store) captured: Option<Captured>,
}

/// The encoded records of a test.
#[cfg(test)]
#[derive(Default)]
pub(in crate::store) struct Captured {
    in_transaction: Vec<Vec<u8>>,
    /// The records of transactions that were written.
    pub(in crate::store) kept: Vec<Vec<u8>>,
}

impl WriterState {
    /// Loads what the database has.
    pub(in crate::store) fn load(
        connection: &Connection,
        keeps_messages: bool,
        history: History,
        (gate, timers): (Arc<dyn CommitGate>, Arc<TimerCounts>),
    ) -> rusqlite::Result<Self> {
        let meta = |key: &str| -> rusqlite::Result<u64> {
            let sql = "SELECT value FROM meta WHERE key = ?1";
            Ok(connection.query_row(sql, [key], |row| row.get::<_, i64>(0)).optional()?.unwrap_or(0).cast_unsigned())
        };
        let seq = meta("seq")?;
        // Ids are never used twice, also after the newest event was removed.
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'event'";
        let event = connection.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0);
        gate.written(seq);
        Ok(Self {
            seq,
            version: Arc::new(AtomicU64::new(meta("version")?)),
            keeps_messages,
            history,
            gate,
            timers,
            timer_changes: Vec::new(),
            sizes: AHashMap::new(),
            resized: AHashSet::new(),
            keys: KeyCache::default(),
            trees: AHashMap::new(),
            tree_rows: 0,
            event,
            buffers: RecordBuffers::default(),
            now: 0,
            #[cfg(test)]
            captured: None,
        })
    }

    /// Returns the next sequence number of a message.
    pub(in crate::store) fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Has the row of a tree written at the end of the transaction.
    pub(in crate::store) fn touch_tree(&mut self, tree: &Arc<TreeState>) {
        self.trees.insert(Arc::clone(tree.id()), Arc::clone(tree));
    }

    /// Returns an empty record, in the memory of the one before.
    pub(in crate::store) fn new_record<'a>(&mut self) -> Record<'a> {
        Record::new(std::mem::take(&mut self.buffers))
    }

    /// Applies a record.
    pub(in crate::store) fn apply(&mut self, tables: &mut Tables<'_>, record: Record<'_>) -> rusqlite::Result<()> {
        let applied = tables.apply(&record);
        #[cfg(test)]
        if let Some(captured) = &mut self.captured {
            captured.in_transaction.push(crate::store::record::wire::encode(&record));
        }
        // Also after an error: the allocation is worth keeping.
        self.buffers = record.into_buffers();
        applied
    }

    /// Writes what was counted and what leaves, at the end of a transaction.
    pub(in crate::store) fn finish(
        &mut self,
        reader: TableReader<'_>,
        tables: &mut Tables<'_>,
    ) -> rusqlite::Result<()> {
        let mut record = self.new_record();
        // In the same transaction: no row may have a number beyond the stored counter, which would be given twice.
        record.push(OtherRow::Counters { seq: self.seq, version: self.version.load(Ordering::SeqCst) });
        let touched = std::mem::take(&mut self.trees).into_values();
        let trees: Vec<TreeRecord> = touched.map(|tree| tree.record()).collect();
        trees.iter().for_each(|tree| trees::push_tree(&mut record, tree, self.now));
        self.tree_rows += trees.len();
        if self.tree_rows >= trees::SWEEP {
            self.tree_rows = 0;
            trees::push_sweep(&mut record, self.now);
        }
        let resized = std::mem::take(&mut self.resized);
        for agent in &resized {
            let bytes = self.sizes.get(agent).copied().unwrap_or(0);
            record.push(StateRow::Size { agent, bytes });
        }
        self.gate.push_changed(&mut record);
        // Last, as it counts what the commits of this transaction handled.
        self.history.prune(reader, &mut record)?;
        if let Some(up_to) = self.history.left_up_to() {
            record.push(TreeRow::Unlinked { up_to });
        }
        self.apply(tables, record)
    }

    /// Notes that the transaction is written.
    pub(in crate::store) fn written(&mut self) {
        self.gate.written(self.seq);
        self.history.written();
        // Not before the commit: agents act on these counts.
        self.timers.apply(&mut self.timer_changes);
        #[cfg(test)]
        if let Some(captured) = &mut self.captured {
            captured.kept.append(&mut captured.in_transaction);
        }
    }

    /// Forgets what a transaction has not kept.
    pub(in crate::store) fn undo(&mut self, (seq, event): (u64, i64)) {
        (self.seq, self.event) = (seq, event);
        self.history.undo();
        // The caches have what the transaction did, mixed with what was there before: all of it is loaded again.
        self.sizes.clear();
        self.resized.clear();
        self.keys.clear();
        self.timer_changes.clear();
        self.trees.clear();
        self.gate.not_written();
        #[cfg(test)]
        if let Some(captured) = &mut self.captured {
            captured.in_transaction.clear();
        }
    }

    pub(in crate::store) fn size(&mut self, reader: TableReader<'_>, agent: &Arc<str>) -> rusqlite::Result<i64> {
        // Only the writer changes sizes, so a size that it has read stays right.
        if let Some(size) = self.sizes.get(agent) {
            return Ok(*size);
        }
        let mut statement = reader.prepare("SELECT bytes FROM state_size WHERE agent = ?1")?;
        let size = statement.query_row([&**agent], |row| row.get(0)).optional()?.unwrap_or(0);
        self.sizes.insert(Arc::clone(agent), size);
        Ok(size)
    }
}
