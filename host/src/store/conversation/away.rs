//! The open conversations that are in the database alone: they were silent for a while, or there are too many.
//!
//! Memory has the row and the last activity of each, so that neither memory nor the time of a start grows with the
//! records of open conversations. The next message reads one back.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use caxton_control::conversation::Conversation;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{Conversations, Expired, MAX_OPEN, OpenConversation, Shard};
use crate::clock;

/// The silence in milliseconds after which a conversation leaves memory.
const QUIET: u64 = 60_000;
/// The bytes of memory that the conversations of a shard may take, by the [estimate](weight). Beyond that those leave
/// that were silent for longest.
const MAX_BYTES: usize = 4 << 20;

/// The place of a conversation that is in the database alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Away {
    row: u64,
    last: u64,
    /// The number of messages.
    pub(super) messages: u64,
    /// Set if it is as the host left it that ran before.
    is_older: bool,
}

impl Away {
    fn of(open: &OpenConversation) -> Self {
        Self { row: open.row, last: open.record.last, messages: open.record.messages, is_older: open.changed }
    }
}

/// Returns the rough size of a conversation in memory.
fn weight(record: &Conversation) -> usize {
    // Allowances for the allocations: a bound on memory needs no exact size.
    const RECORD: usize = 600;
    let questions = record.unanswered.iter().map(|left| 96 + left.key.len() + left.from.len() + left.to.len());
    let names = record.participants.iter().map(|name| 48 + name.len());
    RECORD + 3 * record.name.len() + questions.sum::<usize>() + names.sum::<usize>() + 256 * record.runs.len()
}

impl Shard {
    /// Returns one that is in memory, by its name and the hash of that.
    pub(super) fn get(&self, name: &str, hash: u64) -> Option<&OpenConversation> {
        self.open.find(hash, |open| open.record.name == name)
    }

    pub(super) fn get_mut(&mut self, name: &str, hash: u64) -> Option<&mut OpenConversation> {
        self.open.find_mut(hash, |open| open.record.name == name)
    }

    /// Adds one that is not there.
    pub(super) fn insert(&mut self, open: OpenConversation) {
        self.open.insert_unique(open.hash, open, |open| open.hash);
    }

    pub(super) fn remove(&mut self, name: &str, hash: u64) -> Option<OpenConversation> {
        let found = self.open.find_entry(hash, |open| open.record.name == name);
        found.ok().map(|entry| entry.remove().0)
    }

    /// Collects anew the hashes of those that are to be written.
    pub(super) fn find_dirty(&mut self) {
        self.dirty.clear();
        self.dirty.extend(self.open.iter().filter(|open| open.dirty).map(|open| open.hash));
    }

    /// Removes at most `most` that have timed out in the database alone.
    pub(super) fn end_away(&mut self, now: u64, timeout: u64, most: usize) -> Vec<Away> {
        let over = |away: &&Away| away.last.saturating_add(timeout) <= now;
        let over: Vec<u64> =
            self.away.iter().filter(|(_, away)| over(away)).take(most).map(|(hash, _)| *hash).collect();
        over.iter().filter_map(|hash| self.away.remove(hash)).collect()
    }

    /// Removes quiet conversations from memory, and the oldest beyond the bounds. Only those leave that transactions up
    /// to `written` have stored. Those without a row, and those beyond the bound in the database, become surplus.
    pub(super) fn let_go(&mut self, now: u64, written: u64) {
        let quiet = |open: &OpenConversation| open.row != 0 && open.record.last.saturating_add(QUIET) <= now;
        let mut bytes: usize = self.open.iter().map(|open| weight(&open.record)).sum();
        let full = |bytes, open, away| bytes > MAX_BYTES || open + away > MAX_OPEN;
        // The usual case, without sorting.
        if !full(bytes, self.open.len(), self.away.len()) && !self.open.iter().any(quiet) {
            return;
        }
        // Neither with unwritten changes nor before their transaction is over: the database has to have all of it.
        let may = |open: &OpenConversation| !open.dirty && open.written <= written;
        let mut oldest: Vec<(u64, u64)> =
            self.open.iter().filter(|open| may(open)).map(|open| (open.record.last, open.hash)).collect();
        oldest.sort_unstable();
        for (last, hash) in oldest {
            let full = full(bytes, self.open.len(), self.away.len());
            // The time is compared as well, because another conversation may have the same hash.
            let leaves = |open: &OpenConversation| may(open) && open.record.last == last && (full || quiet(open));
            let Ok(entry) = self.open.find_entry(hash, leaves) else { continue };
            let open = entry.remove().0;
            bytes = bytes.saturating_sub(weight(&open.record));
            if open.row == 0 {
                // It has one message, from outside.
                self.surplus.0.push(Expired::of(open));
            } else {
                self.away.insert(hash, Away::of(&open));
            }
        }
        self.bound_away();
    }

    /// Makes surplus of what exceeds the bound even in the database.
    fn bound_away(&mut self) {
        let surplus = (self.open.len() + self.away.len()).saturating_sub(MAX_OPEN).min(self.away.len());
        if surplus > 0 {
            let mut oldest: Vec<(u64, u64)> = self.away.iter().map(|(hash, away)| (away.last, *hash)).collect();
            oldest.sort_unstable();
            let surplus = oldest.iter().take(surplus).filter_map(|(_, hash)| self.away.remove(hash));
            self.surplus.1.extend(surplus);
        }
    }
}

impl Conversations {
    /// Finds those that are open in the database.
    pub(super) fn find_away(&self) -> rusqlite::Result<()> {
        let reader = self.reader.lock();
        let Some(reader) = reader.as_ref() else { return Ok(()) };
        // Ended ones included: a row is never given twice.
        let last: Option<i64> = reader.query_row("SELECT max(id) FROM conversation", [], |row| row.get(0))?;
        self.rows.store(last.unwrap_or(0).cast_unsigned(), Ordering::Relaxed);
        let mut statement = reader.prepare(
            "SELECT id, name, activity.last, activity.messages FROM conversation
             JOIN activity ON activity.conversation = id WHERE ended IS NULL",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let away = Away { row: number(0)?, last: number(2)?, messages: number(3)?, is_older: true };
            let hash = self.hasher.hash_one(row.get_ref(1)?.as_str()?);
            self.part(hash).lock().away.insert(hash, away);
        }
        Ok(())
    }

    /// Reads a conversation back into memory if it is in the database alone.
    pub(super) fn bring_back(&self, shard: &mut Shard, name: &str, hash: u64) {
        let Some(away) = shard.away.get(&hash) else { return };
        // The name is compared, because another conversation may have the same hash.
        if let Some(open) = self.read(away).filter(|open| open.record.name == name) {
            shard.away.remove(&hash);
            shard.insert(open);
        }
    }

    /// Reads a conversation that is in the database alone; `None` if it cannot be read.
    pub(super) fn read(&self, away: &Away) -> Option<OpenConversation> {
        let read = |reader: &Connection| {
            let sql = "SELECT record, began FROM conversation WHERE id = ?1 AND ended IS NULL";
            let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
            reader.prepare_cached(sql)?.query_row([away.row.cast_signed()], read).optional()
        };
        let (text, began) = match read(self.reader.lock().as_ref()?) {
            Ok(found) => found?,
            Err(error) => {
                tracing::error!(%error, row = away.row, "a conversation cannot be read: what is said in it begins anew");
                return None;
            }
        };
        // None if this version cannot read the record.
        let mut record: Conversation = serde_json::from_str(&text).ok()?;
        (record.first, record.last, record.messages) = (clock::from_wall(record.first), away.last, away.messages);
        record.bindings.iter_mut().for_each(|stay| stay.until = clock::from_wall(stay.until));
        // The callers of the process before are gone: nothing will answer or ask for them.
        if away.is_older {
            record.drop_calls();
        }
        let (hash, row, began) = (self.hasher.hash_one(&record.name), away.row, began.cast_unsigned());
        // What was lost is written with what is said next.
        Some(OpenConversation { hash, record, row, began, dirty: false, changed: away.is_older, written: 0 })
    }

    /// Returns at most `limit` open conversations with the latest activity first; only those of `participant`, if one
    /// is given.
    pub(crate) fn list(&self, participant: Option<&str>, limit: usize) -> Vec<Conversation> {
        let takes_part = |record: &Conversation| participant.is_none_or(|name| record.participants.contains(name));
        // Of one tick of the clock that which began last.
        let newest = |open: &OpenConversation| Reverse((open.record.last, open.row));
        let (mut found, mut away) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let shard = shard.lock();
            let mut own: Vec<&OpenConversation> = shard.open.iter().filter(|open| takes_part(&open.record)).collect();
            own.sort_unstable_by_key(|open| newest(open));
            // Only those that may be shown are copied: records are long, and the shard is locked.
            found.extend(own.into_iter().take(limit).map(|open| (newest(open), open.record.clone())));
            away.extend(shard.away.values().copied());
        }
        found.sort_unstable_by_key(|(newest, _)| *newest);
        away.sort_unstable_by_key(|away| Reverse((away.last, away.row)));
        let beaten = found.get(limit.saturating_sub(1)).map_or(0, |(_, record)| record.last);
        // Only as far as they can be among the newest: each one costs a read of the database.
        let away = away.iter().take_while(|away| away.last >= beaten).filter_map(|away| self.read(away));
        found.extend(away.filter(|open| takes_part(&open.record)).take(limit).map(|open| (newest(&open), open.record)));
        found.sort_unstable_by_key(|(newest, _)| *newest);
        found.truncate(limit);
        found.into_iter().map(|(_, record)| record).collect()
    }
}
