//! State that is written and not yet committed, as the agent's next handler is to see it.
//!
//! A handler that reads what another has just written need not wait for the disk: it goes on with the value, and
//! its own commit comes after the other's. If the other's is refused, so is its own, which read a version that
//! never came to be, and it runs again.

use std::collections::BTreeSet;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::Agent;
use crate::clock;
use crate::store::{Commit, CommitError, StateChange, Store};
use crate::wasm::{Read, Seen, Value, is_as_seen};

/// What an agent has written and the store has not committed.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Looked up with every message; those who want them in order, which is seldom, sort them.
    keys: Mutex<AHashMap<String, Newest>>,
}

/// The newest value of a key.
#[derive(Debug, Clone)]
struct Newest {
    version: u64,
    /// None when the key is removed.
    value: Option<Value>,
}

impl Newest {
    /// The value, unless the key is removed or its time is over.
    fn there(&self) -> Option<&Value> {
        self.value.as_ref().filter(|value| value.is_there(clock::now_ms()))
    }
}

/// Whether something that was read has been written anew since.
fn is_stale(keys: &AHashMap<String, Newest>, state: &StateChange) -> bool {
    let now = clock::now_ms();
    state.reads.iter().any(|(key, seen)| {
        keys.get(key).is_some_and(|newest| {
            // A key that is removed is seen as one that never was.
            let version = if newest.value.is_some() { newest.version } else { 0 };
            !is_as_seen(*seen, version, newest.value.as_ref().and_then(Value::expires_at), now)
        })
    })
}

impl Pending {
    /// Hands a commit to the store; what it writes can be read from now on. One that is sure to be refused is told so at
    /// once.
    pub(super) fn submit(&self, store: &Store, mut commit: Commit) {
        match &mut commit.state {
            Some(state) if !state.writes.is_empty() => {
                let mut keys = self.keys.lock();
                // What others would read of it, and build on, would never come to be.
                if is_stale(&keys, state) {
                    drop(keys);
                    return commit.refuse(CommitError::Conflict);
                }
                state.version = store.next_version();
                for (key, value) in &state.writes {
                    keys.insert(key.clone(), Newest { version: state.version, value: value.clone() });
                }
                // Under the lock: commits of an agent reach the store in the order of their versions.
                store.submit(commit);
            }
            Some(_) | None => store.submit(commit),
        }
    }

    /// Forgets what a commit wrote: the store has it, or refused it.
    pub(super) fn settled(&self, state: &StateChange) {
        if state.writes.is_empty() {
            return;
        }
        let mut keys = self.keys.lock();
        for key in state.writes.keys() {
            if keys.get(key).is_some_and(|value| value.version == state.version) {
                keys.remove(key);
            }
        }
    }

    /// A key as it will be: none if nothing is under way for it.
    pub(super) fn read(&self, key: &str) -> Option<Option<Read>> {
        let keys = self.keys.lock();
        let found = keys.get(key)?;
        Some(found.there().map(|value| Read {
            value: value.bytes.to_vec(),
            version: found.version,
            expires_at: value.expires_at(),
        }))
    }

    /// The keys under way among those with a prefix, after a key, and whether each will be there.
    fn keys(&self, prefix: &str, after: Option<&str>) -> Vec<(String, bool)> {
        let keys = self.keys.lock();
        keys.iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after))
            .map(|(key, newest)| (key.clone(), newest.there().is_some()))
            .collect()
    }
}

impl Agent {
    /// A key that is written and not yet committed; none if the store has its newest value.
    pub(crate) fn under_way(&self, key: &str) -> Option<Option<Read>> {
        self.pending.read(key)
    }

    /// Keys with a prefix, after a key, in byte order: at most `limit`, those under way included.
    pub(crate) fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        // First what is under way: what is committed meanwhile is in the store then.
        let own = self.pending.keys(prefix, after);
        let safe = own.is_empty();
        let removed = own.iter().filter(|(_, there)| !there).count();
        let ask = limit.saturating_add(u32::try_from(removed).unwrap_or(u32::MAX));
        let mut keys: BTreeSet<String> =
            self.commons.store.keys(self.name.as_str(), prefix, after, ask)?.into_iter().collect();
        // Beyond the last one of a full page the store has more, which come with the next.
        let end = if keys.len() >= ask as usize { keys.last().cloned() } else { None };
        for (key, there) in own {
            if !there {
                keys.remove(&key);
            } else if end.as_ref().is_none_or(|end| key <= *end) {
                keys.insert(key);
            }
        }
        let what = keys.into_iter().take(limit as usize).collect();
        // Looked at again: what the store has may have been under way meanwhile.
        Ok(Seen { what, safe: safe && self.pending.keys(prefix, after).is_empty() })
    }
}
