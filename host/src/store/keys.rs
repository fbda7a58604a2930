//! What the writer remembers of keys that it has written or looked for lately, so that it need not ask.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

/// Keys that are remembered; beyond that all are forgotten.
const MAX_KEYS: usize = 65_536;

/// The version of a key (0: there is none) and the length of its value.
pub(super) type Known = (u64, Option<i64>);

/// What is known of the agents' keys.
#[derive(Default)]
pub(super) struct KeyCache {
    hasher: RandomState,
    keys: HashTable<Key>,
}

struct Key {
    hash: u64,
    agent: Arc<str>,
    key: Box<str>,
    known: Known,
}

impl KeyCache {
    /// What is known of a key.
    pub(super) fn get(&self, agent: &str, key: &str) -> Option<Known> {
        let hash = self.hasher.hash_one((agent, key));
        self.keys.find(hash, |known| *known.key == *key && *known.agent == *agent).map(|found| found.known)
    }

    /// Remembers what a key has become.
    pub(super) fn set(&mut self, agent: &Arc<str>, key: &str, known: Known) {
        let hash = self.hasher.hash_one((&**agent, key));
        if let Some(found) = self.keys.find_mut(hash, |known| *known.key == *key && *known.agent == **agent) {
            found.known = known;
            return;
        }
        if self.keys.len() >= MAX_KEYS {
            self.keys.clear();
        }
        let key = Key { hash, agent: Arc::clone(agent), key: key.into(), known };
        self.keys.insert_unique(hash, key, |key| key.hash);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }
}
