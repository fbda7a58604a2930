//! The addresses that a call may reach.
//!
//! A name may resolve to any address, and whoever owns the name decides which: without this check an agent that may call
//! `https://example.com` could be led to the metadata service of the cloud, or to a database beside the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that a connection may be made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Addresses of the public internet.
    Public,
    /// The addresses of all kinds.
    Any,
    /// Addresses of all kinds but those of the public internet.
    Private,
}

impl Reach {
    /// The reaches, in the order of the variants.
    pub const ALL: [Self; 3] = [Self::Public, Self::Any, Self::Private];

    /// Returns `true` if a connection may be made to the address.
    pub fn admits(self, address: IpAddr) -> bool {
        match self {
            Self::Public => is_public(address),
            Self::Any => true,
            Self::Private => !is_public(address),
        }
    }
}

/// Returns `true` for an address of the public internet, by the registries of IANA for special purposes.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, d] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            // Shared by the customers of a provider (RFC 6598); one cloud has its metadata there.
            | (100, 64..=127, _)
            // Link-local, with the metadata of most clouds at 169.254.169.254.
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            // Of protocols; one cloud has its metadata there. Then documentation and the relays of 6to4.
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            // Benchmarks and documentation.
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            // Multicast, reserved, broadcast.
            | (224..=255, ..)
    );
    // A public number that one cloud answers from inside each machine.
    !special && [a, b, c, d] != [168, 63, 129, 16]
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    match (a, b) {
        // NAT64 (RFC 6052): the last 32 bits are the address that is reached.
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => {
            let [g, h] = [g, h].map(u16::to_be_bytes);
            is_public_v4(Ipv4Addr::new(g[0], g[1], h[0], h[1]))
        }
        // Protocols, with Teredo, whose addresses contain others.
        (0x2001, ..=0x1ff) => false,
        // Documentation, and 6to4, whose addresses contain others.
        (0x2001, 0xdb8) | (0x2002, _) | (0x3fff, ..=0xfff) => false,
        // All that is allocated to the public is in 2000::/3.
        _ => (0x2000..=0x3fff).contains(&a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for (address, expected) in [
            ("1.1.1.1", true),
            ("93.184.215.14", true),
            ("172.15.0.1", true),
            ("172.32.0.1", true),
            ("100.63.0.1", true),
            ("100.128.0.1", true),
            ("223.255.255.255", true),
            ("2606:4700::1111", true),
            ("2a00:1450::1", true),
            ("64:ff9b::1.1.1.1", true),
            ("::ffff:1.1.1.1", true),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("100.100.100.200", false),
            ("127.0.0.1", false),
            ("127.255.255.255", false),
            ("168.63.129.16", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.0.0.192", false),
            ("192.0.2.1", false),
            ("192.168.1.1", false),
            ("198.18.0.1", false),
            ("203.0.113.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:169.254.169.254", false),
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b:1::1", false),
            ("100::1", false),
            ("2001::1", false),
            ("2001:db8::1", false),
            ("2002:7f00:1::1", false),
            ("3fff::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("fec0::1", false),
            ("ff02::1", false),
        ] {
            let parsed: IpAddr = address.parse().unwrap();
            assert_eq!(is_public(parsed), expected, "{address}");
            assert_eq!(Reach::ALL.map(|reach| reach.admits(parsed)), [expected, true, !expected], "{address}");
        }
    }
}
