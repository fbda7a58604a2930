//! Conversations that are open: who takes part, how far their protocols are, what waits for an answer.
//!
//! They are in memory, and written with the messages that change them. A conversation of one message is not written:
//! there is nothing yet that a restart could lose.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use caxton_control::conversation::{Conversation, Refused, Said, Unanswered};
use caxton_control::desired;
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, params};

use crate::wasm::{Envelope, Sent, act};

/// Conversations are spread over so many parts, so that agents seldom wait for one another.
const SHARDS: usize = 16;
/// Open conversations of one part; beyond that the oldest end before their time.
const MAX_OPEN: usize = 16_384;
/// Conversations that have ended and are still listed; the oldest leave first.
const MAX_ENDED: i64 = 100_000;
/// Surplus ones leave when one of so many ends.
const PRUNE: u64 = 1_000;

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
    illegal: AtomicU64,
}

#[derive(Default)]
struct Shard {
    open: HashMap<Box<str>, Open>,
    /// The oldest first, with some that have ended.
    order: VecDeque<Box<str>>,
    /// What is to be written.
    dirty: Vec<Box<str>>,
}

struct Open {
    record: Conversation,
    row: u64,
    /// Whether it is in `dirty`.
    dirty: bool,
    /// Whether more than its count and time is to be written.
    changed: bool,
}

/// A conversation that ended, with what was left unanswered.
pub(crate) struct Expired {
    /// Its id.
    pub(crate) name: String,
    /// Its row; none when it was never written.
    pub(crate) row: Option<u64>,
    /// What is to be told `failure`.
    pub(crate) unanswered: Vec<Unanswered>,
}

/// How many conversations there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConversationCounts {
    /// Those that are open.
    pub(crate) open: u64,
    /// All that ever were.
    pub(crate) total: u64,
    /// Messages that were refused as illegal.
    pub(crate) illegal: u64,
}

impl Conversations {
    /// Those that the database has open.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let conversations = Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            bounds: ArcSwap::from_pointee(DEFAULT),
            rows: AtomicU64::new(0),
            illegal: AtomicU64::new(0),
        };
        let last: Option<i64> = connection.query_row("SELECT max(id) FROM conversation", [], |row| row.get(0))?;
        conversations.rows.store(last.unwrap_or(0).cast_unsigned(), Ordering::Relaxed);
        let mut statement = connection
            .prepare("SELECT id, last, messages, record FROM conversation WHERE ended IS NULL ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(3)?;
            let Ok(mut record) = serde_json::from_str::<Conversation>(&text) else { continue };
            record.last = row.get::<_, i64>(1)?.cast_unsigned();
            record.messages = row.get::<_, i64>(2)?.cast_unsigned();
            let row = row.get::<_, i64>(0)?.cast_unsigned();
            let name: Box<str> = record.name.as_str().into();
            let mut shard = conversations.shard(&name).lock();
            shard.order.push_back(name.clone());
            shard.open.insert(name, Open { record, row, dirty: false, changed: false });
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

    /// Takes a message into its conversation, or refuses it.
    pub(crate) fn judge(&self, name: &str, said: &Said<'_>) -> Result<(), Refused> {
        let bound = usize::try_from(self.bounds.load().participants).unwrap_or(usize::MAX);
        let judged = self.with(name, said, |record| record.judge(said, bound));
        if judged.is_err() {
            self.illegal.fetch_add(1, Ordering::Relaxed);
        }
        judged.map(|_| ())
    }

    /// Takes what is sent into its conversation. What an agent sent and is not legal there becomes its answer,
    /// `not-understood`.
    ///
    /// # Errors
    /// It came from outside, where nobody waits for a message.
    pub(crate) fn judge_sent(&self, sent: &mut Sent) -> Result<(), String> {
        let envelope = sent.envelope();
        let (name, said) = (&envelope.message.conversation_id, said(envelope));
        if sent.is_hosts() {
            self.told(name, &said);
            return Ok(());
        }
        match self.judge(name, &said) {
            Ok(()) => Ok(()),
            Err(refused) => {
                metrics::counter!("caxton_messages_illegal_total").increment(1);
                let why = refused.to_string();
                if sent.refuse(&why) { Ok(()) } else { Err(why) }
            }
        }
    }

    /// Takes in what the host says in an agent's place, which is never refused.
    pub(crate) fn told(&self, name: &str, said: &Said<'_>) {
        let _ = self.with(name, said, |record| {
            record.told_failure(said);
            Ok::<_, Refused>(true)
        });
    }

    fn with(
        &self,
        name: &str,
        said: &Said<'_>,
        change: impl FnOnce(&mut Conversation) -> Result<bool, Refused>,
    ) -> Result<bool, Refused> {
        let mut shard = self.shard(name).lock();
        let shard = &mut *shard;
        if let Some(open) = shard.open.get_mut(name) {
            let changed = change(&mut open.record)?;
            // The second message is the first that is written, and then everything is new.
            open.changed |= changed || open.row == 0;
            if open.row == 0 {
                open.row = self.rows.fetch_add(1, Ordering::Relaxed) + 1;
            }
            if !open.dirty {
                open.dirty = true;
                shard.dirty.push(name.into());
            }
            return Ok(changed);
        }
        let mut record = Conversation::new(name, said.from, said.at);
        let changed = change(&mut record)?;
        shard.order.push_back(name.into());
        shard.open.insert(name.into(), Open { record, row: 0, dirty: false, changed: false });
        while shard.open.len() > MAX_OPEN {
            let Some(oldest) = shard.order.pop_front() else { break };
            shard.open.remove(&oldest);
        }
        Ok(changed)
    }

    /// Who takes part in a conversation, as far as `wanted` picks one.
    pub(crate) fn find<T>(&self, name: &str, wanted: impl FnMut(&String) -> Option<T>) -> Option<T> {
        self.shard(name).lock().open.get(name)?.record.participants.iter().find_map(wanted)
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

    /// How many there are, with the messages of those that are open.
    pub(crate) fn counts(&self) -> (ConversationCounts, u64) {
        let (mut open, mut messages) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            open += shard.open.len() as u64;
            messages += shard.open.values().map(|open| open.record.messages).sum::<u64>();
        }
        let total = self.rows.load(Ordering::Relaxed).max(open);
        (ConversationCounts { open, total, illegal: self.illegal.load(Ordering::Relaxed) }, messages)
    }

    /// Ends those in which nothing was said for too long, at most so many at once.
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
            for name in names {
                if let Some(open) = shard.open.remove(&name) {
                    let row = Some(open.row).filter(|row| *row != 0);
                    expired.push(Expired { name: name.into(), row, unanswered: open.record.expire() });
                }
            }
            let Shard { open, dirty, .. } = &mut *shard;
            dirty.retain(|name| open.contains_key(name));
            // Those that ended are at the front sooner or later.
            while shard.order.front().is_some_and(|name| !shard.open.contains_key(name)) {
                shard.order.pop_front();
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
                "INSERT INTO conversation (id, name, first, last, messages, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (id) DO UPDATE
                 SET last = excluded.last, messages = excluded.messages, record = excluded.record",
            )?;
            let mut count =
                transaction.prepare_cached("UPDATE conversation SET last = ?2, messages = ?3 WHERE id = ?1")?;
            for name in std::mem::take(&mut shard.dirty) {
                let Some(open) = shard.open.get_mut(&name) else { continue };
                let record = &open.record;
                let (row, last, messages) =
                    (open.row.cast_signed(), record.last.cast_signed(), record.messages.cast_signed());
                if open.changed {
                    let text = serde_json::to_string(record).expect("a record is numbers and text");
                    whole.execute(params![row, name, record.first.cast_signed(), last, messages, text])?;
                } else {
                    count.execute(params![row, last, messages])?;
                }
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

/// Keeps that a conversation has ended.
pub(super) fn write_end(transaction: &Transaction<'_>, row: u64, now: u64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE conversation SET ended = ?2 WHERE id = ?1")?
        .execute(params![row.cast_signed(), now.cast_signed()])?;
    if row % PRUNE == 0 {
        transaction
            .prepare_cached("DELETE FROM conversation WHERE ended IS NOT NULL AND id < ?1")?
            .execute([row.cast_signed() - MAX_ENDED])?;
    }
    Ok(())
}
