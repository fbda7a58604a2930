//! Places that an agent may connect to over TCP (`allow.tcp`).

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::call_target::{CallHost, CallTarget};
use crate::reach::{Reach, is_public};

/// The start of a host that stands for all names below a domain.
const BELOW: &str = "*.";

/// A place that an agent may connect to. Stored with the settings of a revision, in the form in which it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WrittenTcpPlace", into = "WrittenTcpPlace")]
pub struct TcpPlace {
    host: TcpHost,
    port: u16,
    /// Set if its name may lead to an address that is not of the public internet.
    private: bool,
}

/// The form of a place in which it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WrittenTcpPlace {
    to: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    private: bool,
}

// In the order in which they are less and less exact, which decides which of two places a connection counts for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum TcpHost {
    Address(IpAddr),
    Name(String),
    /// The names below a domain.
    Below(String),
    /// The addresses that begin with so many bits of this one.
    Network(IpAddr, u8),
}

/// The reason why a text is no place for connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TcpPlaceError {
    /// A text without a port.
    #[error("it has no port")]
    Port,
    /// A host that no name or address can be.
    #[error("its host is neither a name nor an address")]
    Host,
    /// A network whose length is none, or whose address has bits beyond it.
    #[error("its network has a length that does not fit its address")]
    Network,
}

/// The reason why a connection or a look-up is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TcpRefusal {
    /// An agent without places.
    #[error("`allow.tcp` lists the places that it may connect to, and has none")]
    Nothing,
    /// A name or an address that no place has.
    #[error("no place of `allow.tcp` has this host; it needs one such as \"{0}\"")]
    NotGranted(String),
    /// A host that a place has with another port.
    #[error("`allow.tcp` has `{0}`, which is another port")]
    OtherPort(String),
    /// A name that leads to an address which the place may not have.
    #[error(
        "the host of `{0}` has no address that it may have; `private = true` allows those of this machine and of private \
         networks"
    )]
    Prohibited(String),
}

impl TcpPlace {
    /// Parses a place: a host and a port, such as `db.example.com:5432`, `*.db.example.com:27017`, `10.0.0.7:5432`,
    /// `[fd00::7]:5432`, `10.0.0.0/8:5432` or `[fd00::/8]:5432`.
    ///
    /// # Errors
    /// The text is none of these.
    pub fn new(text: &str, private: bool) -> Result<Self, TcpPlaceError> {
        let (host, port) = text.trim().rsplit_once(':').ok_or(TcpPlaceError::Port)?;
        // The parser of numbers takes a sign, and no port has one.
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| is_number && *port > 0).ok_or(TcpPlaceError::Port)?;
        Ok(Self { host: TcpHost::parse(host)?, port, private })
    }

    /// Returns the place as text, by which logs, events and metrics name it.
    pub fn to(&self) -> String {
        self.to_string()
    }

    /// Returns `true` if it may be at an address that is not of the public internet.
    pub fn may_be_private(&self) -> bool {
        match &self.host {
            TcpHost::Address(address) => !is_public(*address),
            TcpHost::Name(_) | TcpHost::Below(_) => self.private,
            // Not compared with all special networks: only one of single addresses is known to be public.
            TcpHost::Network(address, bits) => *bits < width(*address) || !is_public(*address),
        }
    }

    /// Returns `true` if a name in normal form may be looked up for it.
    fn has_name(&self, name: &str) -> bool {
        match &self.host {
            TcpHost::Name(own) => own == name,
            TcpHost::Below(domain) => {
                name.strip_suffix(domain.as_str()).is_some_and(|left| left.len() > 1 && left.ends_with('.'))
            }
            TcpHost::Address(_) | TcpHost::Network(..) => false,
        }
    }

    /// Returns `true` if it has the address by itself, whatever name leads there.
    fn has_address(&self, address: IpAddr) -> bool {
        match &self.host {
            // Both are in canonical form, so that a mapped address is its own.
            TcpHost::Address(own) => *own == address,
            TcpHost::Network(network, bits) => is_within(address, *network, *bits),
            TcpHost::Name(_) | TcpHost::Below(_) => false,
        }
    }

    /// Returns the addresses that its name may lead to.
    fn reach(&self) -> Reach {
        if self.private { Reach::Any } else { Reach::Public }
    }
}

impl TcpHost {
    fn parse(text: &str) -> Result<Self, TcpPlaceError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Some((address, bits)) = bare.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| TcpPlaceError::Host)?;
            // A mapped one would be compared with addresses that are brought to their own form.
            if address.to_canonical() != address {
                return Err(TcpPlaceError::Host);
            }
            let bits: u8 = bits.parse().map_err(|_| TcpPlaceError::Network)?;
            let fits = bits <= width(address) && (bits == width(address) || low_bits(address, bits) == 0);
            return if fits { Ok(Self::Network(address, bits)) } else { Err(TcpPlaceError::Network) };
        }
        let below = text.strip_prefix(BELOW);
        match (below, host_of(below.unwrap_or(text))?) {
            (None, CallHost::Address(address)) => Ok(Self::Address(address)),
            (None, CallHost::Name(name)) => Ok(Self::Name(name)),
            (Some(_), CallHost::Name(domain)) => Ok(Self::Below(domain)),
            // Nothing is below an address.
            (Some(_), CallHost::Address(_)) => Err(TcpPlaceError::Host),
        }
    }
}

/// Returns a host in normal form.
fn host_of(text: &str) -> Result<CallHost, TcpPlaceError> {
    // A path, a user or a port in it would be taken for a part of the URL.
    if text.is_empty() || text.contains(['/', '?', '#', '@', '\\', '*', '%']) {
        return Err(TcpPlaceError::Host);
    }
    // An address of IPv6 without brackets could not be told from a name with a port.
    if text.contains(':') && !text.starts_with('[') {
        return Err(TcpPlaceError::Host);
    }
    let target = CallTarget::parse(&format!("http://{text}/")).map_err(|_| TcpPlaceError::Host)?;
    Ok(target.host().clone())
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// Returns the bits of an address behind the first few.
fn low_bits(address: IpAddr, bits: u8) -> u128 {
    let low = u32::from(width(address) - bits);
    // All of them for a network of all addresses, by which one cannot shift.
    number(address) & 1_u128.checked_shl(low).map_or(u128::MAX, |end| end - 1)
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let low = u32::from(width(network) - bits);
    let first = |address| number(address).checked_shr(low).unwrap_or(0);
    address.is_ipv4() == network.is_ipv4() && first(address) == first(network)
}

/// Decides which of an agent's places a look-up is for.
///
/// # Errors
/// No place has the name.
pub(crate) fn lookup<'a>(
    places: &'a BTreeSet<TcpPlace>,
    name: &str,
) -> Result<(String, Vec<&'a TcpPlace>), TcpRefusal> {
    if places.is_empty() {
        return Err(TcpRefusal::Nothing);
    }
    let suggested = |name: &str| TcpRefusal::NotGranted(format!("{name}:5432"));
    let Ok(CallHost::Name(normal)) = host_of(name) else { return Err(suggested(name)) };
    let found: Vec<&TcpPlace> = places.iter().filter(|place| place.has_name(&normal)).collect();
    if found.is_empty() { Err(suggested(&normal)) } else { Ok((normal, found)) }
}

/// Returns the addresses that the places of a look-up may have.
///
/// # Errors
/// There is none among them.
pub(crate) fn admitted(places: &[&TcpPlace], found: &[IpAddr]) -> Result<Vec<IpAddr>, TcpRefusal> {
    let admits = |address: &IpAddr| places.iter().any(|place| place.reach().admits(*address));
    let addresses: Vec<IpAddr> = found.iter().copied().filter(admits).collect();
    match places.first() {
        Some(place) if addresses.is_empty() => Err(TcpRefusal::Prohibited(place.to())),
        Some(_) | None => Ok(addresses),
    }
}

/// Decides which of an agent's places a connection is for. `names` are those that were looked up and led to the address.
///
/// # Errors
/// No place has the address and the port.
pub(crate) fn connection<'a>(
    places: &'a BTreeSet<TcpPlace>,
    address: SocketAddr,
    names: &[&str],
) -> Result<&'a TcpPlace, TcpRefusal> {
    if places.is_empty() {
        return Err(TcpRefusal::Nothing);
    }
    let (ip, port) = (address.ip().to_canonical(), address.port());
    // By all names that led there: several places may be at one address.
    let by_name = |place: &TcpPlace| names.iter().any(|name| place.has_name(name));
    let has = |place: &&TcpPlace| place.has_address(ip) || by_name(place) && place.reach().admits(ip);
    if let Some(place) = places.iter().filter(|place| place.port == port).find(has) {
        return Ok(place);
    }
    // What is nearest to a grant is most likely to be what its author meant.
    if let Some(place) = places.iter().filter(|place| place.port == port).find(|place| by_name(place)) {
        return Err(TcpRefusal::Prohibited(place.to()));
    }
    Err(match places.iter().find(|place| place.has_address(ip) || by_name(place)) {
        Some(place) => TcpRefusal::OtherPort(place.to()),
        None => TcpRefusal::NotGranted(SocketAddr::new(ip, port).to_string()),
    })
}

impl TryFrom<WrittenTcpPlace> for TcpPlace {
    type Error = TcpPlaceError;

    fn try_from(written: WrittenTcpPlace) -> Result<Self, TcpPlaceError> {
        Self::new(&written.to, written.private)
    }
}

impl From<TcpPlace> for WrittenTcpPlace {
    fn from(place: TcpPlace) -> Self {
        Self { to: place.to(), private: place.private }
    }
}

/// Writes host and port.
impl fmt::Display for TcpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TcpHost::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            TcpHost::Name(name) => write!(f, "{name}:{}", self.port),
            TcpHost::Below(domain) => write!(f, "{BELOW}{domain}:{}", self.port),
            TcpHost::Network(address @ IpAddr::V4(_), bits) => write!(f, "{address}/{bits}:{}", self.port),
            TcpHost::Network(address, bits) => write!(f, "[{address}/{bits}]:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_with_ports() {
        for (text, expected) in [
            ("db.example.com:5432", Ok("db.example.com:5432")),
            ("DB.Example.com.:5432", Ok("db.example.com:5432")),
            ("*.db.example.com:27017", Ok("*.db.example.com:27017")),
            ("10.0.0.7:5432", Ok("10.0.0.7:5432")),
            ("127.1:5432", Ok("127.0.0.1:5432")),
            ("[::1]:5432", Ok("[::1]:5432")),
            ("[::ffff:10.0.0.7]:1", Ok("10.0.0.7:1")),
            ("10.0.0.0/8:5432", Ok("10.0.0.0/8:5432")),
            ("0.0.0.0/0:5432", Ok("0.0.0.0/0:5432")),
            ("[fd00::/8]:5432", Ok("[fd00::/8]:5432")),
            ("db.example.com", Err(TcpPlaceError::Port)),
            ("db.example.com:", Err(TcpPlaceError::Port)),
            ("db.example.com:0", Err(TcpPlaceError::Port)),
            ("db.example.com:+1", Err(TcpPlaceError::Port)),
            ("db.example.com:65536", Err(TcpPlaceError::Port)),
            ("::1:5432", Err(TcpPlaceError::Host)),
            (":5432", Err(TcpPlaceError::Host)),
            ("*.10.0.0.7:5432", Err(TcpPlaceError::Host)),
            ("*:5432", Err(TcpPlaceError::Host)),
            ("tcp://db.example.com:5432", Err(TcpPlaceError::Host)),
            ("user@db.example.com:5432", Err(TcpPlaceError::Host)),
            ("10.0.0.1/8:5432", Err(TcpPlaceError::Network)),
            ("10.0.0.0/33:5432", Err(TcpPlaceError::Network)),
            ("db.example.com/8:5432", Err(TcpPlaceError::Host)),
        ] {
            let parsed = TcpPlace::new(text, false);
            assert_eq!(
                parsed.as_ref().map(TcpPlace::to).map_err(|error| *error),
                expected.map(str::to_owned),
                "{text}"
            );
            if let Ok(place) = parsed {
                let stored = serde_json::to_string(&place).unwrap();
                assert_eq!(serde_json::from_str::<TcpPlace>(&stored).unwrap(), place, "{stored}");
            }
        }
    }

    #[test]
    fn connections_are_decided_by_address_port_and_the_names_that_led_there() {
        let places = BTreeSet::from([
            TcpPlace::new("db.example:5432", false).unwrap(),
            TcpPlace::new("inside.example:5432", true).unwrap(),
            TcpPlace::new("10.0.0.7:6379", false).unwrap(),
            TcpPlace::new("192.168.0.0/16:5432", false).unwrap(),
            TcpPlace::new("*.cluster.example:27017", true).unwrap(),
        ]);
        for (address, names, expected) in [
            ("93.184.215.14:5432", &["db.example"][..], Ok("db.example:5432")),
            ("93.184.215.14:5432", &[], Err(TcpRefusal::NotGranted("93.184.215.14:5432".to_owned()))),
            ("93.184.215.14:80", &["db.example"], Err(TcpRefusal::OtherPort("db.example:5432".to_owned()))),
            ("127.0.0.1:5432", &["db.example"], Err(TcpRefusal::Prohibited("db.example:5432".to_owned()))),
            ("[::ffff:127.0.0.1]:5432", &["db.example"], Err(TcpRefusal::Prohibited("db.example:5432".to_owned()))),
            ("127.0.0.1:5432", &["inside.example"], Ok("inside.example:5432")),
            ("127.0.0.1:5432", &["db.example", "inside.example"], Ok("inside.example:5432")),
            ("10.0.0.7:6379", &[], Ok("10.0.0.7:6379")),
            ("10.0.0.7:5432", &[], Err(TcpRefusal::OtherPort("10.0.0.7:6379".to_owned()))),
            ("192.168.9.9:5432", &[], Ok("192.168.0.0/16:5432")),
            ("192.169.0.1:5432", &[], Err(TcpRefusal::NotGranted("192.169.0.1:5432".to_owned()))),
            ("10.1.1.1:27017", &["a.cluster.example"], Ok("*.cluster.example:27017")),
            ("10.1.1.1:27017", &["cluster.example"], Err(TcpRefusal::NotGranted("10.1.1.1:27017".to_owned()))),
        ] {
            let decided = connection(&places, address.parse().unwrap(), names).map(TcpPlace::to);
            assert_eq!(decided, expected.map(str::to_owned), "{address} {names:?}");
        }
        assert_eq!(connection(&BTreeSet::new(), "10.0.0.7:1".parse().unwrap(), &[]), Err(TcpRefusal::Nothing));
    }

    #[test]
    fn names_are_looked_up_for_places_that_have_them() {
        let places = BTreeSet::from([
            TcpPlace::new("db.example:5432", false).unwrap(),
            TcpPlace::new("db.example:5433", true).unwrap(),
            TcpPlace::new("*.cluster.example:1", false).unwrap(),
        ]);
        for (name, expected) in [
            ("db.example", Some(2)),
            ("DB.example.", Some(2)),
            ("a.cluster.example", Some(1)),
            ("cluster.example", None),
            ("evildb.example", None),
            ("db.example:5432", None),
            ("", None),
            ("db.example/x", None),
        ] {
            assert_eq!(lookup(&places, name).ok().map(|(_, found)| found.len()), expected, "{name}");
        }
        let address = ["127.0.0.1".parse().unwrap(), "1.1.1.1".parse().unwrap()];
        let (_, both) = lookup(&places, "db.example").unwrap();
        assert_eq!(admitted(&both, &address).unwrap().len(), 2, "one of the two may be private");
        assert_eq!(admitted(&both[..1], &address).unwrap(), address[1..]);
        let refused = admitted(&both[..1], &address[..1]).unwrap_err();
        assert!(refused.to_string().contains("private = true"), "{refused}");
    }
}
