//! The number and the bytes of the dead letters.

use std::collections::BTreeMap;

use crate::store::record::{DeadRow, Record};
use crate::store::retention::Left;
use crate::store::sqlite::table_reader::TableReader;
use crate::store::sqlite::whole::CONTENT_LENGTH;

/// The bytes of a message beside its content, about: its head, and its places in indices.
pub(super) const ROW: u64 = 512;
/// The dead letters that are measured, or leave for their bytes, in one transaction.
const AT_ONCE: u64 = 1_000;

/// The number and the bytes of the dead letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct BuriedLetters {
    pub(super) count: u64,
    /// The bytes of those from `measured_from` on.
    pub(super) bytes: u64,
    /// The lowest sequence number whose letter is in `bytes`; `i64::MIN` if all are.
    measured_from: i64,
    /// The dead letters that the transaction in progress added.
    buried: u64,
}

/// Returns the bytes of a row of `dead`, as SQL.
fn length() -> String {
    format!("{CONTENT_LENGTH} + octet_length(error) + octet_length(attempts) + {ROW}")
}

impl BuriedLetters {
    /// Returns the count of dead letters of which nothing else is known.
    pub(super) fn unmeasured(count: u64) -> Self {
        let measured_from = if count > 0 { i64::MAX } else { i64::MIN };
        Self { count, bytes: 0, measured_from, buried: 0 }
    }

    /// Begins a transaction.
    pub(super) fn begin(&mut self) {
        self.buried = 0;
    }

    /// Counts a dead letter that is added.
    pub(super) fn add(&mut self, seq: u64, bytes: u64) {
        self.count += 1;
        self.buried += 1;
        // It has the number of its message, which may be lower than what is measured so far.
        if seq.cast_signed() >= self.measured_from {
            self.bytes += bytes;
        }
    }

    /// Counts dead letters that were taken out.
    pub(super) fn take_out(&mut self, count: u64) {
        if count > 0 {
            // Their sizes are not known here: the rest is measured again when the bound may be reached.
            *self = Self { buried: self.buried, ..Self::unmeasured(self.count.saturating_sub(count)) };
        }
    }

    /// Measures the newest of the dead letters that are not measured yet, some in a transaction, as others wait for it.
    pub(super) fn measure(&mut self, reader: TableReader<'_>) -> rusqlite::Result<()> {
        if self.measured_from == i64::MIN {
            return Ok(());
        }
        let sql = format!("SELECT seq, {} FROM dead WHERE seq < ?1 ORDER BY seq DESC LIMIT {AT_ONCE}", length());
        let mut statement = reader.prepare(&sql)?;
        let mut rows = statement.query([self.measured_from])?;
        let mut found = 0;
        while let Some(row) = rows.next()? {
            self.measured_from = row.get(0)?;
            self.bytes += row.get::<_, i64>(1)?.cast_unsigned();
            found += 1;
        }
        if found < AT_ONCE {
            self.measured_from = i64::MIN;
        }
        Ok(())
    }

    /// Adds to a record the oldest dead letters beyond the bounds of their number and bytes, and to `forgotten` what has
    /// left of each agent. For their bytes no more than `step` leave beside what was added.
    pub(super) fn prune(
        &mut self,
        reader: TableReader<'_>,
        record: &mut Record<'_>,
        (keep, most): (u64, u64),
        step: u64,
        forgotten: &mut BTreeMap<String, Left>,
    ) -> rusqlite::Result<()> {
        // No more than were added: after the bound was lowered one transaction must not remove thousands.
        let surplus = self.count.saturating_sub(keep).min(std::mem::take(&mut self.buried));
        if surplus == 0 && self.bytes <= most {
            return Ok(());
        }
        let limit = surplus.max(AT_ONCE).cast_signed();
        let mut oldest = reader.prepare(&format!("SELECT seq, agent, {} FROM dead ORDER BY seq LIMIT ?1", length()))?;
        let mut rows = oldest.query([limit])?;
        let mut gone = Left::default();
        while let Some(row) = rows.next()? {
            // The newest stays, however large it is.
            let is_large = self.bytes > most && self.count > 1 && gone.bytes < step;
            if gone.count >= surplus && !is_large {
                break;
            }
            let (seq, bytes) = (row.get::<_, i64>(0)?, row.get::<_, i64>(2)?.cast_unsigned());
            record.push(DeadRow::Removed { seq: seq.cast_unsigned() });
            self.count = self.count.saturating_sub(1);
            if seq >= self.measured_from {
                self.bytes = self.bytes.saturating_sub(bytes);
            }
            let one = Left { count: 1, bytes };
            gone = gone.and(one);
            let of_agent = forgotten.entry(row.get(1)?).or_default();
            *of_agent = of_agent.and(one);
        }
        Ok(())
    }
}
