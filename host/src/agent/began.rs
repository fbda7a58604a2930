//! When conversations with an agent that speaks HTTP itself began: no record of them is written.

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

/// Conversations that are remembered, twice: those of late, and those of before. A thousand agents have a gigabyte of
/// them at most.
const MOST: usize = 16_384;

/// When the conversations of late began. One in which nothing was said for as long as a conversation lasts is forgotten
/// before twice that time has passed, and the longest quiet ones are when there are too many.
#[derive(Debug, Default)]
pub(super) struct Began {
    hasher: RandomState,
    known: Mutex<Known>,
}

/// By the hash of a conversation's name, when it began.
#[derive(Debug, Default)]
struct Known {
    late: AHashMap<u64, u64>,
    before: AHashMap<u64, u64>,
    /// Since when they come to `late`.
    since: u64,
}

impl Began {
    /// When a conversation began in which something is said `now`. It lasts for `timeout` after that. All in milliseconds,
    /// the times since 1970.
    pub(super) fn note(&self, conversation: &str, now: u64, timeout: u64) -> u64 {
        let hash = self.hasher.hash_one(conversation);
        let mut known = self.known.lock();
        let known = &mut *known;
        if let Some(began) = known.late.get(&hash) {
            return *began;
        }
        if known.late.len() >= MOST || now.saturating_sub(known.since) >= timeout {
            known.before = std::mem::take(&mut known.late);
            known.since = now;
        }
        let began = known.before.remove(&hash).unwrap_or(now);
        known.late.insert(hash, began);
        began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_known_as_long_as_something_is_said_in_it() {
        let began = Began::default();
        assert_eq!(began.note("c", 1_000, 500), 1_000);
        for now in (1_100..9_000).step_by(400) {
            assert_eq!(began.note("c", now, 500), 1_000);
            assert_eq!(began.note(&format!("other at {now}"), now, 500), now);
        }
        assert_eq!(began.note("d", 10_000, 500), 10_000);
        assert_eq!(began.note("e", 11_000, 500), 11_000);
        assert_eq!(began.note("c", 11_000, 500), 11_000, "it was over long before");
    }

    #[test]
    fn there_is_room_for_so_many() {
        let began = Began::default();
        began.note("first", 0, u64::MAX);
        (1..=3 * MOST as u64).for_each(|now| {
            began.note(&format!("c-{now}"), now, u64::MAX);
            if now % 1_000 == 0 {
                assert_eq!(began.note("often", now, u64::MAX), 1_000);
            }
        });
        let known = began.known.lock();
        assert!(known.late.len() + known.before.len() <= 2 * MOST);
        drop(known);
        assert_eq!(began.note("first", 99_999, u64::MAX), 99_999);
    }
}
