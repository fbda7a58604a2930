//! The cross-origin access to agents from web pages, and the headers that allow it (the CORS protocol of the Fetch
//! standard).

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

/// The request headers that pages may send by default: those that reach a message agent, and those about the message
/// itself.
const SENT: &str = "accept, accept-language, caxton-conversation, caxton-deadline, caxton-ontology, caxton-performative, \
                    caxton-protocol, content-encoding, content-language, content-type, idempotency-key, traceparent, \
                    tracestate";
/// The response headers that pages may read by default: those that the host sets.
const READ: &str = "allow, caxton-agent, caxton-conversation, caxton-message-id, caxton-ontology, caxton-performative, \
                    caxton-revision, location, retry-after";

/// The table `[http.cors]`: the access of pages from other origins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Cors {
    /// The allowed origins, or `*`; an empty set turns CORS off.
    pub origins: BTreeSet<String>,
    /// The allowed methods; an empty set means all that a route takes.
    pub methods: BTreeSet<String>,
    /// The request headers that pages may send, or `*`; an empty set means those that reach an agent.
    pub headers: BTreeSet<String>,
    /// The response headers that pages may read, or `*`; an empty set means those that the host sets.
    pub expose: BTreeSet<String>,
    /// Set if pages may send credentials.
    pub credentials: bool,
    /// The time for which a browser may cache the answer to a preflight.
    #[serde(with = "crate::units::serde_duration")]
    pub max_age: Duration,
}

/// A response header: its name and value.
pub type Header = (&'static str, String);

impl Cors {
    /// Returns `true` if pages of any other origin may call agents.
    pub fn is_on(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Returns the headers of a response to a page of `origin`; none if it may not read the response.
    pub fn shared_with(&self, origin: &str) -> Vec<Header> {
        let Some(mut headers) = self.allowed(origin) else { return Vec::new() };
        headers.push(("access-control-expose-headers", list(&self.expose, READ)));
        headers
    }

    /// Returns the headers of the answer to a preflight of `origin` for `method`; none if the origin may not call
    /// agents. `headers` are those that the page wants to send, `methods` those that the route takes, empty if it takes
    /// all.
    pub fn preflight(&self, origin: &str, method: &str, headers: Option<&str>, methods: &[&str]) -> Vec<Header> {
        let Some(mut answer) = self.allowed(origin) else { return Vec::new() };
        let may = |method: &&str| self.methods.is_empty() || self.methods.contains(*method);
        // A route for all methods has no list, so only the requested method is named.
        let asked = [method];
        let taken = if methods.is_empty() { &asked[..] } else { methods };
        let taken: Vec<&str> = taken.iter().copied().filter(may).collect();
        // Without the header a browser still allows GET, HEAD and POST, which need no permission.
        if !taken.is_empty() {
            answer.push(("access-control-allow-methods", taken.join(", ")));
        }
        // The requested headers are repeated: `*` would not cover `authorization`, and covers nothing in a request with
        // credentials.
        let sent = match headers {
            Some(asked) if self.headers.contains("*") => asked.to_owned(),
            Some(_) | None => list(&self.headers, SENT),
        };
        answer.push(("access-control-allow-headers", sent));
        answer.push(("access-control-max-age", self.max_age.as_secs().to_string()));
        answer
    }

    /// Returns `true` if responses depend on the origin, so that caches need `vary: origin`.
    pub fn varies(&self) -> bool {
        self.credentials || !self.origins.contains("*")
    }

    fn allowed(&self, origin: &str) -> Option<Vec<Header>> {
        let all = self.origins.contains("*");
        if !all && !self.origins.contains(origin) {
            return None;
        }
        // With credentials browsers refuse `*`.
        let named = if self.varies() { origin } else { "*" };
        let mut headers = vec![("access-control-allow-origin", named.to_owned())];
        if self.credentials {
            headers.push(("access-control-allow-credentials", "true".to_owned()));
        }
        Some(headers)
    }
}

fn list(set: &BTreeSet<String>, usual: &str) -> String {
    if set.is_empty() { usual.to_owned() } else { set.iter().map(String::as_str).collect::<Vec<_>>().join(", ") }
}

/// Returns `true` if `text` is `*` or an origin in the form in which browsers send it.
pub fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return text == "*" };
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (host, port) = match rest.rsplit_once(':') {
        // A colon inside the brackets of an IPv6 address begins no port.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        Some(_) | None => (rest, None),
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good_host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| lower(byte) || b"-._".contains(&byte)),
    };
    // Browsers omit the default port, so an origin that names it would never match.
    let usual = [("http", "80"), ("https", "443")];
    scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| lower(byte) || b"+-.".contains(&byte))
        && good_host
        && port.is_none_or(|port| port.parse::<u16>().is_ok() && !usual.contains(&(scheme, port)))
}

/// Returns `true` if `text` is a valid header name or `*`.
pub fn is_header(text: &str) -> bool {
    // The `token` of RFC 9110, section 5.6.2.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn print(headers: &[Header]) -> String {
        headers
            .iter()
            .map(|(name, value)| format!("{}={value}", &name["access-control-".len()..]))
            .collect::<Vec<_>>()
            .join("; ")
    }

    #[test]
    fn origins_are_accepted_as_browsers_send_them() {
        for (text, good) in [
            ("*", true),
            ("https://app.example", true),
            ("http://localhost:3000", true),
            ("http://127.0.0.1:3000", true),
            ("http://[::1]:3000", true),
            ("chrome-extension://abcdef", true),
            ("https://app.example/", false),
            ("https://App.example", false),
            ("https://app.example:443", false),
            ("http://app.example:80", false),
            ("https://app.example:99999", false),
            ("app.example", false),
            ("https://", false),
            ("https://*.example", false),
            ("https://a b", false),
            ("", false),
        ] {
            assert_eq!(is_origin(text), good, "{text}");
        }
    }

    #[test]
    fn responses_are_shared_with_allowed_origins() {
        let named = Cors { origins: set(&["https://a.example"]), ..Cors::default() };
        let expose = format!("expose-headers={READ}");
        for (cors, origin, expected) in [
            (named.clone(), "https://a.example", format!("allow-origin=https://a.example; {expose}")),
            (named.clone(), "https://b.example", String::new()),
            (named.clone(), "null", String::new()),
            (Cors { origins: set(&["*"]), ..Cors::default() }, "null", format!("allow-origin=*; {expose}")),
            (
                Cors { credentials: true, expose: set(&["a", "b"]), ..named.clone() },
                "https://a.example",
                "allow-origin=https://a.example; allow-credentials=true; expose-headers=a, b".to_owned(),
            ),
            (Cors::default(), "https://a.example", String::new()),
        ] {
            assert_eq!(print(&cors.shared_with(origin)), expected, "{cors:?} {origin}");
        }
    }

    #[test]
    fn preflights_are_answered_by_route_and_setting() {
        let all = Cors { origins: set(&["*"]), max_age: Duration::from_secs(60), ..Cors::default() };
        let end = "max-age=60";
        for (cors, method, headers, methods, expected) in [
            (all.clone(), "POST", None, &["POST"][..], format!("allow-methods=POST; allow-headers={SENT}; {end}")),
            (
                all.clone(),
                "PUT",
                None,
                &["GET", "POST"][..],
                format!("allow-methods=GET, POST; allow-headers={SENT}; {end}"),
            ),
            (all.clone(), "PATCH", None, &[][..], format!("allow-methods=PATCH; allow-headers={SENT}; {end}")),
            (
                Cors { methods: set(&["GET"]), headers: set(&["x-a"]), ..all.clone() },
                "GET",
                Some("x-b"),
                &["GET", "POST"][..],
                format!("allow-methods=GET; allow-headers=x-a; {end}"),
            ),
            (
                Cors { methods: set(&["GET"]), headers: set(&["*"]), ..all.clone() },
                "POST",
                Some("authorization, x-b"),
                &[][..],
                format!("allow-headers=authorization, x-b; {end}"),
            ),
        ] {
            let found = print(&cors.preflight("https://a.example", method, headers, methods));
            assert_eq!(found, format!("allow-origin=*; {expected}"), "{cors:?} {method}");
        }
        assert!(Cors::default().preflight("https://a.example", "GET", None, &[]).is_empty());
    }
}
