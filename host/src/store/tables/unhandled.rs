//! Finds the messages of an agent that are neither handled nor given up, for comparison with its mailbox.

use rusqlite::{OptionalExtension, params};

use crate::store::handles::QueueTable;

impl QueueTable<'_> {
    /// Returns the sequence number of the last message that was accepted.
    pub(crate) fn last_seq(self) -> Result<u64, String> {
        self.0.with_reader(|connection| {
            let mut meta = connection.prepare_cached("SELECT value FROM meta WHERE key = 'seq'")?;
            let seq = meta.query_row([], |row| row.get::<_, i64>(0)).optional()?;
            Ok(seq.unwrap_or(0).cast_unsigned())
        })
    }

    /// The sequence numbers of an agent's messages after this one that are neither handled nor given up, so many at most.
    /// Reads what was accepted since, handled messages included as long as they are kept, and keeps no writer waiting.
    pub(crate) fn unhandled_after(self, agent: &str, seq: u64, most: usize) -> Result<Vec<u64>, String> {
        self.0.with_reader(|connection| {
            let mut unhandled = connection.prepare_cached(
                "SELECT seq FROM message AS m WHERE seq > ?1 AND agent = ?2
                 AND NOT EXISTS (SELECT 1 FROM ack WHERE ack.seq = m.seq) LIMIT ?3",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let rows = unhandled.query_map(params![seq.cast_signed(), agent, most], |row| row.get::<_, i64>(0))?;
            rows.map(|seq| seq.map(i64::cast_unsigned)).collect()
        })
    }

    /// Returns those of these messages that are neither handled nor given up.
    pub(crate) fn still_unhandled(self, seqs: &[u64]) -> Result<Vec<u64>, String> {
        self.0.with_reader(|connection| {
            let mut handled = connection.prepare_cached("SELECT 1 FROM ack WHERE seq = ?1")?;
            let mut left = Vec::new();
            for seq in seqs {
                if !handled.exists([seq.cast_signed()])? {
                    left.push(*seq);
                }
            }
            Ok(left)
        })
    }
}
