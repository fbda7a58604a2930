//! The digest by which components are known.

use caxton_control::Digest;
use sha2::{Digest as _, Sha256};

/// Returns the SHA-256 of bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}
