//! Memory that is read soon: fetched from afar while something else is done.
//!
//! What waits in a long mailbox was written long ago and is in no cache any more. Asked for some messages before its
//! turn, all of its parts come side by side; when it is handled each would be waited for.

use prefetch_index::prefetch_index;

/// Bytes that the processor fetches at once.
const LINE: usize = 64;
/// The processor itself goes on with what is read one line after the other.
const MOST: usize = 16 * LINE;

/// Fetches the beginning of some bytes.
pub(crate) fn bytes(bytes: &[u8]) {
    let length = bytes.len().min(MOST);
    for at in (0..length).step_by(LINE) {
        prefetch_index(bytes, at);
    }
    // They need not begin with a line, and then end in one more.
    if length > 0 {
        prefetch_index(bytes, length - 1);
    }
}

/// Fetches the line in which a value begins, without a look at it.
pub(crate) fn value<T>(value: &T) {
    prefetch_index(std::slice::from_ref(value), 0);
}
