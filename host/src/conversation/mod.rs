//! The open conversations: their participants, the states of their protocols, the questions without an answer.
//!
//! They are in memory, and written with the messages that change them. One that has nothing but a message from outside
//! is not written: a restart would lose no more than its count. Those that are silent for a while [leave memory](eviction)
//! and come back with their next message. Those that have ended are kept so that operators can look at them.

mod bindings;
mod evicted;
mod eviction;
mod sends;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::{AHashMap, RandomState};
use arc_swap::ArcSwap;
use caxton_control::conversation::{Conversation, ConversationChange, ConversationError, SpeechAct};
use caxton_control::desired;
use crossbeam_utils::CachePadded;
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use self::evicted::Evicted;
use crate::message::Envelope;
use crate::store::{ConversationReader, ConversationRow, EndedConversation, Record, on_wall, prefetch};

/// The number of shards that conversations are spread over, so that agents seldom wait for each other.
const SHARDS: usize = 16;
/// The most open conversations of one shard. Beyond that those end early that were silent for longest.
const MAX_OPEN: usize = 16_384;

pub(crate) use sends::closed_question;

/// The numbers of conversations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ConversationFigures {
    /// The number of open ones.
    pub(crate) open: u64,
    /// The number of all that had more than one message, since the store was made.
    pub(crate) written: u64,
    /// Messages of an open one, on average; none when none is open.
    pub(crate) mean_messages: Option<f64>,
    /// Messages that were refused as illegal, since the host started.
    pub(crate) illegal: u64,
}

/// The settings that hold until the declaration is applied.
const DEFAULT: desired::ConversationsSpec =
    desired::ConversationsSpec { timeout: std::time::Duration::from_secs(30 * 60), participants: 10 };

/// Returns the part of a message that matters to its conversation.
pub(crate) fn speech_act(envelope: &Envelope) -> SpeechAct<'_> {
    let message = &envelope.message;
    SpeechAct {
        from: &message.sender,
        to: &message.receiver,
        act: message.performative,
        protocol: message.protocol.as_deref(),
        id: &message.id,
        reply_with: message.reply_with.as_deref(),
        in_reply_to: message.in_reply_to.as_deref(),
        at: envelope.since,
        is_call: envelope.is_call(),
    }
}

/// The open conversations. Times in their records are of the steady clock.
pub(crate) struct Conversations {
    hasher: RandomState,
    /// The shards, each on cache lines of its own: a write to one must not slow down readers of another.
    shards: [CachePadded<Mutex<Shard>>; SHARDS],
    bounds: ArcSwap<desired::ConversationsSpec>,
    /// Reads conversations that left memory.
    reader: ConversationReader,
    /// The row of the newest one.
    rows: AtomicU64,
    /// The sequence number of the last message that is written.
    last_seq: AtomicU64,
    /// The number of transactions that wrote conversations, the one in progress included.
    writes: AtomicU64,
    /// The count in `writes` up to which all is in the database.
    written: AtomicU64,
    illegal: AtomicU64,
}

#[derive(Default)]
struct Shard {
    /// The conversations in memory, by the hash of their names, which is computed once for every message.
    open: HashTable<OpenConversation>,
    /// The hashes of those that are to be written: of as many as there are that are [`OpenConversation::dirty`].
    dirty: Vec<u64>,
    /// The open ones that are in the database alone, by the hash of their names.
    evicted: AHashMap<u64, Evicted>,
    /// The ones beyond the bound, until they are ended: some in memory, some in the database.
    surplus: (Vec<EndedConversation>, Vec<Evicted>),
    /// The bytes of the conversations in memory at the last eviction, about.
    bytes: usize,
}

struct OpenConversation {
    /// The hash of its name.
    hash: u64,
    record: Conversation,
    row: u64,
    /// The sequence number before which it has no message; 0 if that is not known.
    first_seq: u64,
    /// Set if it is in `dirty`.
    dirty: bool,
    /// Set if more than its count and time is to be written.
    changed: bool,
    /// The transaction that wrote it last, as [`Conversations::writes`] counts.
    written: u64,
}

impl OpenConversation {
    /// Ends it.
    fn end(self) -> EndedConversation {
        EndedConversation {
            row: Some(self.row).filter(|row| *row != 0),
            record: self.record,
            first_seq: self.first_seq,
        }
    }
}

impl Conversations {
    /// Loads the list of conversations that are open in the database; each is read with its next message.
    pub(crate) fn load(reader: ConversationReader) -> rusqlite::Result<Self> {
        let conversations = Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| CachePadded::default()),
            bounds: ArcSwap::from_pointee(DEFAULT),
            reader,
            rows: AtomicU64::new(0),
            last_seq: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            written: AtomicU64::new(0),
            illegal: AtomicU64::new(0),
        };
        conversations.find_evicted()?;
        Ok(conversations)
    }

    /// Returns the time without a message after which a conversation ends, in milliseconds.
    pub(crate) fn timeout(&self) -> u64 {
        u64::try_from(self.bounds.load().timeout.as_millis()).unwrap_or(u64::MAX)
    }

    /// Applies settings in place.
    pub(crate) fn configure(&self, bounds: desired::ConversationsSpec) {
        self.bounds.store(bounds.into());
    }

    /// Locks the shard of a conversation and returns it with the hash of the name. An open conversation is in memory
    /// then.
    fn shard(&self, name: &str) -> (MutexGuard<'_, Shard>, u64) {
        let hash = self.hasher.hash_one(name);
        let mut shard = self.part(hash).lock();
        // Under the lock of the shard: two callers must not read one record back twice.
        if !shard.evicted.is_empty() {
            self.restore(&mut shard, name, hash);
        }
        (shard, hash)
    }

    fn part(&self, hash: u64) -> &Mutex<Shard> {
        // Not by the bits that place it within its part.
        &self.shards[usize::try_from((hash >> 32) % SHARDS as u64).unwrap_or(0)]
    }

    /// Prefetches the record of a conversation that a message is about to change.
    pub(crate) fn prefetch(&self, name: &str) {
        let hash = self.hasher.hash_one(name);
        // The holder of the lock brings the record into the cache; waiting would cost more than a miss.
        let Some(shard) = self.part(hash).try_lock() else { return };
        for OpenConversation { hash, record, row, dirty, .. } in shard.open.iter_hash(hash) {
            for count in [hash, row, &record.last, &record.messages] {
                prefetch::value(count);
            }
            prefetch::value(&record.name);
            prefetch::value(&record.participants);
            prefetch::value(dirty);
        }
    }

    /// Takes a message that is not kept into its conversation, or refuses it.
    pub(crate) fn admit(&self, name: &str, act: &SpeechAct<'_>) -> Result<(), ConversationError> {
        self.admit_as(name, act, false).map(drop)
    }

    /// Takes a message into its conversation, or refuses it; `kept` if it outlives the host.
    fn admit_as(&self, name: &str, act: &SpeechAct<'_>, kept: bool) -> Result<ConversationChange, ConversationError> {
        let bound = usize::try_from(self.bounds.load().participants).unwrap_or(usize::MAX);
        let (mut shard, hash) = self.shard(name);
        let admitted = self
            .change(&mut shard, (name, hash), |record| record.record_reversibly(act, bound))
            .unwrap_or_else(|| self.begin(&mut shard, (name, hash), act, kept, bound));
        if admitted.is_err() {
            self.illegal.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("caxton_messages_illegal_total").increment(1);
        }
        admitted
    }

    /// Takes in the failure that the host reports in an agent's place, which is never refused. A conversation that has
    /// ended does not begin again with it.
    pub(crate) fn record_failure(&self, name: &str, act: &SpeechAct<'_>) -> ConversationChange {
        self.update(name, |record| record.record_failure(act))
    }

    /// Takes in what is never refused; nothing happens if the conversation is not open.
    fn update(&self, name: &str, change: impl FnOnce(&mut Conversation) -> ConversationChange) -> ConversationChange {
        let (mut shard, hash) = self.shard(name);
        let changed = self.change(&mut shard, (name, hash), |record| Ok(change(record)));
        changed.and_then(Result::ok).unwrap_or_default()
    }

    /// Changes a conversation that is open; none if it is not.
    fn change(
        &self,
        shard: &mut Shard,
        (name, hash): (&str, u64),
        change: impl FnOnce(&mut Conversation) -> Result<ConversationChange, ConversationError>,
    ) -> Option<Result<ConversationChange, ConversationError>> {
        let open = shard.get_mut(name, hash)?;
        let change = match change(&mut open.record) {
            Ok(change) => change,
            Err(refused) => return Some(Err(refused)),
        };
        // From the second message on it is written, and then everything is new.
        open.changed |= change.is_more || open.row == 0;
        // A row is given with the first write, since most conversations from outside never have one.
        if open.row == 0 {
            open.row = self.next_row();
        }
        // Once in the list, which has as many hashes as there are dirty records.
        if !open.dirty {
            open.dirty = true;
            shard.dirty.push(hash);
        }
        Some(Ok(change))
    }

    /// Begins a conversation with its first message.
    fn begin(
        &self,
        shard: &mut Shard,
        (name, hash): (&str, u64),
        act: &SpeechAct<'_>,
        kept: bool,
        bound: usize,
    ) -> Result<ConversationChange, ConversationError> {
        let mut record = Conversation::new(name, act.from, act.at);
        // Before the insertion: a message that is refused begins no conversation.
        let change = record.record_reversibly(act, bound)?;
        // Whom an agent began with, what it asked and how far a protocol is must be known when the answer comes, be it
        // after a restart. Names of agents have no colon.
        let written = kept && (!act.from.contains(':') || !record.runs.is_empty());
        let row = if written { self.next_row() } else { 0 };
        // Ids are made by the host and never twice: one that has the name of its first message was not there before.
        let first_seq = if act.id == name { self.last_seq.load(Ordering::Relaxed) + 1 } else { 0 };
        if written {
            shard.dirty.push(hash);
        }
        shard.insert(OpenConversation { hash, record, row, first_seq, dirty: written, changed: written, written: 0 });
        if shard.open.len() > 2 * MAX_OPEN {
            // New ones come faster than the sweep removes old ones.
            shard.evict(act.at, self.written.load(Ordering::Acquire));
        }
        Ok(change)
    }

    /// Notes that a transaction is written, and all messages up to this sequence number with it.
    fn note_written(&self, seq: u64) {
        self.last_seq.store(seq, Ordering::Relaxed);
        // Release, for the Acquire before `evict`: a record leaves memory only once its row can be read.
        self.written.store(self.writes.load(Ordering::Relaxed), Ordering::Release);
    }

    fn next_row(&self) -> u64 {
        self.rows.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the first participant of a conversation that `wanted` picks.
    pub(crate) fn find<T>(&self, name: &str, wanted: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash)?.record.participants.iter().find_map(wanted)
    }

    /// Returns the time at which an open conversation began, by the steady clock.
    pub(crate) fn first(&self, name: &str) -> Option<u64> {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash).map(|open| open.record.first)
    }

    /// Returns a copy of an open conversation.
    pub(crate) fn get(&self, name: &str) -> Option<Conversation> {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash).map(|open| open.record.clone())
    }

    /// Returns the numbers of conversations and of their messages.
    pub(crate) fn figures(&self) -> ConversationFigures {
        let (mut open, mut messages) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            // One shard at a time: the figures need not be of one moment.
            open += (shard.open.len() + shard.evicted.len()) as u64;
            messages += shard.open.iter().map(|open| open.record.messages).sum::<u64>();
            messages += shard.evicted.values().map(|evicted| evicted.messages).sum::<u64>();
        }
        ConversationFigures {
            open,
            // Those of one message have no row.
            written: self.rows.load(Ordering::Relaxed),
            mean_messages: (open > 0).then(|| messages as f64 / open as f64),
            illegal: self.illegal.load(Ordering::Relaxed),
        }
    }

    /// Ends those in which nothing was said for too long, at most so many at once, and those that were too many. Others
    /// leave memory.
    pub(crate) fn expire(&self, now: u64, most: usize) -> Vec<EndedConversation> {
        let timeout = self.timeout();
        let mut expired = Vec::new();
        let mut evicted = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            // The bound is for all shards together: each end is a commit.
            let rest = most.saturating_sub(expired.len() + evicted.len());
            evicted.extend(shard.end_evicted(now, timeout, rest));
            let most = most.saturating_sub(expired.len() + evicted.len());
            let over = shard.open.extract_if(|open| open.record.expires_at(timeout) <= now).take(most);
            expired.extend(over.map(OpenConversation::end));
            shard.evict(now, self.written.load(Ordering::Acquire));
            expired.append(&mut shard.surplus.0);
            evicted.append(&mut shard.surplus.1);
            // Dirty ones may be among those that ended, and their hashes would stay in the list.
            shard.find_dirty();
        }
        // After the locks are released: reads of the database must not hold up messages.
        expired.extend(evicted.iter().filter_map(|evicted| self.read(evicted)).map(OpenConversation::end));
        expired
    }

    /// Returns the bytes of the conversations in memory, as of the last [`expire`](Self::expire).
    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().bytes as u64).sum()
    }

    /// Adds the rows of what has changed since the last call.
    fn push_dirty(&self, record: &mut Record<'_>) {
        let written = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { open, dirty, .. } = &mut *shard;
            for hash in dirty.drain(..) {
                // Two names may share a hash: each has an entry here, so both are found in either order.
                let Some(open) = open.find_mut(hash, |open| open.dirty) else { continue };
                let shown = &*on_wall(&open.record);
                let (id, last, messages) = (open.row, shown.last, shown.messages);
                // The record may be long: it is written only if more than its count and time changed.
                if open.changed {
                    let text = serde_json::to_string(shown).expect("a record is numbers and text");
                    record.push(ConversationRow::Set {
                        id,
                        name: Cow::Owned(shown.name.clone()),
                        first: shown.first,
                        last,
                        messages,
                        record: Cow::Owned(text),
                        first_seq: open.first_seq,
                    });
                }
                record.push(ConversationRow::Activity { id, last, messages });
                (open.dirty, open.changed, open.written) = (false, false, written);
            }
        }
    }

    /// Marks all conversations as unwritten after a transaction that failed, so that the next one writes them again.
    fn mark_unwritten(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            // Which of them the transaction wrote is not recorded, and writing one again does no harm.
            for open in shard.open.iter_mut().filter(|open| open.row != 0) {
                (open.changed, open.dirty) = (true, true);
            }
            shard.find_dirty();
        }
    }
}

#[cfg(test)]
mod tests;
