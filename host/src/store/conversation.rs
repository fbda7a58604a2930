//! Conversations that are open: who takes part, how far their protocols are, what waits for an answer.
//!
//! They are in memory, and written with the messages that change them. One that has nothing but a message from outside
//! is not written: a restart would lose no more than its count. Those that have ended are kept for a look at them.

mod ended;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::{AHashMap, RandomState};
use arc_swap::ArcSwap;
use caxton_control::conversation::{Change, Conversation, Refused, Said};
use caxton_control::desired;
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, params};

use super::commit::Commit;
use crate::wasm::{Envelope, Sent, act};

/// Conversations are spread over so many parts, so that agents seldom wait for one another.
const SHARDS: usize = 16;
/// Open conversations of one part; beyond that the oldest end before their time.
const MAX_OPEN: usize = 16_384;
/// Names of conversations that have ended which may be among those in order of age.
const SLACK: usize = 1_024;

pub(super) use ended::write_end;

/// How many conversations there are.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub(crate) struct ConversationFigures {
    /// Those that are open.
    pub(crate) open: u64,
    /// All that ever had more than one message, since the store was made.
    pub(crate) written: u64,
    /// Messages of an open one, on average; none when none is open.
    pub(crate) mean_messages: Option<f64>,
    /// Messages that were refused as illegal, since the host started.
    pub(crate) illegal: u64,
}

/// What holds until the declaration is applied.
const DEFAULT: desired::Conversations =
    desired::Conversations { timeout: std::time::Duration::from_secs(30 * 60), participants: 10 };

/// What matters of a message to its conversation.
pub(crate) fn said(envelope: &Envelope) -> Said<'_> {
    let message = &envelope.message;
    Said {
        from: &message.sender,
        to: &message.receiver,
        act: act(message.performative),
        protocol: message.protocol.as_deref(),
        id: &message.id,
        reply_with: message.reply_with.as_deref(),
        in_reply_to: message.in_reply_to.as_deref(),
        at: message.sent_at,
    }
}

/// All open conversations.
pub(crate) struct Conversations {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    bounds: ArcSwap<desired::Conversations>,
    /// The last one's row.
    rows: AtomicU64,
    /// The last message's place that is safe.
    place: AtomicU64,
    illegal: AtomicU64,
}

#[derive(Default)]
struct Shard {
    open: AHashMap<Box<str>, Open>,
    /// The oldest first, with some that have ended.
    order: VecDeque<Box<str>>,
    /// What is to be written.
    dirty: Vec<Box<str>>,
    /// Those that were too many, until they are ended.
    surplus: Vec<Expired>,
}

struct Open {
    record: Conversation,
    row: u64,
    /// No message of it has a place before this one; 0 if that is not known.
    began: u64,
    /// Whether it is in `dirty`.
    dirty: bool,
    /// Whether more than its count and time is to be written.
    changed: bool,
}

/// A conversation that ended, as it was then.
#[derive(Debug)]
pub(crate) struct Expired {
    /// Its row; none when it was never written.
    pub(crate) row: Option<u64>,
    /// What was known of it.
    pub(crate) record: Conversation,
    /// No message of it has a place before this one; 0 if that is not known.
    began: u64,
}

impl Expired {
    fn of(open: Open) -> Self {
        Self { row: Some(open.row).filter(|row| *row != 0), record: open.record, began: open.began }
    }
}

impl Conversations {
    /// Those that the database has open.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let conversations = Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            bounds: ArcSwap::from_pointee(DEFAULT),
            rows: AtomicU64::new(0),
            place: AtomicU64::new(0),
            illegal: AtomicU64::new(0),
        };
        let last: Option<i64> = connection.query_row("SELECT max(id) FROM conversation", [], |row| row.get(0))?;
        conversations.rows.store(last.unwrap_or(0).cast_unsigned(), Ordering::Relaxed);
        let mut statement = connection.prepare(
            "SELECT id, activity.last, activity.messages, record, began FROM conversation
             JOIN activity ON activity.conversation = id WHERE ended IS NULL ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(3)?;
            let Ok(mut record) = serde_json::from_str::<Conversation>(&text) else { continue };
            record.last = row.get::<_, i64>(1)?.cast_unsigned();
            record.messages = row.get::<_, i64>(2)?.cast_unsigned();
            let began = row.get::<_, i64>(4)?.cast_unsigned();
            let row = row.get::<_, i64>(0)?.cast_unsigned();
            let name: Box<str> = record.name.as_str().into();
            let mut shard = conversations.shard(&name).lock();
            shard.order.push_back(name.clone());
            shard.open.insert(name, Open { record, row, began, dirty: false, changed: false });
        }
        Ok(conversations)
    }

    /// Applies settings in place.
    pub(crate) fn configure(&self, bounds: desired::Conversations) {
        self.bounds.store(bounds.into());
    }

    fn shard(&self, name: &str) -> &Mutex<Shard> {
        let hash = usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).unwrap_or(0);
        &self.shards[hash]
    }

    /// Takes a message that is not kept into its conversation, or refuses it.
    pub(crate) fn judge(&self, name: &str, said: &Said<'_>) -> Result<(), Refused> {
        self.take(name, said, false).map(drop)
    }

    /// Takes a message into its conversation, or refuses it; `kept` if it outlives the host.
    fn take(&self, name: &str, said: &Said<'_>, kept: bool) -> Result<Change, Refused> {
        let bound = usize::try_from(self.bounds.load().participants).unwrap_or(usize::MAX);
        let mut shard = self.shard(name).lock();
        let judged = match shard.open.contains_key(name) {
            true => self.change(&mut shard, name, |record| record.judge_noting(said, bound)),
            false => self.begin(&mut shard, name, said, kept, bound),
        };
        if judged.is_err() {
            self.illegal.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("caxton_messages_illegal_total").increment(1);
        }
        judged
    }

    /// Takes what is sent into its conversation; gives what to [take back](Self::take_back) if it is not kept. What an
    /// agent sent and is not legal there becomes its answer, `not-understood`.
    ///
    /// # Errors
    /// It came from outside, where nobody waits for a message.
    pub(crate) fn judge_sent(&self, sent: &mut Sent) -> Result<Change, String> {
        let envelope = sent.envelope();
        let (name, said) = (&envelope.message.conversation_id, said(envelope));
        if sent.is_hosts() {
            return Ok(self.told(name, &said));
        }
        let refused = match self.take(name, &said, true) {
            Ok(change) => return Ok(change),
            Err(refused) => refused,
        };
        let why = refused.to_string();
        if !sent.refuse(&why) {
            return Err(why);
        }
        Ok(self.told_refusal(sent.envelope()))
    }

    /// Takes back what a commit sends that is not kept.
    pub(super) fn forget(&self, commit: &mut Commit) {
        let changes = std::mem::take(&mut commit.changes);
        for (sent, change) in commit.sends.iter().zip(changes).rev() {
            self.take_back(sent.envelope(), change);
        }
    }

    /// Takes back what was sent, which is not kept: the last one first.
    fn take_back(&self, envelope: &Envelope, change: Change) {
        let name = &envelope.message.conversation_id;
        let mut shard = self.shard(name).lock();
        // It refuses nothing.
        let _ = self.change(&mut shard, name, |record| Ok(record.take_back(&said(envelope), change)));
        // One that began with it never was.
        if shard.open.get(name.as_str()).is_some_and(|open| open.record.messages == 0) {
            shard.open.remove(name.as_str());
        }
    }

    /// Counts the answer to a message that was refused.
    fn told_refusal(&self, answer: &Envelope) -> Change {
        let name = &answer.message.conversation_id;
        let told = self.change(&mut self.shard(name).lock(), name, |record| Ok(record.told_refusal(&said(answer))));
        // It refuses nothing.
        told.unwrap_or_default()
    }

    /// Takes in what the host says in an agent's place, which is never refused. One that has ended does not begin
    /// again with it.
    pub(crate) fn told(&self, name: &str, said: &Said<'_>) -> Change {
        let told = self.change(&mut self.shard(name).lock(), name, |record| Ok(record.told_failure(said)));
        // It refuses nothing.
        told.unwrap_or_default()
    }

    /// Changes a conversation that is open; nothing happens if it is not.
    fn change(
        &self,
        shard: &mut Shard,
        name: &str,
        change: impl FnOnce(&mut Conversation) -> Result<Change, Refused>,
    ) -> Result<Change, Refused> {
        let Some(open) = shard.open.get_mut(name) else { return Ok(Change::default()) };
        let change = change(&mut open.record)?;
        // From the second message on it is written, and then everything is new.
        open.changed |= change.is_more || open.row == 0;
        if open.row == 0 {
            open.row = self.next_row();
        }
        if !open.dirty {
            open.dirty = true;
            shard.dirty.push(name.into());
        }
        Ok(change)
    }

    /// Begins a conversation with its first message.
    fn begin(
        &self,
        shard: &mut Shard,
        name: &str,
        said: &Said<'_>,
        kept: bool,
        bound: usize,
    ) -> Result<Change, Refused> {
        let mut record = Conversation::new(name, said.from, said.at);
        let change = record.judge_noting(said, bound)?;
        // Whom an agent began with, what it asked and how far a protocol is must be known when the answer comes, be it
        // after a restart. Names of agents have no colon.
        let written = kept && (!said.from.contains(':') || !record.runs.is_empty());
        let row = if written { self.next_row() } else { 0 };
        // Ids are made by the host and never twice: one that has the name of its first message was not there before.
        let began = if said.id == name { self.place.load(Ordering::Relaxed) + 1 } else { 0 };
        if written {
            shard.dirty.push(name.into());
        }
        shard.order.push_back(name.into());
        shard.open.insert(name.into(), Open { record, row, began, dirty: written, changed: written });
        while shard.open.len() > MAX_OPEN {
            let Some(oldest) = shard.order.pop_front() else { break };
            shard.surplus.extend(shard.open.remove(&oldest).map(Expired::of));
        }
        Ok(change)
    }

    /// Takes note that all messages up to this place are safe.
    pub(super) fn safe_up_to(&self, place: u64) {
        self.place.store(place, Ordering::Relaxed);
    }

    /// The place before which no message of an open conversation is; 0 if that is not known.
    pub(super) fn began(&self, name: &str) -> u64 {
        self.shard(name).lock().open.get(name).map_or(0, |open| open.began)
    }

    fn next_row(&self) -> u64 {
        self.rows.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Who takes part in a conversation, as far as `wanted` picks one.
    pub(crate) fn find<T>(&self, name: &str, wanted: impl FnMut(&String) -> Option<T>) -> Option<T> {
        self.shard(name).lock().open.get(name)?.record.participants.iter().find_map(wanted)
    }

    /// When an open conversation began, in milliseconds since 1970.
    pub(crate) fn first(&self, name: &str) -> Option<u64> {
        self.shard(name).lock().open.get(name).map(|open| open.record.first)
    }

    /// A conversation that is open.
    pub(crate) fn get(&self, name: &str) -> Option<Conversation> {
        self.shard(name).lock().open.get(name).map(|open| open.record.clone())
    }

    /// Open conversations with the latest activity first, at most so many; only those of `participant`, if one is
    /// given.
    pub(crate) fn list(&self, participant: Option<&str>, limit: usize) -> Vec<Conversation> {
        let mut found: Vec<Conversation> = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let takes_part = |open: &&Open| participant.is_none_or(|name| open.record.participants.contains(name));
            let mut own: Vec<&Open> = shard.open.values().filter(takes_part).collect();
            own.sort_unstable_by_key(|open| std::cmp::Reverse(open.record.last));
            found.extend(own.into_iter().take(limit).map(|open| open.record.clone()));
        }
        found.sort_unstable_by_key(|record| std::cmp::Reverse(record.last));
        found.truncate(limit);
        found
    }

    /// How many there are, and what was said in those that are open.
    pub(crate) fn figures(&self) -> ConversationFigures {
        let (mut open, mut messages) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            open += shard.open.len() as u64;
            messages += shard.open.values().map(|open| open.record.messages).sum::<u64>();
        }
        ConversationFigures {
            open,
            // Those of one message have no row.
            written: self.rows.load(Ordering::Relaxed),
            mean_messages: (open > 0).then(|| messages as f64 / open as f64),
            illegal: self.illegal.load(Ordering::Relaxed),
        }
    }

    /// Ends those in which nothing was said for too long, at most so many at once, and those that were too many.
    pub(crate) fn expire(&self, now: u64, most: usize) -> Vec<Expired> {
        let timeout = u64::try_from(self.bounds.load().timeout.as_millis()).unwrap_or(u64::MAX);
        let mut expired = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let names: Vec<Box<str>> = shard
                .open
                .iter()
                .filter(|(_, open)| open.record.expires_at(timeout) <= now)
                .take(most.saturating_sub(expired.len()))
                .map(|(name, _)| name.clone())
                .collect();
            let Shard { open, order, dirty, surplus } = &mut *shard;
            expired.extend(names.iter().filter_map(|name| open.remove(name)).map(Expired::of));
            expired.append(surplus);
            dirty.retain(|name| open.contains_key(name));
            while order.front().is_some_and(|name| !open.contains_key(name)) {
                order.pop_front();
            }
            // Behind one that goes on for ever the names of the others must not pile up.
            if order.len() > 2 * open.len() + SLACK {
                order.retain(|name| open.contains_key(name));
            }
        }
        expired
    }

    /// Writes what has changed.
    pub(super) fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.dirty.is_empty() {
                continue;
            }
            let mut whole = transaction.prepare_cached(
                // In place of itself, and of one with its name that has ended.
                "INSERT OR REPLACE INTO conversation (id, name, first, last, messages, record, began)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            let mut count = transaction
                .prepare_cached("INSERT OR REPLACE INTO activity (conversation, last, messages) VALUES (?1, ?2, ?3)")?;
            for name in std::mem::take(&mut shard.dirty) {
                let Some(open) = shard.open.get_mut(&name) else { continue };
                let record = &open.record;
                let (row, last, messages) =
                    (open.row.cast_signed(), record.last.cast_signed(), record.messages.cast_signed());
                if open.changed {
                    let text = serde_json::to_string(record).expect("a record is numbers and text");
                    let (first, began) = (record.first.cast_signed(), open.began.cast_signed());
                    whole.execute(params![row, name, first, last, messages, text, began])?;
                }
                count.execute(params![row, last, messages])?;
                (open.dirty, open.changed) = (false, false);
            }
        }
        Ok(())
    }

    /// What was written is not kept: all of it is written again with the next change of each.
    pub(super) fn undo(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let shard = &mut *shard;
            for (name, open) in shard.open.iter_mut().filter(|(_, open)| open.row != 0) {
                open.changed = true;
                if !open.dirty {
                    open.dirty = true;
                    shard.dirty.push(name.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
