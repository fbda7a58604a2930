//! The settings of calls over HTTP (`[outgoing]`).

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::call_target::{CallHost, CallTarget};
use crate::secret::SecretText;

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
    /// The TCP connections of all agents at once; further ones wait.
    pub connections: u32,
    /// The TCP connections that handling one message may make.
    pub connections_per_message: u32,
    /// The most that is recorded of one message's calls, in bytes.
    pub journal_max_bytes: u64,
    /// The files of certificates that are trusted beside those of the system, relative to the folder of the declaration.
    pub ca: Vec<String>,
    /// The proxy for places that are not private.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,
}

/// The host and the port of an HTTP proxy, with what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySpec {
    host: CallHost,
    port: u16,
    /// The user and the password, with references to secrets.
    credentials: Option<String>,
}

/// The reason why a text is not the URL of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyError {
    /// A text with another scheme, with a path, or that is no URL; shown without a password.
    Url(String),
    /// A password that is no secret.
    Password,
}

impl ProxySpec {
    /// Parses the URL of a proxy. The password has to be a reference to a secret.
    ///
    /// # Errors
    /// Another scheme, a path, or a password that stands in the text.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        // The last one: a password in clear may have others, and must not be told as a host.
        let (credentials, host) = match rest.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, rest),
        };
        let bare = format!("{scheme}://{host}");
        let Some(target) = CallTarget::parse(&bare).ok().filter(|target| {
            let is_bare = !host.contains(['?', '#']) && target.path() == "/";
            is_bare && !target.is_https()
        }) else {
            // Without the user in front of the host, which may be a password.
            return Err(ProxyError::Url(if scheme.is_empty() { host.to_owned() } else { bare }));
        };
        if let Some(given) = credentials {
            let password = password(given).ok_or_else(|| ProxyError::Url(bare.clone()))?;
            // A reference that is malformed is told of with the other texts that have some.
            let is_secret = SecretText::parse(password).map_or(true, |text| text.names().next().is_some());
            if !is_secret {
                return Err(ProxyError::Password);
            }
        }
        let credentials = credentials.map(str::to_owned);
        Ok(Self { host: target.host().clone(), port: target.port(), credentials })
    }

    /// Returns user and password with references to secrets, if it asks for some.
    pub fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref()
    }

    /// Returns user and password, joined by a colon, if it asks for some.
    ///
    /// # Errors
    /// The name of the first secret that has no value.
    pub fn resolve_credentials<'v>(&self, value: impl Fn(&str) -> Option<&'v str>) -> Result<Option<String>, String> {
        let Some(text) = &self.credentials else { return Ok(None) };
        match SecretText::parse(text) {
            Ok(parsed) => parsed.resolve(value).map(Some),
            // Refused with the declaration.
            Err(_) => Ok(None),
        }
    }

    /// Returns the URL without user and password.
    pub fn origin(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
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

/// Returns the password of credentials: what follows the first colon that is no part of a reference.
fn password(credentials: &str) -> Option<&str> {
    let mut is_within = false;
    for (at, character) in credentials.char_indices() {
        match character {
            '{' if credentials[..at].ends_with('$') => is_within = true,
            '}' => is_within = false,
            ':' if !is_within => return Some(&credentials[at + 1..]),
            _ => {}
        }
    }
    None
}

/// Writes the URL, with references in place of secrets.
impl fmt::Display for ProxySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.credentials {
            Some(credentials) => write!(f, "http://{credentials}@{}:{}", self.host, self.port),
            None => write!(f, "http://{}:{}", self.host, self.port),
        }
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
            ("http://proxy.example:3128", Ok("http://proxy.example:3128")),
            ("http://Proxy.Example/", Ok("http://proxy.example:80")),
            ("http://[::1]:8080", Ok("http://[::1]:8080")),
            ("http://me:${secret:p}@proxy.example", Ok("http://me:${secret:p}@proxy.example:80")),
            ("http://${secret:u}:${secret:p}@proxy.example", Ok("http://${secret:u}:${secret:p}@proxy.example:80")),
            ("https://proxy.example:3128", Err("https://proxy.example:3128")),
            ("socks5://proxy.example", Err("socks5://proxy.example")),
            ("proxy.example:3128", Err("proxy.example:3128")),
            ("https://me:hunter2@proxy.example", Err("https://proxy.example")),
            ("http://me@proxy.example", Err("http://proxy.example")),
            ("http://proxy.example/path", Err("http://proxy.example/path")),
        ] {
            let parsed = ProxySpec::parse(text).map(|proxy| proxy.to_string());
            assert_eq!(parsed, expected.map(str::to_owned).map_err(|text| ProxyError::Url(text.to_owned())), "{text}");
        }
        for text in
            ["http://me:hunter2@proxy.example", "http://me:@proxy.example", "http://me:$${secret:p}@proxy.example"]
        {
            assert_eq!(ProxySpec::parse(text), Err(ProxyError::Password), "{text}");
        }
    }

    #[test]
    fn credentials_are_made_of_secrets() {
        let proxy = ProxySpec::parse("http://me:${secret:p}@proxy.example").unwrap();
        assert_eq!(proxy.resolve_credentials(|name| (name == "p").then_some("a:b@c")), Ok(Some("me:a:b@c".to_owned())));
        assert_eq!(proxy.resolve_credentials(|_| None), Err("p".to_owned()));
        assert_eq!(proxy.origin(), "http://proxy.example:80");
        let open = ProxySpec::parse("http://proxy.example").unwrap();
        assert_eq!(open.resolve_credentials(|_| None), Ok(None));
    }
}
