//! The bounds of what the store keeps after it was handled or given up, and what has left for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_control::desired::StoreSpec;
use parking_lot::Mutex;

/// The bounds, which a reload changes in place, and what has left since it was last reported.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    pub(super) history: AtomicU64,
    pub(super) history_bytes: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) dead_letters_bytes: AtomicU64,
    left: Mutex<LeftRecords>,
}

/// A number of messages with their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// The number.
    pub(crate) count: u64,
    /// The bytes.
    pub(crate) bytes: u64,
}

impl Left {
    /// Returns the sum of two.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, bytes: self.bytes + other.bytes }
    }
}

/// The records that have left the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeftRecords {
    /// The handled messages that left for the bound in bytes.
    pub(crate) history: Left,
    /// The dead letters, by agent.
    pub(crate) dead: BTreeMap<String, Left>,
}

impl Retention {
    /// Creates the bounds of these settings.
    pub(crate) fn new(settings: &StoreSpec) -> Self {
        let retention = Self::default();
        retention.set(settings);
        retention
    }

    /// Changes the bounds. What is beyond them leaves with the next commits.
    pub(crate) fn set(&self, settings: &StoreSpec) {
        // Relaxed: each bound stands by itself.
        self.history.store(settings.history, Ordering::Relaxed);
        self.history_bytes.store(settings.history_max_bytes, Ordering::Relaxed);
        self.dead_letters.store(settings.dead_letters, Ordering::Relaxed);
        self.dead_letters_bytes.store(settings.dead_letters_max_bytes, Ordering::Relaxed);
    }

    /// Notes what has left with a transaction.
    pub(super) fn note_left(&self, history: Left, dead: BTreeMap<String, Left>) {
        // Without the lock in the usual case.
        if history.count == 0 && dead.is_empty() {
            return;
        }
        let mut left = self.left.lock();
        left.history = left.history.and(history);
        for (agent, more) in dead {
            let of_agent = left.dead.entry(agent).or_default();
            *of_agent = of_agent.and(more);
        }
    }

    /// Takes what handled messages have left, since it was last asked for.
    pub(crate) fn take_history(&self) -> Left {
        std::mem::take(&mut self.left.lock().history)
    }

    /// Takes the dead letters that have left, since they were last asked for.
    pub(crate) fn take_dead(&self) -> BTreeMap<String, Left> {
        std::mem::take(&mut self.left.lock().dead)
    }
}
