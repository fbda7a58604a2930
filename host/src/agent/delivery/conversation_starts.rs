//! Conversations with an agent that speaks HTTP itself, of which no record is written: when they began, and which of
//! them have a call in hand.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

/// The bound of conversations in each of the two generations. A thousand agents have a gigabyte of them at most.
const MOST: usize = 16_384;

/// The starts of recent conversations. A conversation without messages for its timeout is forgotten within twice that
/// time; if there are too many, those that were idle for longest are forgotten earlier.
#[derive(Debug, Default)]
pub(in crate::agent) struct ConversationStarts {
    hasher: RandomState,
    known: Mutex<KnownStarts>,
    busy: Mutex<AHashMap<u64, Busy>>,
}

/// The starts by the hash of the conversation's name, in two generations: a full `recent` becomes `older`, so that
/// forgetting costs no search.
#[derive(Debug, Default)]
struct KnownStarts {
    recent: AHashMap<u64, Start>,
    older: AHashMap<u64, Start>,
    /// The time since which entries are added to `recent`.
    since: u64,
}

/// The start of a conversation, in milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: u64,
    /// The time until which the store keeps the start; 0 if the store does not know it.
    kept_until: u64,
}

/// The start of a conversation as it has to be kept, if it has to outlive the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) struct KnownStart {
    pub(in crate::agent) first: u64,
    /// Set if the store has to be told: it does not know the start, or forgets it soon.
    pub(in crate::agent) must_be_stored: bool,
}

/// A conversation with calls in hand.
#[derive(Debug, Clone, Copy)]
struct Busy {
    calls: u32,
    /// The revision that the first of them went to.
    revision: u64,
}

/// Counts a call of a conversation as in hand until it is dropped.
#[derive(Debug)]
pub(in crate::agent) struct BusyConversation {
    starts: Arc<ConversationStarts>,
    hash: u64,
}

impl Drop for BusyConversation {
    fn drop(&mut self) {
        let mut busy = self.starts.busy.lock();
        if let Some(known) = busy.get_mut(&self.hash) {
            known.calls -= 1;
            // Removed with the last call: the map holds only what is in hand, and needs no bound.
            if known.calls == 0 {
                busy.remove(&self.hash);
            }
        }
    }
}

impl ConversationStarts {
    /// Returns the start of a conversation that has a message `now`, and lasts for `timeout` after it; times are in
    /// milliseconds since 1970. `find` looks a start that is not in memory up in the store.
    pub(in crate::agent) fn note(
        &self,
        conversation: &str,
        now: u64,
        timeout: u64,
        find: impl FnOnce() -> Option<u64>,
    ) -> KnownStart {
        // Hashes and not names: a thousand agents remember millions of conversations. Two names with one hash share a
        // start, which at worst keeps one of them with its revision for longer.
        let hash = self.hasher.hash_one(conversation);
        let mut known = self.known.lock();
        let known = &mut *known;
        if !known.recent.contains_key(&hash) {
            if known.recent.len() >= MOST || now.saturating_sub(known.since) >= timeout {
                known.older = std::mem::take(&mut known.recent);
                known.since = now;
            }
            let before = known.older.remove(&hash);
            let beginning = before.unwrap_or_else(|| Start { at: find().unwrap_or(now), kept_until: 0 });
            // An entry of `older` moves, so that a conversation in use is never forgotten.
            known.recent.insert(hash, beginning);
        }
        let Some(Start { at, kept_until }) = known.recent.get_mut(&hash) else {
            return KnownStart { first: now, must_be_stored: true };
        };
        let must_be_stored = *kept_until <= now;
        if must_be_stored {
            // Stored again after a quarter of the time, long before the store drops it.
            *kept_until = now.saturating_add(timeout / 4).saturating_add(1);
        }
        KnownStart { first: *at, must_be_stored }
    }

    /// Returns `true` if the start of the conversation is in memory.
    pub(in crate::agent) fn knows(&self, conversation: &str) -> bool {
        let hash = self.hasher.hash_one(conversation);
        let known = self.known.lock();
        known.recent.contains_key(&hash) || known.older.contains_key(&hash)
    }

    /// Returns `true` if a call of the conversation is in hand.
    pub(in crate::agent) fn is_busy(&self, conversation: &str) -> bool {
        self.busy.lock().contains_key(&self.hasher.hash_one(conversation))
    }

    /// Counts a call as in hand on the revision that `enter` picks. `enter` gets the revision of the calls in hand
    /// already. Calls of one conversation are entered one after the other.
    ///
    /// # Errors
    /// The call was not entered.
    pub(in crate::agent) fn enter<T, E>(
        self: &Arc<Self>,
        conversation: &str,
        enter: impl FnOnce(Option<u64>) -> Result<(T, u64), E>,
    ) -> Result<(T, BusyConversation), E> {
        let hash = self.hasher.hash_one(conversation);
        let mut busy = self.busy.lock();
        let known = busy.get(&hash).map(|busy| busy.revision);
        // Under the lock of `busy`: a second call of the conversation must see the revision of the first.
        let (entered, revision) = enter(known)?;
        busy.entry(hash).or_insert(Busy { calls: 0, revision }).calls += 1;
        Ok((entered, BusyConversation { starts: Arc::clone(self), hash }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ConversationStarts {
        fn first(&self, conversation: &str, now: u64, timeout: u64) -> u64 {
            self.note(conversation, now, timeout, || None).first
        }
    }

    #[test]
    fn what_has_to_be_kept_is_told_now_and_then() {
        let starts = ConversationStarts::default();
        let note = |now| starts.note("c", now, 400, || None);
        assert_eq!(note(1_000), KnownStart { first: 1_000, must_be_stored: true });
        assert_eq!(note(1_100), KnownStart { first: 1_000, must_be_stored: false });
        assert_eq!(note(1_101), KnownStart { first: 1_000, must_be_stored: true });
        assert_eq!(note(1_102), KnownStart { first: 1_000, must_be_stored: false });
        // After a restart the store knows it.
        let starts = ConversationStarts::default();
        assert_eq!(starts.note("c", 1_200, 400, || Some(1_000)), KnownStart { first: 1_000, must_be_stored: true });
        assert!(starts.knows("c") && !starts.knows("d"));
    }

    #[test]
    fn a_conversation_is_busy_until_its_last_call_has_ended() {
        let starts = Arc::new(ConversationStarts::default());
        let mut seen = Vec::new();
        let mut enter = |revision| {
            let entered = starts.enter("c", |known| {
                seen.push(known);
                Ok::<_, ()>(((), known.unwrap_or(revision)))
            });
            entered.unwrap().1
        };
        let (first, second) = (enter(1), enter(2));
        drop(first);
        let third = enter(3);
        assert!(starts.is_busy("c") && !starts.is_busy("d"));
        drop((second, third));
        assert!(!starts.is_busy("c"));
        drop(enter(4));
        assert_eq!(seen, [None, Some(1), Some(1), None]);
        assert!(starts.enter("c", |_| Err::<((), u64), ()>(())).is_err() && !starts.is_busy("c"));
    }

    #[test]
    fn a_conversation_is_known_as_long_as_something_is_said_in_it() {
        let starts = ConversationStarts::default();
        assert_eq!(starts.first("c", 1_000, 500), 1_000);
        for now in (1_100..9_000).step_by(400) {
            assert_eq!(starts.first("c", now, 500), 1_000);
            assert_eq!(starts.first(&format!("other at {now}"), now, 500), now);
        }
        assert_eq!(starts.first("d", 10_000, 500), 10_000);
        assert_eq!(starts.first("e", 11_000, 500), 11_000);
        assert_eq!(starts.first("c", 11_000, 500), 11_000, "it was over long before");
    }

    #[test]
    fn there_is_room_for_so_many() {
        let starts = ConversationStarts::default();
        starts.first("first", 0, u64::MAX);
        (1..=3 * MOST as u64).for_each(|now| {
            starts.first(&format!("c-{now}"), now, u64::MAX);
            if now % 1_000 == 0 {
                assert_eq!(starts.first("often", now, u64::MAX), 1_000);
            }
        });
        let known = starts.known.lock();
        assert!(known.recent.len() + known.older.len() <= 2 * MOST);
        drop(known);
        assert_eq!(starts.first("first", 99_999, u64::MAX), 99_999);
    }
}
