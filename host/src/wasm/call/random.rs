//! The bound of random bytes that a guest gets at once, with an error of its own.

use crate::wasm::call::fault::TooManyRandomBytes;

/// The number of random bytes that a guest may request at once.
pub(in crate::wasm) const MAX_RANDOM: u64 = 64 << 10;

/// Checks the number of random bytes that a guest asks for.
pub(in crate::wasm) fn check(length: u64) -> Result<(), TooManyRandomBytes> {
    if length > MAX_RANDOM { Err(TooManyRandomBytes(MAX_RANDOM)) } else { Ok(()) }
}
