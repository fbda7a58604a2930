//! The settings of calls over HTTP (`[outgoing]`).

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::call_target::{CallHost, CallTarget};

/// The table `[outgoing]`: the bounds of calls, and the way to their servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutgoingSpec {
    /// The time for a connection: the name, the address, TLS.
    #[serde(with = "crate::units::serde_duration")]
    pub connect_timeout: Duration,
    /// The time for a server to begin its response.
    #[serde(with = "crate::units::serde_duration")]
    pub first_byte_timeout: Duration,
    /// The longest pause of a server.
    #[serde(with = "crate::units::serde_duration")]
    pub stall_timeout: Duration,
    /// The calls of all agents at once; further ones wait.
    pub calls: u32,
    /// The calls that handling one message may make.
    pub calls_per_message: u32,
    /// The largest body that is sent, in bytes.
    pub max_request_body_bytes: u64,
    /// The largest body that is received, in bytes.
    pub max_response_body_bytes: u64,
    /// The most that is recorded of one message's calls, in bytes.
    pub journal_max_bytes: u64,
    /// The files of certificates that are trusted beside those of the system, relative to the folder of the declaration.
    pub ca: Vec<String>,
    /// The proxy for places that are not private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
}

/// The host and the port of an HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySpec {
    host: CallHost,
    port: u16,
}

impl ProxySpec {
    /// Parses the URL of a proxy; `None` for another scheme, a path or credentials.
    pub fn parse(text: &str) -> Option<Self> {
        let target = CallTarget::parse(text.trim()).ok()?;
        let is_bare = !text.contains(['?', '#']) && target.path() == "/";
        (is_bare && !target.is_https()).then(|| Self { host: target.host().clone(), port: target.port() })
    }

    /// Returns the host.
    pub fn host(&self) -> &CallHost {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Writes the URL.
impl fmt::Display for ProxySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl Serialize for ProxySpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_hosts_with_ports() {
        for (text, expected) in [
            ("http://proxy.example:3128", Some("http://proxy.example:3128")),
            ("http://Proxy.Example/", Some("http://proxy.example:80")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("https://proxy.example:3128", None),
            ("socks5://proxy.example", None),
            ("proxy.example:3128", None),
            ("http://user:password@proxy.example", None),
            ("http://proxy.example/path", None),
        ] {
            assert_eq!(ProxySpec::parse(text).map(|proxy| proxy.to_string()).as_deref(), expected, "{text}");
        }
    }
}
