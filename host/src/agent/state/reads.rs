//! Reads of an agent's state, the values under way included.

use std::collections::BTreeSet;

use crate::agent::Agent;
use crate::message::{Read, Seen};

impl Agent {
    /// Returns a key that is written and not yet committed; `None` if the store has its newest value.
    pub(crate) fn under_way(&self, key: &str) -> Option<Option<Read>> {
        self.pending.read(key)
    }

    /// Returns up to `limit` keys with a prefix, after a key, in byte order, those under way included.
    pub(crate) fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Seen<Vec<String>>, String> {
        // The values under way first: those that are committed meanwhile are in the store by the second read.
        let own = self.pending.keys(prefix, after);
        let safe = own.is_empty();
        let removed = own.iter().filter(|(_, there)| !there).count();
        let ask = limit.saturating_add(u32::try_from(removed).unwrap_or(u32::MAX));
        let mut keys: BTreeSet<String> =
            self.context.store.state().keys(self.name.as_str(), prefix, after, ask)?.into_iter().collect();
        // Beyond the last one of a full page the store has more, which come with the next.
        let end = if keys.len() >= ask as usize { keys.last().cloned() } else { None };
        for (key, there) in own {
            if !there {
                keys.remove(&key);
            } else if end.as_ref().is_none_or(|end| key <= *end) {
                keys.insert(key);
            }
        }
        let page = keys.into_iter().take(limit as usize).collect();
        // Checked again: a key in the store's list may have come under way meanwhile.
        Ok(Seen { value: page, durable: safe && self.pending.keys(prefix, after).is_empty() })
    }
}
