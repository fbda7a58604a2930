//! The names that a guest has looked up.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// The addresses of names that are remembered, of each guest.
const MAX_NAMES: usize = 256;

/// The names that a guest has looked up, with the addresses that they led to. What it connects to later is decided by them.
#[derive(Debug, Default)]
pub(in crate::wasm) struct KnownNames(VecDeque<(IpAddr, Arc<str>)>);

impl KnownNames {
    /// Notes that a name led to an address.
    pub(super) fn note(&mut self, address: IpAddr, name: &Arc<str>) {
        let address = address.to_canonical();
        self.0.retain(|known| (known.0, &known.1) != (address, name));
        if self.0.len() == MAX_NAMES {
            self.0.pop_front();
        }
        self.0.push_back((address, Arc::clone(name)));
    }

    /// Returns the names that led to an address.
    pub(super) fn of(&self, address: IpAddr) -> Vec<String> {
        let address = address.to_canonical();
        self.0.iter().filter(|known| known.0 == address).map(|known| known.1.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_addresses_are_remembered_within_a_bound() {
        let (mut known, name) = (KnownNames::default(), |text: &str| Arc::<str>::from(text));
        let first: IpAddr = "10.0.0.1".parse().unwrap();
        known.note(first, &name("a"));
        known.note(first, &name("a"));
        known.note("::ffff:10.0.0.1".parse().unwrap(), &name("b"));
        assert_eq!(known.of(first), ["a", "b"]);
        assert!(known.of("10.0.0.2".parse().unwrap()).is_empty());
        for number in 0..1_000_u32 {
            known.note(IpAddr::V4(number.into()), &name("c"));
        }
        assert_eq!((known.0.len(), known.of(first).len()), (MAX_NAMES, 0), "the oldest leave first");
    }
}
