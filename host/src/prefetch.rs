//! Memory that is read soon: fetched from afar while something else is done.
//!
//! What waits in a long mailbox was written long ago and is in no cache any more. The processor is told of the next
//! messages while one is handled, so that no handling begins with waiting for memory, however much of it there is.
//! Where the processor has no such instruction nothing happens.

/// Bytes that the processor fetches at once.
const LINE: usize = 64;
/// The processor itself goes on with what is read one line after the other.
const MOST: usize = 16 * LINE;

/// Fetches a value, without what it points to.
pub(crate) fn value<T>(value: &T) {
    lines(std::ptr::from_ref(value).cast(), size_of::<T>());
}

/// Fetches the beginning of some bytes.
pub(crate) fn bytes(bytes: &[u8]) {
    lines(bytes.as_ptr(), bytes.len().min(MOST));
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instruction has no safe form; it reads nothing that the program sees")]
fn lines(first: *const u8, length: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for at in (0..length).step_by(LINE) {
        // SAFETY: a prefetch is a hint, which faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(at).cast()) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn lines(_: *const u8, _: usize) {}
