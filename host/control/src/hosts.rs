//! The host names that the agents' listener serves (`http.hosts`).

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The start of a pattern for all names below a domain.
const BELOW: &str = "*.";
/// The longest name in bytes (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// Returns `true` if `text` can be an element of `http.hosts`: a host name in lower case, `*.` and a domain, or an IP
/// address without brackets.
pub fn is_host_pattern(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = text.strip_prefix(BELOW).unwrap_or(text);
    let label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    // A last label of digits would be read as a part of an IPv4 address (RFC 1123, section 2.1).
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= MAX_NAME && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(is_number)
}

/// Returns `true` if requests for `authority`, a host with or without a port, are served. With no patterns all are.
pub fn serves(patterns: &BTreeSet<String>, authority: &str) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let Some(host) = host(authority) else { return false };
    if let Ok(address) = host.parse::<IpAddr>() {
        // Compared as addresses: IPv6 has several spellings of each.
        return patterns.iter().any(|pattern| pattern.parse() == Ok(address));
    }
    // A client may write the root of the names, which is the same host (RFC 3986, section 3.2.2).
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let is_below = |pattern: &str| {
        let domain = pattern.strip_prefix(BELOW)?;
        host.strip_suffix(domain)?.strip_suffix('.').filter(|rest| !rest.is_empty())
    };
    patterns.contains(&host) || patterns.iter().any(|pattern| is_below(pattern).is_some())
}

/// Returns the host of an authority, without port and brackets; `None` for one that is malformed.
fn host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    // Whatever is no port makes the authority ambiguous, such as `ours@theirs` or a second colon.
    port.bytes().all(|byte| byte.is_ascii_digit()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_addresses_and_domains() {
        for (text, good) in [
            ("agents.example.com", true),
            ("localhost", true),
            ("*.example.com", true),
            ("10.0.0.7", true),
            ("::1", true),
            ("Agents.example.com", false),
            ("agents.example.com:443", false),
            ("https://agents.example.com", false),
            ("*", false),
            ("a.*.example.com", false),
            ("*example.com", false),
            ("[::1]", false),
            ("10.0.0.700", false),
            ("-a.example", false),
            ("a..b", false),
            ("", false),
        ] {
            assert_eq!(is_host_pattern(text), good, "{text}");
        }
        assert!(!is_host_pattern(&"a.".repeat(150)));
    }

    #[test]
    fn authorities_are_compared_with_the_patterns() {
        let patterns: BTreeSet<String> =
            ["agents.example.com", "*.apps.example", "10.0.0.7", "fe80::1"].map(str::to_owned).into();
        for (authority, served) in [
            ("agents.example.com", true),
            ("Agents.Example.com.:8443", true),
            ("a.apps.example", true),
            ("a.b.apps.example:1", true),
            ("10.0.0.7:8080", true),
            ("[FE80:0::1]:80", true),
            ("apps.example", false),
            (".apps.example", false),
            ("evilapps.example", false),
            ("example.com", false),
            ("10.0.0.8", false),
            ("[fe80::1", false),
            ("agents.example.com:80:80", false),
            ("agents.example.com@evil.example", false),
            ("evil.example:agents.example.com", false),
            ("", false),
        ] {
            assert_eq!(serves(&patterns, authority), served, "{authority}");
        }
        assert!(serves(&BTreeSet::new(), "anything"), "none are named");
    }
}
