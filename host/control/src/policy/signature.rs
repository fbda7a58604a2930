//! Signatures of components: the text that is signed, the keys, and the file beside a component that has its signatures.
//!
//! Signed is the SHA-256 of the bytes within a line of text, so that a signature can be checked by who knows only the
//! digest, and is one of nothing else.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::names::Digest;

/// The ending of the file with the signatures, behind the name of the component.
pub const SIGNATURE_ENDING: &str = ".sig";
/// The most bytes of a file of signatures: some hundred of them.
pub const MAX_SIGNATURE_FILE: u64 = 64 << 10;
const KIND: &str = "ed25519:";
const SIGNATURE_BYTES: usize = 64;

/// Returns the text that is signed for a component.
pub fn signed_text(digest: Digest) -> String {
    format!("caxton component sha256:{digest}\n")
}

/// A public key that is trusted to sign components, written `ed25519:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustedKey(pub [u8; 32]);

/// The error for a text that is no public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is `ed25519:` and 64 hexadecimal digits")]
pub struct TrustedKeyError;

impl FromStr for TrustedKey {
    type Err = TrustedKeyError;

    fn from_str(text: &str) -> Result<Self, TrustedKeyError> {
        let digits = text.strip_prefix(KIND).ok_or(TrustedKeyError)?;
        // Both have 32 bytes in hexadecimal digits.
        digits.parse::<Digest>().map(|Digest(bytes)| Self(bytes)).map_err(|_| TrustedKeyError)
    }
}

impl fmt::Display for TrustedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND}{}", Digest(self.0))
    }
}

impl Serialize for TrustedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A signature with the key that is said to have made it; a line of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ComponentSignature {
    /// The key.
    pub key: TrustedKey,
    /// The signature of [`signed_text`].
    pub signature: [u8; SIGNATURE_BYTES],
}

impl fmt::Display for ComponentSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.key)?;
        self.signature.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl ComponentSignature {
    /// Parses the file of signatures: one on each line, beside empty lines and those that begin with `#`. `None` if a line
    /// is none of these.
    pub fn parse_file(text: &str) -> Option<Vec<Self>> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(Self::parse).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let (key, digits) = line.split_once(' ')?;
        let digits = digits.trim_start();
        if digits.len() != 2 * SIGNATURE_BYTES || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut signature = [0; SIGNATURE_BYTES];
        for (at, byte) in signature.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Self { key: key.parse().ok()?, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_signatures_is_read_back() {
        let one = ComponentSignature { key: TrustedKey([1; 32]), signature: [0xab; 64] };
        let two = ComponentSignature { key: TrustedKey([2; 32]), ..one };
        assert_eq!(ComponentSignature::parse_file(&format!("# by us\n{one}\n\n  {two}\r\n")), Some(vec![one, two]));
        assert_eq!(ComponentSignature::parse_file(""), Some(Vec::new()));
        let short = one.to_string();
        for broken in [&short[..short.len() - 1], "ed25519:12 34", "something", &short.replace("ab", "xy")] {
            assert_eq!(ComponentSignature::parse_file(broken), None, "{broken}");
        }
    }

    #[test]
    fn keys_are_written_with_their_kind() {
        let key = TrustedKey([0x5f; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in ["", "ed25519:", &"5f".repeat(32), &format!("rsa:{}", "5f".repeat(32))] {
            assert_eq!(text.parse::<TrustedKey>(), Err(TrustedKeyError), "{text}");
        }
    }
}
