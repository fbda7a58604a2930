//! The open conversations that are in the database alone: they were silent for a while, or there are too many.
//!
//! Memory has the row and the last activity of each, so that neither memory nor the time of a start grows with the
//! records of open conversations. The next message reads one back.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;

use caxton_control::conversation::Conversation;

use super::evicted::Evicted;
use super::{Conversations, MAX_OPEN, OpenConversation, Shard};
use crate::clock;
use crate::store::ListedConversation;

/// The silence in milliseconds after which a conversation leaves memory.
const QUIET: u64 = 60_000;
/// The bytes of memory that the conversations of a shard may take, by the [estimate](weight). Beyond that those leave
/// that were silent for longest.
const MAX_BYTES: usize = 4 << 20;

/// Returns the place of a conversation that leaves memory.
fn evicted(open: &OpenConversation) -> Evicted {
    Evicted { row: open.row, last: open.record.last, messages: open.record.messages, is_older: open.changed }
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
    pub(super) fn end_evicted(&mut self, now: u64, timeout: u64, most: usize) -> Vec<Evicted> {
        let over = |evicted: &&Evicted| evicted.last.saturating_add(timeout) <= now;
        let over: Vec<u64> =
            self.evicted.iter().filter(|(_, evicted)| over(evicted)).take(most).map(|(hash, _)| *hash).collect();
        over.iter().filter_map(|hash| self.evicted.remove(hash)).collect()
    }

    /// Removes quiet conversations from memory, and the oldest beyond the bounds. Only those leave that transactions up
    /// to `written` have stored. Those without a row, and those beyond the bound in the database, become surplus.
    pub(super) fn evict(&mut self, now: u64, written: u64) {
        let quiet = |open: &OpenConversation| open.row != 0 && open.record.last.saturating_add(QUIET) <= now;
        let mut bytes: usize = self.open.iter().map(|open| weight(&open.record)).sum();
        self.bytes = bytes;
        let full = |bytes, open, evicted| bytes > MAX_BYTES || open + evicted > MAX_OPEN;
        // The usual case, without sorting.
        if !full(bytes, self.open.len(), self.evicted.len()) && !self.open.iter().any(quiet) {
            return;
        }
        // Neither with unwritten changes nor before their transaction is over: the database has to have all of it.
        let may = |open: &OpenConversation| !open.dirty && open.written <= written;
        let mut oldest: Vec<(u64, u64)> =
            self.open.iter().filter(|open| may(open)).map(|open| (open.record.last, open.hash)).collect();
        oldest.sort_unstable();
        for (last, hash) in oldest {
            let full = full(bytes, self.open.len(), self.evicted.len());
            // The time is compared as well, because another conversation may have the same hash.
            let leaves = |open: &OpenConversation| may(open) && open.record.last == last && (full || quiet(open));
            let Ok(entry) = self.open.find_entry(hash, leaves) else { continue };
            let open = entry.remove().0;
            bytes = bytes.saturating_sub(weight(&open.record));
            if open.row == 0 {
                // It has one message, from outside.
                self.surplus.0.push(open.end());
            } else {
                self.evicted.insert(hash, evicted(&open));
            }
        }
        self.bytes = bytes;
        self.bound_evicted();
    }

    /// Makes surplus of what exceeds the bound even in the database.
    fn bound_evicted(&mut self) {
        let surplus = (self.open.len() + self.evicted.len()).saturating_sub(MAX_OPEN).min(self.evicted.len());
        if surplus > 0 {
            let mut oldest: Vec<(u64, u64)> =
                self.evicted.iter().map(|(hash, evicted)| (evicted.last, *hash)).collect();
            oldest.sort_unstable();
            let surplus = oldest.iter().take(surplus).filter_map(|(_, hash)| self.evicted.remove(hash));
            self.surplus.1.extend(surplus);
        }
    }
}

impl Conversations {
    /// Finds those that are open in the database.
    pub(super) fn find_evicted(&self) -> rusqlite::Result<()> {
        self.rows.store(self.reader.last_row()?, Ordering::Relaxed);
        self.reader.open(|listed| {
            let ListedConversation { row, name, last, messages } = listed;
            let hash = self.hasher.hash_one(name);
            self.part(hash).lock().evicted.insert(hash, Evicted { row, last, messages, is_older: true });
        })
    }

    /// Reads a conversation back into memory if it is in the database alone.
    pub(super) fn restore(&self, shard: &mut Shard, name: &str, hash: u64) {
        let Some(evicted) = shard.evicted.get(&hash) else { return };
        // The name is compared, because another conversation may have the same hash.
        if let Some(open) = self.read(evicted).filter(|open| open.record.name == name) {
            shard.evicted.remove(&hash);
            shard.insert(open);
        }
    }

    /// Reads a conversation that is in the database alone; `None` if it cannot be read.
    pub(super) fn read(&self, evicted: &Evicted) -> Option<OpenConversation> {
        let (text, first_seq) = match self.reader.read(evicted.row) {
            Ok(found) => found?,
            Err(error) => {
                tracing::error!(%error, row = evicted.row, "a conversation cannot be read: what is said in it begins anew");
                return None;
            }
        };
        // None if this version cannot read the record.
        let mut record: Conversation = serde_json::from_str(&text).ok()?;
        (record.first, record.last, record.messages) = (clock::from_wall(record.first), evicted.last, evicted.messages);
        record.bindings.iter_mut().for_each(|binding| binding.until = clock::from_wall(binding.until));
        // The callers of the process before are gone: nothing will answer or ask for them.
        if evicted.is_older {
            record.drop_calls();
        }
        let (hash, row, first_seq) = (self.hasher.hash_one(&record.name), evicted.row, first_seq);
        // What was lost is written with what is said next.
        Some(OpenConversation { hash, record, row, first_seq, dirty: false, changed: evicted.is_older, written: 0 })
    }

    /// Returns at most `limit` open conversations with the latest activity first; only those of `participant`, if one
    /// is given.
    pub(crate) fn list(&self, participant: Option<&str>, limit: usize) -> Vec<Conversation> {
        let takes_part = |record: &Conversation| participant.is_none_or(|name| record.participants.contains(name));
        // Of one tick of the clock that which began last.
        let newest = |open: &OpenConversation| Reverse((open.record.last, open.row));
        let (mut found, mut evicted) = (Vec::new(), Vec::new());
        for shard in &self.shards {
            let shard = shard.lock();
            let mut own: Vec<&OpenConversation> = shard.open.iter().filter(|open| takes_part(&open.record)).collect();
            own.sort_unstable_by_key(|open| newest(open));
            // Only those that may be shown are copied: records are long, and the shard is locked.
            found.extend(own.into_iter().take(limit).map(|open| (newest(open), open.record.clone())));
            evicted.extend(shard.evicted.values().copied());
        }
        found.sort_unstable_by_key(|(newest, _)| *newest);
        evicted.sort_unstable_by_key(|evicted| Reverse((evicted.last, evicted.row)));
        let beaten = found.get(limit.saturating_sub(1)).map_or(0, |(_, record)| record.last);
        // Only as far as they can be among the newest: each one costs a read of the database.
        let evicted =
            evicted.iter().take_while(|evicted| evicted.last >= beaten).filter_map(|evicted| self.read(evicted));
        found.extend(
            evicted.filter(|open| takes_part(&open.record)).take(limit).map(|open| (newest(&open), open.record)),
        );
        found.sort_unstable_by_key(|(newest, _)| *newest);
        found.truncate(limit);
        found.into_iter().map(|(_, record)| record).collect()
    }
}
