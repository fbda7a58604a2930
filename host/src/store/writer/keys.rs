//! A cache of versions and lengths of keys that the writer has written or looked up lately.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use hashbrown::HashTable;

/// Keys that are remembered; beyond that all are forgotten.
const MAX_KEYS: usize = 65_536;
/// The bytes of an entry beside its key, about.
const ENTRY: usize = 128;

/// The version, length and expiry of a key, also of one that has expired and is not removed yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Known {
    /// The version; 0 if there is none.
    pub(in crate::store) version: u64,
    /// The length of its value.
    pub(in crate::store) length: Option<i64>,
    /// The time at which it is gone, if it does not stay.
    pub(in crate::store) expires_at: Option<u64>,
}

impl Known {
    /// Returns true if its time is over.
    pub(in crate::store) fn is_expired(self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// The cache of the agents' keys.
#[derive(Default)]
pub(in crate::store) struct KeyCache {
    hasher: RandomState,
    keys: HashTable<CachedKey>,
    /// The bytes of all keys, which others read.
    bytes: Arc<AtomicU64>,
}

struct CachedKey {
    hash: u64,
    agent: Arc<str>,
    key: Box<str>,
    known: Known,
}

impl KeyCache {
    /// Returns what is known of a key.
    pub(in crate::store) fn get(&self, agent: &str, key: &str) -> Option<Known> {
        let hash = self.hasher.hash_one((agent, key));
        self.keys.find(hash, |known| *known.key == *key && *known.agent == *agent).map(|found| found.known)
    }

    /// Remembers what a key has become.
    pub(in crate::store) fn set(&mut self, agent: &Arc<str>, key: &str, known: Known) {
        let hash = self.hasher.hash_one((&**agent, key));
        if let Some(found) = self.keys.find_mut(hash, |known| *known.key == *key && *known.agent == **agent) {
            found.known = known;
            return;
        }
        // All at once: an order of use would cost every look-up, and the cache fills again soon.
        if self.keys.len() >= MAX_KEYS {
            self.clear();
        }
        // Relaxed: it publishes nothing else, and only the writer changes it.
        self.bytes.fetch_add((ENTRY + key.len()) as u64, Ordering::Relaxed);
        let key = CachedKey { hash, agent: Arc::clone(agent), key: key.into(), known };
        self.keys.insert_unique(hash, key, |key| key.hash);
    }

    /// Forgets all.
    pub(in crate::store) fn clear(&mut self) {
        self.keys.clear();
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// Returns the count of its bytes.
    pub(in crate::store) fn bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }
}
