//! Memory that is read soon: fetched from afar while something else is done.
//!
//! What waits in a long mailbox was written long ago and is in no cache any more. To read of all its parts at once, some
//! messages before its turn, makes the processor fetch them side by side; when it is handled each would wait for the one
//! before.

use std::hint::black_box;

/// Bytes that the processor fetches at once.
const LINE: usize = 64;
/// The processor itself goes on with what is read one line after the other.
const MOST: usize = 16 * LINE;

/// Fetches the beginning of some bytes.
pub(crate) fn bytes(bytes: &[u8]) {
    for line in bytes[..bytes.len().min(MOST)].chunks(LINE) {
        black_box(line.first().copied());
    }
}
