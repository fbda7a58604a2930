//! Prefetches memory that is read soon.
//!
//! Messages in a long mailbox were written long ago and have left the caches. Prefetching all parts of a message some
//! turns before it is handled overlaps the cache misses, which would otherwise be waited for one by one.

use prefetch_index::prefetch_index;

/// The size of a cache line in bytes.
const LINE: usize = 64;
/// The most that is prefetched: beyond that, the hardware prefetcher follows a sequential read.
const MOST: usize = 16 * LINE;

/// Prefetches the start of a slice.
pub(crate) fn bytes(bytes: &[u8]) {
    let length = bytes.len().min(MOST);
    for at in (0..length).step_by(LINE) {
        prefetch_index(bytes, at);
    }
    // A slice that does not start at a line ends in one more.
    if length > 0 {
        prefetch_index(bytes, length - 1);
    }
}

/// Prefetches the first cache line of a value without reading it.
pub(crate) fn value<T>(value: &T) {
    prefetch_index(std::slice::from_ref(value), 0);
}
