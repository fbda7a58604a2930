//! What the writer remembers of keys that it has written lately, so that it need not ask.

use std::sync::Arc;

use ahash::AHashMap;

/// Keys whose version is remembered; beyond that all are forgotten.
const MAX_KEYS: usize = 65_536;

/// The version of a key (0: there is none) and the length of its value.
type Known = (u64, Option<i64>);

/// What is known of keys by agent: the version (0: there is none) and the length of the value.
#[derive(Default)]
pub(super) struct KeyCache {
    agents: AHashMap<Arc<str>, AHashMap<String, Known>>,
    count: usize,
}

impl KeyCache {
    /// What is known of a key.
    pub(super) fn get(&self, agent: &str, key: &str) -> Option<Known> {
        self.agents.get(agent)?.get(key).copied()
    }

    /// Remembers what a key has become.
    pub(super) fn set(&mut self, agent: &Arc<str>, key: &str, found: Known) {
        if self.count >= MAX_KEYS {
            *self = Self::default();
        }
        let keys = self.agents.entry(Arc::clone(agent)).or_default();
        match keys.get_mut(key) {
            Some(known) => *known = found,
            None => {
                keys.insert(key.to_owned(), found);
                self.count += 1;
            }
        }
    }
}
