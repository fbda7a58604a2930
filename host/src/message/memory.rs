//! The memory of an instance of a stateful agent, as far as commits depend on it.
//!
//! ```text
//! message 1 -> save -> commit 1 --.
//! message 2 -> save -> commit 2 --+--> refused: the line breaks, commit 3 is refused too, the instance ends
//! message 3 -> save -> commit 3 --'
//! ```
//! A handler builds on the memory that the one before it left, whose commit may still be on its way. The commits of an
//! instance therefore form a line: once one of them is refused, all that follow are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The commits that build on the memory of one instance.
#[derive(Debug, Default)]
pub(crate) struct MemoryLine {
    broken: AtomicBool,
}

impl MemoryLine {
    /// Returns `true` once a commit was refused on which the instance's memory builds.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// Marks the memory of the instance as one that never was.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }
}

/// The place of a commit in the line of its instance.
#[derive(Debug, Clone)]
pub(crate) struct LinePlace {
    /// The line.
    pub(crate) line: Arc<MemoryLine>,
    /// Set if the memory is committed with it, so that its refusal breaks the line. Otherwise the memory goes on
    /// without it, as declared.
    pub(crate) breaks: bool,
}

/// The memory of an instance, compared with what is committed of it.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    /// The line of the instance's commits.
    pub(crate) line: Arc<MemoryLine>,
    /// The fingerprint of what was saved or restored last; `None` if that was nothing.
    saved: Option<MemoryHash>,
    /// The size in bytes of what was saved or restored last.
    pub(crate) bytes: u64,
    /// Set as long as every message that the instance has handled has its memory in its commit.
    pub(crate) in_step: bool,
    /// Set if it started with the memory that the store has.
    pub(crate) is_restored: bool,
}

impl Default for InstanceMemory {
    fn default() -> Self {
        Self { line: Arc::default(), saved: None, bytes: 0, in_step: true, is_restored: false }
    }
}

impl InstanceMemory {
    /// Notes what was saved or restored. Returns `true` if it is what was noted last.
    pub(crate) fn note(&mut self, data: &[u8]) -> bool {
        let now = Some(MemoryHash::of(data));
        self.bytes = data.len() as u64;
        std::mem::replace(&mut self.saved, now) == now
    }
}

/// A fingerprint of a saved memory, of this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MemoryHash(u128);

/// The seed of fingerprints. Random, so that a guest cannot prepare two memories of one fingerprint; 128 bits, as one
/// equal pair would lose a message's memory.
static SEED: LazyLock<u64> = LazyLock::new(rand::random);

impl MemoryHash {
    /// Returns the fingerprint of a memory.
    fn of(data: &[u8]) -> Self {
        // Taken after each message of a stateful agent: this hash reads as fast as the memory can be copied.
        Self(xxh3_128_with_seed(data, *SEED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_memories_apart() {
        assert_eq!(MemoryHash::of(b"one"), MemoryHash::of(b"one"));
        for (one, other) in [(&b""[..], &b"\0"[..]), (b"ab", b"ba"), (b"one", b"one\0")] {
            assert_ne!(MemoryHash::of(one), MemoryHash::of(other), "{one:?} {other:?}");
        }
    }
}
