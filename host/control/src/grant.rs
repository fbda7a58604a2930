//! The grants of an agent: the receivers that it may send to, the places that it may call over HTTP or connect to, and the
//! environment variables and folders that it sees.
//!
//! An agent may send to what its `allow.send` lists, and nowhere else. A name grants one agent. `cap:NAME` grants a
//! capability, and with it every agent that declares it, also one that is addressed by name: a reply to an agent that
//! was found by its capability needs no second grant. The reverse does not hold: the grant of a single agent does not
//! cover the other agents that have, or will have, the same capability.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::call_target::{CallTarget, TargetError};
use crate::folder::FolderGrant;
use crate::names::{AgentName, CAPABILITY_PREFIX, Capability, Receiver};
use crate::place::{CallPlace, is_forbidden_method};
use crate::tcp_place::{self, TcpPlace, TcpRefusal};

/// The table `allow`: the grants of the agent. Empty lists grant nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// The receivers that it may send to.
    pub send: BTreeSet<Receiver>,
    /// The environment variables of the host that it sees.
    pub env: BTreeSet<String>,
    /// The clocks that it reads.
    #[serde(default)]
    pub clock: Supply,
    /// The random numbers that it gets.
    #[serde(default)]
    pub random: Supply,
    /// The places that it may call over HTTP.
    // Left out if empty, as in what was stored before there were any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub http: BTreeSet<CallPlace>,
    /// The places that it may connect to over TCP.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tcp: BTreeSet<TcpPlace>,
    /// The folders that it sees.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub files: BTreeSet<FolderGrant>,
}

/// The source of an agent's clocks, or of its random numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supply {
    /// The machine.
    #[default]
    Real,
    /// None: a call that asks for it ends.
    None,
    /// The message: the same values in each attempt.
    Message,
}

/// The reason why a call over HTTP is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceRefusal {
    /// A target that no call can have.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// A method that no call may have.
    #[error("no call may have the method `{0}`")]
    Method(String),
    /// A target of which a place has the host, and not the path.
    #[error("`allow.http` has `{0}`, which does not cover the path")]
    OtherPath(String),
    /// A target that a place has for other methods.
    #[error("`allow.http` has `{0}` for other methods")]
    OtherMethod(String),
    /// A target of which no place has the host.
    #[error("no place of `allow.http` has this host; it needs one such as \"{0}\"")]
    NotGranted(String),
}

/// The receiver of a message as its sender wrote it, which need not follow the rule for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'a> {
    /// An agent, by name.
    Agent(&'a str),
    /// An agent with this capability, whichever it is.
    Capability(&'a str),
}

impl<'a> Address<'a> {
    /// Parses the receiver of a message; no text means the sender itself.
    pub fn of(receiver: &'a str, sender: &'a str) -> Self {
        match receiver.strip_prefix(CAPABILITY_PREFIX) {
            Some(capability) => Self::Capability(capability),
            None if receiver.is_empty() => Self::Agent(sender),
            None => Self::Agent(receiver),
        }
    }
}

impl Grants {
    /// Returns `true` if clocks or random numbers follow from the message.
    pub fn follows_message(&self) -> bool {
        self.clock == Supply::Message || self.random == Supply::Message
    }

    /// Returns `true` if the agent may send to a capability: to one agent that has it, or to all.
    pub fn covers_capability(&self, capability: &str) -> bool {
        // The grant of a single agent does not cover all agents that may have the capability later.
        let names = |grant: &Receiver| matches!(grant, Receiver::Capability(name) if name.as_str() == capability);
        self.send.iter().any(names)
    }

    /// Returns the place by which the agent may make this call. Of several, the one with the more exact host decides, then
    /// the one with the longer path.
    ///
    /// # Errors
    /// No place covers the call, or no call may have the method.
    pub fn place(&self, method: &str, target: &CallTarget) -> Result<&CallPlace, PlaceRefusal> {
        if is_forbidden_method(method) {
            return Err(PlaceRefusal::Method(method.to_owned()));
        }
        let covering = self.http.iter().filter(|place| place.has(target) && place.takes(method));
        if let Some(place) = covering.max_by_key(|place| place.exactness()) {
            return Ok(place);
        }
        // What is nearest to a grant is most likely to be what its author meant.
        if let Some(place) = self.http.iter().find(|place| place.has(target)) {
            return Err(PlaceRefusal::OtherMethod(place.url()));
        }
        Err(match self.http.iter().find(|place| place.is_at_origin(target)) {
            Some(place) => PlaceRefusal::OtherPath(place.url()),
            None => PlaceRefusal::NotGranted(format!("{}/*", target.origin())),
        })
    }

    /// Returns the normal form of a name that the agent may look up, with the places that it is for.
    ///
    /// # Errors
    /// No place has the name.
    pub fn lookup(&self, name: &str) -> Result<(String, Vec<&TcpPlace>), TcpRefusal> {
        tcp_place::lookup(&self.tcp, name)
    }

    /// Returns those of a name's addresses that the agent may have, for the places of its look-up.
    ///
    /// # Errors
    /// There is none among them.
    pub fn admitted(places: &[&TcpPlace], found: &[IpAddr]) -> Result<Vec<IpAddr>, TcpRefusal> {
        tcp_place::admitted(places, found)
    }

    /// Returns the place by which the agent may make this connection. `names` are those that it has looked up and that led
    /// to the address.
    ///
    /// # Errors
    /// No place has the address and the port.
    pub fn connection(&self, address: SocketAddr, names: &[&str]) -> Result<&TcpPlace, TcpRefusal> {
        tcp_place::connection(&self.tcp, address, names)
    }

    /// Returns the names of the secrets that the host adds to calls.
    pub fn secrets(&self) -> BTreeSet<String> {
        self.http.iter().flat_map(CallPlace::secrets).collect()
    }

    /// Returns `true` if the agent may send to the agent `name`. `capabilities` are those that the receiver declares;
    /// `None` for a receiver that does not exist.
    pub fn covers_agent(&self, name: &str, capabilities: Option<&BTreeSet<Capability>>) -> bool {
        self.send.iter().any(|grant| match grant {
            Receiver::Agent(granted) => granted.as_str() == name,
            Receiver::Capability(granted) => capabilities.is_some_and(|declared| declared.contains(granted)),
        })
    }
}

/// The agents and capabilities of a configuration, which are what a grant can refer to.
#[derive(Debug, Default)]
pub(crate) struct Grantable {
    pub(crate) agents: BTreeSet<AgentName>,
    pub(crate) capabilities: BTreeSet<Capability>,
}

impl Grantable {
    /// Returns `true` if a grant refers to a declared agent, or to a capability that some agent declares.
    pub(crate) fn contains(&self, grant: &Receiver) -> bool {
        match grant {
            Receiver::Agent(name) => self.agents.contains(name),
            Receiver::Capability(name) => self.capabilities.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::place::PlaceUrl;

    #[test]
    fn receivers_are_parsed_as_written() {
        for (receiver, expected) in [
            ("", Address::Agent("desk")),
            ("billing", Address::Agent("billing")),
            ("cap:archive", Address::Capability("archive")),
            ("cap:", Address::Capability("")),
            ("CAP:archive", Address::Agent("CAP:archive")),
            ("no name at all", Address::Agent("no name at all")),
        ] {
            assert_eq!(Address::of(receiver, "desk"), expected, "{receiver:?}");
        }
    }

    #[test]
    fn the_most_exact_place_decides_over_a_call() {
        let place = |url: &str, methods: &[&str]| {
            let methods = methods.iter().map(|method| (*method).to_owned()).collect();
            CallPlace::new(PlaceUrl::parse(url).unwrap(), methods, BTreeMap::new(), false).unwrap()
        };
        let grants = Grants {
            http: BTreeSet::from([
                place("https://api.example.com/v1/*", &["GET", "POST"]),
                place("https://api.example.com/v1/keys", &["GET"]),
                place("https://api.example.com/v1/files/*", &["PUT"]),
                place("https://*.example.com", &[]),
                place("https://*.eu.example.com/v1/*", &[]),
                place("http://127.0.0.1:8080", &[]),
                place("http://[::1]:8080/a", &[]),
            ]),
            ..Grants::default()
        };
        let api = Ok("https://api.example.com/v1/*");
        let all = Ok("https://*.example.com/*");
        let ours = Ok("http://127.0.0.1:8080/*");
        for (method, url, expected) in [
            ("GET", "https://api.example.com/v1/a?b=c#d", api),
            ("POST", "https://API.example.com:443/v1/", api),
            ("POST", "https://api.example.com./v1/keys", api),
            ("GET", "https://api.example.com/v1/keys", Ok("https://api.example.com/v1/keys")),
            ("PUT", "https://api.example.com/v1/files/a", Ok("https://api.example.com/v1/files/*")),
            ("PUT", "https://api.example.com/v1/a", all),
            ("get", "https://api.example.com/v1/a", all),
            ("GET", "https://api.example.com/v1/../v2/a", all),
            ("GET", "https://api.example.com/v1/..%2fv2", all),
            ("GET", "https://a.b.example.com/", all),
            ("GET", "https://a.eu.example.com/v1/x", Ok("https://*.eu.example.com/v1/*")),
            ("GET", "https://a.eu.example.com/v2/x", all),
            ("GET", "http://127.0.0.1:8080/x", ours),
            ("GET", "http://127.1:8080/x", ours),
            ("GET", "http://0x7f.0.0.1:8080/x", ours),
            ("GET", "http://[::ffff:127.0.0.1]:8080/x", ours),
            ("GET", "http://[0::1]:8080/a", Ok("http://[::1]:8080/a")),
            (
                "GET",
                "http://[::1]:8080/b",
                Err("`allow.http` has `http://[::1]:8080/a`, which does not cover the path"),
            ),
            (
                "GET",
                "http://127.0.0.1/x",
                Err("no place of `allow.http` has this host; it needs one such as \"http://127.0.0.1/*\""),
            ),
            (
                "GET",
                "https://127.0.0.1:8080/",
                Err("no place of `allow.http` has this host; it needs one such as \"https://127.0.0.1:8080/*\""),
            ),
            (
                "GET",
                "http://localhost:8080/",
                Err("no place of `allow.http` has this host; it needs one such as \"http://localhost:8080/*\""),
            ),
            (
                "GET",
                "https://example.com/",
                Err("no place of `allow.http` has this host; it needs one such as \"https://example.com/*\""),
            ),
            (
                "GET",
                "https://evilexample.com/",
                Err("no place of `allow.http` has this host; it needs one such as \"https://evilexample.com/*\""),
            ),
            (
                "GET",
                "https://api.example.com.evil.com/",
                Err(
                    "no place of `allow.http` has this host; it needs one such as \"https://api.example.com.evil.com/*\"",
                ),
            ),
            ("GET", "https://api.example.com@evil.com/v1/a", Err("it has a user or a password in front of its host")),
            ("CONNECT", "https://api.example.com/v1/a", Err("no call may have the method `CONNECT`")),
            ("trace", "https://api.example.com/v1/a", Err("no call may have the method `trace`")),
        ] {
            let decided = CallTarget::parse(url)
                .map_err(PlaceRefusal::from)
                .and_then(|target| grants.place(method, &target).map(CallPlace::url));
            let decided = decided.as_deref().map_err(ToString::to_string);
            assert_eq!(decided, expected.map_err(str::to_owned), "{method} {url}");
        }
        let narrow = Grants { http: BTreeSet::from([place("https://a.example/v1/*", &["GET"])]), ..Grants::default() };
        let target = CallTarget::parse("https://a.example/v1/x").unwrap();
        let refused = narrow.place("POST", &target).unwrap_err().to_string();
        assert_eq!(refused, "`allow.http` has `https://a.example/v1/*` for other methods");
    }

    #[test]
    fn a_capability_covers_its_agents_and_not_the_reverse() {
        let allow = |grants: &[&str]| Grants {
            send: grants.iter().map(|grant| grant.parse().unwrap()).collect(),
            ..Grants::default()
        };
        // grants, receiver, the receiver's capabilities, allowed
        for (grants, receiver, capabilities, expected) in [
            (&[][..], "billing", &[][..], false),
            (&[], "cap:archive", &[], false),
            (&["billing"], "billing", &["archive"], true),
            (&["billing"], "cap:archive", &["archive"], false),
            (&["billing"], "cap:billing", &[], false),
            (&["cap:archive"], "cap:archive", &[], true),
            (&["cap:archive"], "billing", &["archive"], true),
            (&["cap:archive"], "billing", &["audit"], false),
            (&["cap:archive"], "archive", &[], false),
            (&["desk", "cap:archive"], "desk", &[], true),
        ] {
            let capabilities = capabilities.iter().map(|name| name.parse().unwrap()).collect();
            let found = match Address::of(receiver, "sender") {
                Address::Agent(name) => allow(grants).covers_agent(name, Some(&capabilities)),
                Address::Capability(name) => allow(grants).covers_capability(name),
            };
            assert_eq!(found, expected, "{grants:?} {receiver} {capabilities:?}");
        }
    }
}
