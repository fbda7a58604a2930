//! The numbers and sizes of the last messages that an agent handled, as the store keeps them for rehearsals.

use std::collections::VecDeque;

/// The most bytes that are kept of one agent's messages and answers.
const MAX_BYTES: usize = 64 << 20;

/// The messages that the store keeps, the oldest first; `None` until it was read.
#[derive(Debug, Default)]
pub(in crate::agent) struct RecentMessages(Option<KeptMessages>);

#[derive(Debug)]
struct KeptMessages {
    next: u64,
    /// Bytes of each.
    sizes: VecDeque<usize>,
    bytes: usize,
}

impl RecentMessages {
    /// Adds a message. Returns its number, and the number of the first that is still kept. `load` returns the numbers
    /// and sizes of those in the store.
    pub(super) fn push(&mut self, load: impl FnOnce() -> Vec<(u64, usize)>, bytes: usize, limit: usize) -> (u64, u64) {
        let kept = self.0.get_or_insert_with(|| {
            let known = load();
            KeptMessages {
                next: known.last().map_or(1, |(seq, _)| seq + 1),
                bytes: known.iter().map(|(_, bytes)| bytes).sum(),
                sizes: known.into_iter().map(|(_, bytes)| bytes).collect(),
            }
        });
        let seq = kept.next;
        kept.next += 1;
        kept.sizes.push_back(bytes);
        kept.bytes += bytes;
        // The newest goes as well if it is larger than the bound alone.
        while kept.sizes.len() > limit || kept.bytes > MAX_BYTES {
            let Some(gone) = kept.sizes.pop_front() else { break };
            kept.bytes -= gone;
        }
        (seq, kept.next - kept.sizes.len() as u64)
    }
}

impl RecentMessages {
    /// Returns the bytes of the ring in memory.
    pub(in crate::agent) fn memory_bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |kept| (kept.sizes.capacity() * size_of::<usize>()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_within_their_bounds() {
        let mut recent = RecentMessages::default();
        let known = || vec![(7, 10), (8, 10)];
        assert_eq!(recent.push(known, 10, 3), (9, 7));
        assert_eq!(recent.push(Vec::new, 10, 3), (10, 8));
        assert_eq!(recent.push(Vec::new, 10, 1), (11, 11), "a lower limit");
        assert_eq!(recent.push(Vec::new, MAX_BYTES, 9), (12, 12), "too many bytes");
        assert_eq!(RecentMessages::default().push(Vec::new, 1, 9), (1, 1));
    }
}
