//! The target of a call over HTTP, in the one form in which it is compared, sent and shown.
//!
//! A grant compares text, and a server gives the text a meaning. Both have to read the same thing: a target is parsed as
//! the URL standard (WHATWG) asks for, is brought to the normal form of RFC 3986 (section 6.2.2), and is sent in that
//! form. What a server might still decode is in `CallTarget::is_below`.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// The host of a target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallHost {
    /// A name in lower case, in the form of the DNS, without a dot at its end.
    Name(String),
    /// An address. An IPv4 address that is written as an IPv6 one is the IPv4 address.
    Address(IpAddr),
}

/// The target of a call, in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallTarget {
    /// Set for `https`.
    pub(crate) is_https: bool,
    pub(crate) host: CallHost,
    pub(crate) port: u16,
    pub(crate) path: String,
}

/// The reason why a text is no target of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// A text that is not an absolute URL.
    #[error("it is no URL: {0}")]
    NoUrl(String),
    /// A scheme other than HTTP.
    #[error("its scheme is `{0}`, and calls are made over `https` and `http`")]
    Scheme(String),
    /// A name or a password in front of the host.
    #[error("it has a user or a password in front of its host")]
    UserInfo,
    /// A host that no name or address can be.
    #[error("its host is neither a name nor an address")]
    NoHost,
}

impl CallTarget {
    /// Parses an absolute URL. Query and fragment are no part of a target.
    ///
    /// # Errors
    /// The text is no URL with a host, its scheme is another, or it has a user.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        // Before the parser, which drops an empty user in silence.
        let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        let url = Url::parse(text).map_err(|error| TargetError::NoUrl(error.to_string()))?;
        let is_https = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(TargetError::Scheme(other.to_owned())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        let host = match url.host() {
            Some(Host::Ipv4(address)) => CallHost::Address(address.into()),
            Some(Host::Ipv6(address)) => CallHost::Address(IpAddr::from(address).to_canonical()),
            Some(Host::Domain(name)) => {
                // The root of the names may be written, and is the same host (RFC 3986, section 3.2.2).
                let name = name.strip_suffix('.').unwrap_or(name);
                if name.is_empty() || name.split('.').any(str::is_empty) {
                    return Err(TargetError::NoHost);
                }
                CallHost::Name(name.to_owned())
            }
            None => return Err(TargetError::NoHost),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(TargetError::NoHost)?;
        Ok(Self { is_https, host, port, path: normal_path(url.path()) })
    }

    /// Returns `true` for `https`.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// Returns the host.
    pub fn host(&self) -> &CallHost {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path. It begins with `/`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns host and port, without the port if it is the scheme's own.
    pub fn authority(&self) -> String {
        let own = if self.is_https { 443 } else { 80 };
        if self.port == own { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Returns scheme, host and port.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.authority())
    }

    /// Returns `true` if every reading of the path is below `prefix`, which ends with `/`.
    ///
    /// Servers and the proxies before them decode `%2F`, `%5C` and `%2E`, some of them twice, take `\` for `/`, merge
    /// slashes, and cut `;` and what follows from a segment. `/v1/..%2fadmin` must not be below `/v1/`.
    pub(crate) fn is_below(&self, prefix: &str) -> bool {
        // Of a path that can be read in one way only, which most are, the lenient reading would be a copy.
        let is_below_for_all = || lenient_path(&self.path).starts_with(&lenient_path(prefix));
        self.path.starts_with(prefix) && (is_unambiguous(&self.path) || is_below_for_all())
    }
}

/// Returns `true` if a path is the same to every server: nothing in it is decoded, taken for a slash or left out. So is each
/// beginning of it that ends with a slash.
fn is_unambiguous(path: &str) -> bool {
    let is_plain = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains(['%', '\\', ';']);
    let path = path.strip_prefix('/').unwrap_or(path);
    path.strip_suffix('/').unwrap_or(path).split('/').all(is_plain)
}

impl fmt::Display for CallHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Writes the URL.
impl fmt::Display for CallTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

/// Returns the value of an escape such as `%2F` at the start of `bytes`.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Decodes the escapes of characters that need none, and writes all others with upper-case digits (RFC 3986, sections
/// 6.2.2.1 and 6.2.2.2).
fn normal_path(path: &str) -> String {
    let (mut normal, mut rest) = (String::with_capacity(path.len()), path);
    while let Some(at) = rest.find('%') {
        normal.push_str(&rest[..at]);
        rest = &rest[at..];
        match escaped(rest.as_bytes()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => normal.push(char::from(byte)),
            Some(byte) => normal.push_str(&format!("%{byte:02X}")),
            // No escape: it means itself to servers that take it at all.
            None => {
                normal.push('%');
                rest = &rest[1..];
                continue;
            }
        }
        rest = &rest[3..];
    }
    normal.push_str(rest);
    normal
}

/// Returns the path as the most lenient server reads it.
fn lenient_path(path: &str) -> String {
    let mut bytes = path.as_bytes().to_vec();
    // Each round makes it shorter, so that it ends.
    while let Some(decoded) = decode_once(&bytes) {
        bytes = decoded;
    }
    let text = String::from_utf8_lossy(&bytes).replace('\\', "/");
    let is_open = text.ends_with('/');
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let end = if is_open && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// Decodes all escapes; `None` if there are none.
fn decode_once(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        match escaped(&bytes[at..]) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    (decoded.len() < bytes.len()).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_brought_to_one_form() {
        for (text, expected) in [
            ("https://api.example.com", "https://api.example.com/"),
            ("HTTPS://API.Example.COM:443/V1", "https://api.example.com/V1"),
            ("http://example.com:80/", "http://example.com/"),
            ("http://example.com:8080/", "http://example.com:8080/"),
            ("https://example.com./a", "https://example.com/a"),
            ("https://example.com/a/./b/../c", "https://example.com/a/c"),
            ("https://example.com/a/%2e%2E/b", "https://example.com/b"),
            ("https://example.com/a/.%2e/b", "https://example.com/b"),
            ("https://example.com/a\\..\\b", "https://example.com/b"),
            ("https://example.com/%7e%76%31/%2fx", "https://example.com/~v1/%2Fx"),
            ("https://example.com/%zz%", "https://example.com/%zz%"),
            ("https://example.com/a?q=/../b#c", "https://example.com/a"),
            ("http://127.1/", "http://127.0.0.1/"),
            ("http://0x7f000001/", "http://127.0.0.1/"),
            ("http://2130706433/", "http://127.0.0.1/"),
            ("http://0177.0.0.1/", "http://127.0.0.1/"),
            ("http://127.0.0.1./", "http://127.0.0.1/"),
            ("http://[::ffff:10.0.0.1]/", "http://10.0.0.1/"),
            ("http://[0:0:0:0:0:0:0:1]:80/", "http://[::1]/"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ] {
            assert_eq!(CallTarget::parse(text).map(|target| target.to_string()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_targets() {
        for (text, expected) in [
            ("", "it is no URL: relative URL without a base"),
            ("api.example.com/v1", "it is no URL: relative URL without a base"),
            ("ftp://example.com/", "its scheme is `ftp`, and calls are made over `https` and `http`"),
            ("https://user@example.com/", "it has a user or a password in front of its host"),
            ("https://api.example.com:x@evil.example/", "it has a user or a password in front of its host"),
            ("https://@example.com/", "it has a user or a password in front of its host"),
            ("https://a..b/", "its host is neither a name nor an address"),
            ("https://./", "its host is neither a name nor an address"),
            ("https://example.com:0/", "its host is neither a name nor an address"),
            ("https:///", "it is no URL: empty host"),
        ] {
            assert_eq!(CallTarget::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_path_of_one_reading_is_the_lenient_one() {
        for (path, expected) in [
            ("/a", true),
            ("/a/b.c/..d/", true),
            ("/v1/chat/completions", true),
            ("/", false),
            ("//a", false),
            ("/a//", false),
            ("/a/./b", false),
            ("/a/..", false),
            ("/a%41", false),
            ("/a\\b", false),
            ("/a;b", false),
        ] {
            assert_eq!(is_unambiguous(path), expected, "{path}");
            assert!(!expected || lenient_path(path) == path, "{path}");
        }
    }

    #[test]
    fn no_reading_of_a_path_leads_out_of_a_prefix() {
        for (path, expected) in [
            ("/v1/", true),
            ("/v1/a/b", true),
            ("/v1//a", true),
            ("/v1/a%2Fb", true),
            ("/v1/100%25", true),
            ("/v1", false),
            ("/v10/a", false),
            ("/V1/a", false),
            ("/v1/../a", false),
            ("/v1/..%2fa", false),
            ("/v1/..%5Ca", false),
            ("/v1/%2e%2e%2fa", false),
            ("/v1/%252e%252e%252fa", false),
            ("/v1/..;/a", false),
            ("/v1/a/..;x=1/../a", true),
            ("/v1/a/..;x=1/..;/a", false),
            ("/v1/%2f..%2fa", false),
        ] {
            let target = CallTarget::parse(&format!("https://example.com{path}")).unwrap();
            assert_eq!(target.is_below("/v1/"), expected, "{path}");
        }
    }
}
