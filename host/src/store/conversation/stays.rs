//! The bindings of conversations to revisions while traffic is split, and the times at which conversations began.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Conversations, OpenConversation, Shard};
use crate::clock;
use crate::store::Store;

/// The revision that goes on with what handling a message leaves open in its conversation.
#[derive(Debug)]
pub(crate) struct Goes {
    /// The conversation.
    pub(crate) conversation: String,
    /// The number of the revision.
    pub(crate) revision: u64,
    /// The reference that an answer to the message carries, if it is answered with this.
    pub(crate) answered: Option<String>,
    /// Set if the binding is noted although nothing is open: waiting and later messages go to the revision too.
    pub(crate) anyway: bool,
}

impl Conversations {
    /// Notes where a conversation goes on for an agent, at a time of the steady clock. What is said with the same
    /// commit is taken in before.
    pub(crate) fn stay(&self, agent: &str, goes: &Goes, at: u64) {
        let Goes { conversation, revision, answered, anyway } = goes;
        let (mut shard, hash) = self.shard(conversation);
        let Some(open) = shard.get_mut(conversation, hash) else { return };
        if open.record.bind(agent, *revision, at, answered.as_deref(), *anyway) {
            self.write_soon(&mut shard, (conversation, hash));
        }
    }

    /// The revision of an agent that a message belongs to because of what is open, or was when it was sent. `key` is
    /// what an answer to it names.
    pub(crate) fn stays_on(&self, name: &str, agent: &str, key: &str, sent_at: u64) -> Option<u64> {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash)?.record.bound_revision(agent, key, sent_at)
    }

    /// The revision of an agent that was noted last for a conversation.
    pub(crate) fn where_it_was(&self, name: &str, agent: &str) -> Option<u64> {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash)?.record.last_binding(agent).map(|stay| stay.revision)
    }

    /// Returns `true` if an agent waits for an answer in a conversation, or owes one.
    pub(crate) fn owes(&self, name: &str, agent: &str) -> bool {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash).is_some_and(|open| open.record.has_open_exchange(agent, None))
    }

    /// Lets a record be written that is in memory alone. False if it is written already, or not there.
    fn write_first(&self, name: &str) -> bool {
        let (mut shard, hash) = self.shard(name);
        let is_new = shard.get(name, hash).is_some_and(|open| open.row == 0);
        if is_new {
            self.write_soon(&mut shard, (name, hash));
        }
        is_new
    }

    pub(super) fn write_soon(&self, shard: &mut Shard, (name, hash): (&str, u64)) {
        let Some(open) = shard.get_mut(name, hash) else { return };
        let OpenConversation { row, dirty, changed, .. } = open;
        *changed = true;
        if *row == 0 {
            *row = self.rows.fetch_add(1, Ordering::Relaxed) + 1;
        }
        if !std::mem::replace(dirty, true) {
            shard.dirty.push(hash);
        }
    }
}

impl Store {
    /// Keeps when a conversation began, for an agent whose conversations stay where they began: also one that has a
    /// single message from outside is known after a restart. Nobody waits.
    pub(crate) fn keep_conversation(&self, name: &str) {
        if self.keeps_messages && self.conversations.write_first(name) {
            // What changed in conversations is written with whatever comes.
            self.tell_writer(|_| Ok(0));
        }
    }

    /// Keeps when a conversation with an agent began of which no record is written. Times are of the steady clock, and
    /// kept as those of the wall clock. Nobody waits.
    pub(crate) fn keep_beginning(&self, agent: Arc<str>, conversation: String, first: u64, last: u64, over: u64) {
        // A restart begins with nothing then.
        if !self.keeps_messages {
            return;
        }
        let (first, last, over) = (clock::to_wall(first), clock::to_wall(last), clock::to_wall(over));
        self.tell_writer(move |transaction| {
            // Old ones leave with each new one, so that no sweep is needed.
            transaction.prepare_cached("DELETE FROM beginning WHERE last < ?1")?.execute([over.cast_signed()])?;
            transaction
                .prepare_cached(
                    "INSERT INTO beginning (agent, conversation, first, last) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (agent, conversation) DO UPDATE SET first = excluded.first, last = excluded.last",
                )?
                .execute(rusqlite::params![&*agent, conversation, first.cast_signed(), last.cast_signed()])
        });
    }

    /// Returns when a conversation without a record began with an agent, if it had a message since `over`.
    pub(crate) fn beginning(&self, agent: &str, conversation: &str, over: u64) -> Result<Option<u64>, String> {
        use rusqlite::OptionalExtension as _;

        let over = clock::to_wall(over);
        self.with_reader(|connection| {
            connection
                .prepare_cached("SELECT first FROM beginning WHERE agent = ?1 AND conversation = ?2 AND last >= ?3")?
                .query_row(rusqlite::params![agent, conversation, over.cast_signed()], |row| {
                    Ok(clock::from_wall(row.get::<_, i64>(0)?.cast_unsigned()))
                })
                .optional()
        })
    }
}
