//! The revisions that handle messages: one, or two while traffic is split. An immutable snapshot that calls read
//! without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use caxton_control::rollout::split::{Split, SplitInput, SplitTarget, Sticky};
use parking_lot::Mutex;

use crate::agent::{Revision, conversation_hash};

/// Conversations that are remembered because they stay with stable; further ones are not told of.
const MAX_HELD: usize = 10_000;

/// The revisions that handle messages. All messages are taken as if for stable; those of the candidate are passed on to
/// it.
pub(crate) struct Traffic {
    stable: Arc<Revision>,
    pub(super) split: Option<TrafficSplit>,
}

/// The candidate and its share of the traffic.
pub(in crate::agent) struct TrafficSplit {
    pub(super) candidate: Arc<Revision>,
    split: Split,
    /// Counts the messages without a conversation, which are dealt out in turn.
    turns: AtomicU64,
    /// Conversations that stay with stable although the candidate has their place, by the hash of their names.
    held_back: Mutex<AHashMap<u64, Box<str>>>,
}

impl TrafficSplit {
    /// Picks the revision for a message.
    pub(in crate::agent) fn pick(&self, sticky: Sticky, talk: SplitInput<'_>) -> SplitTarget {
        // Relaxed: any order of the numbers deals the same shares.
        let nth = || self.turns.fetch_add(1, Ordering::Relaxed);
        let pick = self.split.choose(sticky, talk, self.candidate.id.number, nth);
        if let (Some(name), true) = (talk.conversation, sticky != Sticky::None) {
            self.note_held_back(name, pick);
        }
        pick
    }

    /// Notes a conversation that holds the rollout up, or does not any more.
    fn note_held_back(&self, name: &str, pick: SplitTarget) {
        let hash = conversation_hash(name);
        let mut held_back = self.held_back.lock();
        match pick {
            SplitTarget::Candidate => drop(held_back.remove(&hash)),
            // Bounded: the number is shown to operators, and ten thousand say enough.
            SplitTarget::Stable if held_back.len() < MAX_HELD && self.split.is_held_back(name) => {
                held_back.entry(hash).or_insert_with(|| name.into());
            }
            SplitTarget::Stable => {}
        }
    }

    /// Returns the conversations that stay with stable, by the hash of their names.
    pub(super) fn held_back(&self) -> Vec<(u64, Box<str>)> {
        self.held_back.lock().iter().map(|(hash, name)| (*hash, name.clone())).collect()
    }

    /// Forgets conversations that no longer stay with stable.
    pub(super) fn forget_held_back(&self, free: &[(u64, Box<str>)]) {
        let mut held_back = self.held_back.lock();
        free.iter().for_each(|(hash, _)| drop(held_back.remove(hash)));
    }

    /// Returns `true` if a conversation of stable would belong to the candidate by its place.
    pub(super) fn is_held_back(&self, name: &str) -> bool {
        self.split.is_held_back(name)
    }
}

impl Traffic {
    /// Creates the traffic of one revision.
    pub(crate) fn single(revision: Arc<Revision>) -> Arc<Self> {
        Arc::new(Self { stable: revision, split: None })
    }

    /// Creates the traffic of two revisions.
    pub(crate) fn divided(stable: Arc<Revision>, candidate: Arc<Revision>, split: Split) -> Arc<Self> {
        let (turns, held_back) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Self { stable, split: Some(TrafficSplit { candidate, split, turns, held_back }) })
    }

    /// Returns the stable revision.
    pub(in crate::agent) fn stable(&self) -> &Arc<Revision> {
        &self.stable
    }

    /// Returns the stable revision and the candidate.
    pub(in crate::agent) fn revisions(&self) -> impl Iterator<Item = &Arc<Revision>> {
        std::iter::once(&self.stable).chain(self.split.iter().map(|split| &split.candidate))
    }

    /// Returns the number of instances that can work at once.
    pub(in crate::agent) fn max(&self) -> u32 {
        self.revisions().map(|revision| revision.pool.max()).sum()
    }

    pub(super) fn has(&self, revision: &Arc<Revision>) -> bool {
        self.revisions().any(|one| Arc::ptr_eq(one, revision))
    }
}
