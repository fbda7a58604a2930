//! Clocks and random numbers that follow from a message, the same in each attempt.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sha2::{Digest as _, Sha256};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;

pub(in crate::wasm) const NANOS_PER_MS: u64 = 1_000_000;

/// The values that follow from the message in hand.
pub(in crate::wasm) struct OfMessage {
    /// The time at which the message was accepted, in milliseconds since 1970.
    pub(in crate::wasm) at_ms: u64,
    /// The generator of `wasi:random/random`, and that of `wasi:random/insecure`.
    // Two of them: a runtime that takes from one for itself must not move the other.
    pub(in crate::wasm) random: ChaCha20Rng,
    pub(in crate::wasm) insecure: ChaCha20Rng,
    pub(in crate::wasm) seed: (u64, u64),
}

impl Default for OfMessage {
    fn default() -> Self {
        Self::new("", 0)
    }
}

impl OfMessage {
    /// Creates the values of the message with this id, accepted at a time in milliseconds since 1970.
    pub(in crate::wasm) fn new(id: &str, at_ms: u64) -> Self {
        // Hashed, so that ids that differ little have nothing in common; with a name, so that the three differ.
        let generator = |name: &str| {
            let seed = Sha256::new().chain_update(name).chain_update([0]).chain_update(id).finalize();
            ChaCha20Rng::from_seed(seed.into())
        };
        let mut seeds = generator("seed");
        Self {
            at_ms,
            random: generator("random"),
            insecure: generator("insecure"),
            seed: (seeds.next_u64(), seeds.next_u64()),
        }
    }

    /// Returns so many bytes of a generator.
    pub(in crate::wasm) fn bytes(generator: &mut ChaCha20Rng, length: u64) -> Vec<u8> {
        // The length was checked, and is small.
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        generator.fill_bytes(&mut bytes);
        bytes
    }

    /// Returns the time of the wall clock.
    pub(in crate::wasm) fn datetime(&self) -> Datetime {
        let nanoseconds = u32::try_from(self.at_ms % 1_000 * NANOS_PER_MS).unwrap_or_default();
        Datetime { seconds: self.at_ms / 1_000, nanoseconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_from_the_message() {
        let taken = |mut values: OfMessage| {
            let random = OfMessage::bytes(&mut values.random, 40);
            (random, OfMessage::bytes(&mut values.insecure, 40), values.seed, values.datetime().seconds)
        };
        let (first, again, other) = (
            taken(OfMessage::new("m-1", 1_500)),
            taken(OfMessage::new("m-1", 1_500)),
            taken(OfMessage::new("m-2", 1_500)),
        );
        assert_eq!(first, again);
        assert!(first.0 != other.0 && first.1 != other.1 && first.2 != other.2);
        assert_ne!(first.0, first.1, "two generators");
        assert_eq!(OfMessage::new("m-1", 1_500).datetime().nanoseconds, 500_000_000);
    }
}
