//! The bindings of conversations to revisions while traffic is split, and the times at which conversations began.

use super::{Conversations, OpenConversation, Shard};
use crate::store::{RevisionBinding, Store};

impl Conversations {
    /// Binds a conversation of an agent to a revision, at a time of the steady clock. What the same commit says is
    /// taken in before.
    pub(crate) fn bind(&self, agent: &str, binding: &RevisionBinding, at: u64) {
        let RevisionBinding { conversation, revision, answered, anyway } = binding;
        let (mut shard, hash) = self.shard(conversation);
        let Some(open) = shard.get_mut(conversation, hash) else { return };
        if open.record.bind(agent, *revision, at, answered.as_deref(), *anyway) {
            self.write_soon(&mut shard, (conversation, hash));
        }
    }

    /// Returns the revision of an agent that a message belongs to because of what is open, or was when it was sent.
    /// `key` is the reference that an answer to it carries.
    pub(crate) fn bound_revision(&self, name: &str, agent: &str, key: &str, sent_at: u64) -> Option<u64> {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash)?.record.bound_revision(agent, key, sent_at)
    }

    /// Returns the revision of an agent that a conversation was bound to last.
    pub(crate) fn last_binding(&self, name: &str, agent: &str) -> Option<u64> {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash)?.record.last_binding(agent).map(|binding| binding.revision)
    }

    /// Returns `true` if an agent waits for an answer in a conversation, or owes one.
    pub(crate) fn has_open_exchange(&self, name: &str, agent: &str) -> bool {
        let (shard, hash) = self.shard(name);
        shard.get(name, hash).is_some_and(|open| open.record.has_open_exchange(agent, None))
    }

    /// Keeps when a conversation began, for an agent whose conversations are bound to the revision they began with:
    /// also one that has a single message from outside is known after a restart. Returns before it is written.
    pub(crate) fn keep(&self, store: &Store, name: &str) {
        if !store.keeps_messages() {
            return;
        }
        let (mut shard, hash) = self.shard(name);
        // The others have a row, and are written as they change.
        if shard.get(name, hash).is_some_and(|open| open.row == 0) {
            self.write_soon(&mut shard, (name, hash));
            drop(shard);
            // Changed conversations are written with the next transaction.
            store.conversations().write_changed();
        }
    }

    pub(super) fn write_soon(&self, shard: &mut Shard, (name, hash): (&str, u64)) {
        let Some(open) = shard.get_mut(name, hash) else { return };
        let OpenConversation { row, dirty, changed, .. } = open;
        *changed = true;
        if *row == 0 {
            *row = self.next_row();
        }
        if !std::mem::replace(dirty, true) {
            shard.dirty.push(hash);
        }
    }
}
