//! The keys that were written since a handling was recorded: a copy must not read a newer value than the original did.

use std::collections::HashMap;

/// The most keys that are remembered. When there are more, all are forgotten, and every key counts as changed for the
/// copies of handlings recorded until then.
const MAX_KEYS: usize = 10_000;
/// The bytes of an entry beside its key, about.
const ENTRY: usize = 64;

/// The keys that were written since a shadow began. Writes are numbered; a mark is the number of the last one.
#[derive(Default)]
pub(super) struct RecentWrites {
    last: u64,
    /// The number of the last write of each key.
    keys: HashMap<String, u64>,
    /// The last write that was forgotten.
    forgotten: u64,
    /// The bytes of the keys.
    bytes: u64,
}

impl RecentWrites {
    /// Returns the mark of the present moment.
    pub(super) fn mark(&self) -> u64 {
        self.last
    }

    /// Adds one commit with the keys that it wrote.
    pub(super) fn add<'a>(&mut self, keys: impl Iterator<Item = &'a String>) {
        self.last += 1;
        for key in keys {
            // Forgetting all is cheaper than finding the oldest, and costs only the comparison of a few copies.
            if self.keys.len() >= MAX_KEYS && !self.keys.contains_key(key) {
                self.keys.clear();
                (self.forgotten, self.bytes) = (self.last, 0);
            }
            if self.keys.insert(key.clone(), self.last).is_none() {
                self.bytes += (key.len() + ENTRY) as u64;
            }
        }
    }

    /// Returns the bytes of the keys in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns `true` if a key may have been written after a mark.
    pub(super) fn has_key(&self, key: &str, mark: u64) -> bool {
        // A key that was forgotten counts as changed: a copy set aside in vain is better than a false difference.
        self.forgotten > mark || self.keys.get(key).is_some_and(|at| *at > mark)
    }

    /// Returns `true` if any key with a prefix may have been written after a mark.
    pub(super) fn has_prefix(&self, prefix: &str, mark: u64) -> bool {
        self.forgotten > mark || self.keys.iter().any(|(key, at)| *at > mark && key.starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_after_a_mark_are_known_or_assumed() {
        let mut writes = RecentWrites::default();
        let keys = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        writes.add(keys(&["a/1", "b"]).iter());
        let mark = writes.mark();
        writes.add(keys(&["a/2", "b"]).iter());
        for (key, written) in [("a/1", false), ("a/2", true), ("b", true), ("c", false)] {
            assert_eq!(writes.has_key(key, mark), written, "{key}");
        }
        assert!(writes.has_prefix("a/", mark) && !writes.has_prefix("c", mark));
        assert!(!writes.has_prefix("", writes.mark()));
        let many: Vec<String> = (0..=MAX_KEYS).map(|nth| format!("k{nth}")).collect();
        writes.add(many.iter());
        assert!(writes.has_key("c", mark) && writes.keys.len() <= MAX_KEYS, "too many to be remembered");
        assert!(!writes.has_key("c", writes.mark()), "later writes are known again");
    }
}
