//! Places: where an agent may call over HTTP (`allow.http`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::call_target::{CallHost, CallTarget, TargetError};
use crate::cors::is_header;
use crate::journal::{JournalRules, UnknownOutcome};
use crate::meter::{MeterError, UnitMeter};
use crate::reach::{Reach, is_public};
use crate::secret::{SecretText, names_in};

/// The start of a host that stands for all names below a domain.
const BELOW: &str = "*.";
/// The headers that belong to a connection or frame a message. The host sets them itself.
const OWN_HEADERS: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A place that an agent may call. Stored with the settings of a revision, in the form in which it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "WrittenPlace", into = "WrittenPlace")]
pub struct CallPlace {
    url: PlaceUrl,
    /// The methods; an empty set means all but those that no call may have.
    methods: BTreeSet<String>,
    /// The headers that the host adds, as templates, by name in lower case.
    headers: BTreeMap<String, String>,
    /// Set if the place may be at an address that is not of the public internet.
    private: bool,
    /// The settings of its calls in the journal.
    journal: JournalRules,
    /// The units that its responses tell of.
    meter: UnitMeter,
}

/// The form of a place in which it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WrittenPlace {
    url: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    methods: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    private: bool,
    #[serde(default, skip_serializing_if = "UnitMeter::is_empty")]
    meter: UnitMeter,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    journal: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown: Option<UnknownOutcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency: Option<Idempotency>,
}

/// The way in which an idempotency key is sent, as it is stored.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Idempotency {
    Header,
}

/// The URL of a place, in normal form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlaceUrl {
    is_https: bool,
    host: PlaceHost,
    port: u16,
    path: PlacePath,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum PlaceHost {
    One(CallHost),
    /// The names below a domain.
    Below(String),
}

// In the order in which they are less and less exact, which decides between two places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum PlacePath {
    Exact(String),
    /// The paths that begin with this one, which ends with `/`.
    Below(String),
}

/// The reason why a place cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// A text that is no URL of a place.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// A query or a fragment, which no grant is about.
    #[error("a place has neither a query nor a fragment, and its calls may have any")]
    Query,
    /// A `*` at another place than those that mean something.
    #[error("`*` stands for names below a domain (`https://*.example.com`) and, at the end, for paths (`/v1/*`)")]
    Wildcard,
    /// A method that no call may have.
    #[error("no call may have the method `{0}`")]
    Method(String),
    /// A text that cannot be the name of a header.
    #[error("`{0}` cannot be the name of a header")]
    HeaderName(String),
    /// A header that the host sets itself.
    #[error("the header `{0}` belongs to the connection, and the host sets it")]
    OwnHeader(String),
    /// A value that no header can have.
    #[error("the value of the header `{0}` has characters that no header can have")]
    HeaderValue(String),
    /// Headers for a place in plain text, where everybody on the way could read them.
    #[error("headers are added over `https`, or to a place with `private = true`, whose addresses are not public")]
    PlainText,
    /// A rule for recorded calls where none is recorded.
    #[error("`unknown` is about calls that are recorded, and the place records none")]
    UnknownWithoutJournal,
    /// A meter that cannot be used.
    #[error("{0}")]
    Meter(#[from] MeterError),
}

impl PlaceUrl {
    /// Parses the URL of a place, such as `https://api.example.com/v1/*` or `https://*.example.com`.
    ///
    /// # Errors
    /// The text is no URL, or has parts that mean nothing in a place.
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        let text = text.trim();
        if text.contains(['?', '#']) {
            return Err(PlaceError::Query);
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let below = rest.strip_prefix(BELOW);
        let target = CallTarget::parse(&match below {
            Some(rest) => format!("{scheme}://{rest}"),
            None => text.to_owned(),
        })?;
        let host = match (below, target.host) {
            (None, host) => PlaceHost::One(host),
            (Some(_), CallHost::Name(domain)) => PlaceHost::Below(domain),
            (Some(_), CallHost::Address(_)) => return Err(PlaceError::Wildcard),
        };
        let path = match target.path.strip_suffix('*') {
            // All of the origin: an empty path and `/` are the same (RFC 3986, section 6.2.3).
            None if target.path == "/" => PlacePath::Below(target.path),
            None => PlacePath::Exact(target.path),
            Some(prefix) if prefix.ends_with('/') => PlacePath::Below(prefix.to_owned()),
            Some(_) => return Err(PlaceError::Wildcard),
        };
        let url = Self { is_https: target.is_https, host, port: target.port, path };
        let (PlacePath::Exact(rest) | PlacePath::Below(rest)) = &url.path;
        let name = match &url.host {
            PlaceHost::One(CallHost::Name(name)) | PlaceHost::Below(name) => name,
            PlaceHost::One(CallHost::Address(_)) => "",
        };
        if rest.contains('*') || name.contains('*') { Err(PlaceError::Wildcard) } else { Ok(url) }
    }

    /// Returns `true` if the place is at the origin of the target.
    fn is_at_origin(&self, target: &CallTarget) -> bool {
        let is_host = match &self.host {
            PlaceHost::One(host) => *host == target.host,
            PlaceHost::Below(domain) => matches!(&target.host, CallHost::Name(name)
                if name.strip_suffix(domain.as_str()).is_some_and(|left| left.len() > 1 && left.ends_with('.'))),
        };
        is_host && self.is_https == target.is_https && self.port == target.port
    }

    fn has_path(&self, target: &CallTarget) -> bool {
        match &self.path {
            PlacePath::Exact(path) => target.path == *path,
            PlacePath::Below(prefix) => target.is_below(prefix),
        }
    }

    /// Returns how exact the place is. Of two that cover a call, the more exact one decides: by its host, then its path.
    fn exactness(&self) -> (bool, usize, bool, usize) {
        let (is_one, host) = match &self.host {
            PlaceHost::One(_) => (true, 0),
            PlaceHost::Below(domain) => (false, domain.len()),
        };
        match &self.path {
            PlacePath::Exact(path) => (is_one, host, true, path.len()),
            PlacePath::Below(prefix) => (is_one, host, false, prefix.len()),
        }
    }
}

impl CallPlace {
    /// Creates a place. An empty set of methods means all.
    ///
    /// # Errors
    /// A method or a header that no call may have, or headers for a place in plain text.
    pub fn new(
        url: PlaceUrl,
        methods: BTreeSet<String>,
        headers: BTreeMap<String, String>,
        private: bool,
    ) -> Result<Self, PlaceError> {
        if let Some(method) = methods.iter().find(|method| is_forbidden_method(method)) {
            return Err(PlaceError::Method(method.clone()));
        }
        for (name, value) in &headers {
            if !is_header(name) || name == "*" {
                return Err(PlaceError::HeaderName(name.clone()));
            }
            if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                return Err(PlaceError::OwnHeader(name.clone()));
            }
            if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
                return Err(PlaceError::HeaderValue(name.clone()));
            }
        }
        // Also of a header without a secret: the file does not say whether it is a credential.
        let is_plain_and_public = match &url.host {
            PlaceHost::One(CallHost::Address(address)) => is_public(*address),
            PlaceHost::One(CallHost::Name(_)) | PlaceHost::Below(_) => false,
        };
        if !headers.is_empty() && !url.is_https && (!private || is_plain_and_public) {
            return Err(PlaceError::PlainText);
        }
        let headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        Ok(Self { url, methods, headers, private, journal: JournalRules::default(), meter: UnitMeter::default() })
    }

    /// Sets the settings of its calls in the journal.
    ///
    /// # Errors
    /// A rule for calls of unknown outcome, where no calls are recorded.
    pub fn with_journal(self, journal: JournalRules) -> Result<Self, PlaceError> {
        if journal.unknown.is_some() && !journal.is_kept {
            return Err(PlaceError::UnknownWithoutJournal);
        }
        Ok(Self { journal, ..self })
    }

    /// Returns the settings of its calls in the journal.
    pub fn journal(&self) -> JournalRules {
        self.journal
    }

    /// Returns the place with a meter.
    #[must_use]
    pub fn with_meter(self, meter: UnitMeter) -> Self {
        Self { meter, ..self }
    }

    /// Returns the meter, which counts nothing if the place has none.
    pub fn meter(&self) -> &UnitMeter {
        &self.meter
    }

    /// Creates a place of a text alone.
    ///
    /// # Errors
    /// The text is no URL of a place.
    pub fn of_url(text: &str) -> Result<Self, PlaceError> {
        Self::new(PlaceUrl::parse(text)?, BTreeSet::new(), BTreeMap::new(), false)
    }

    /// Returns the URL as text, by which logs, events and metrics name the place.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Returns the templates of the headers that the host adds, by name in lower case.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.headers
    }

    /// Returns the names of the secrets that its headers refer to.
    pub fn secrets(&self) -> BTreeSet<String> {
        names_in(self.headers.values())
    }

    /// Replaces the references of its headers by values.
    ///
    /// # Errors
    /// The name of the first secret that has no value.
    pub fn resolve_headers<'v>(
        &self,
        value: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<Vec<(String, String)>, String> {
        let resolve = |(name, text): (&'_ String, &String)| {
            let value = match SecretText::parse(text) {
                Ok(parsed) => parsed.resolve(&value)?,
                // Checked with the declaration, so that it can only be of a later version: it means itself.
                Err(_) => text.clone(),
            };
            Ok((name.clone(), value))
        };
        self.headers.iter().map(resolve).collect()
    }

    /// Returns the addresses at which the place may be.
    pub fn reach(&self) -> Reach {
        let is_address = matches!(self.url.host, PlaceHost::One(CallHost::Address(_)));
        match (self.private, self.headers.is_empty() || self.url.is_https) {
            // In plain text, where what the host adds must not go out to the internet.
            (true, false) => Reach::Private,
            (true, true) => Reach::Any,
            // An address that is granted by itself is granted, whatever it is.
            (false, _) if is_address => Reach::Any,
            (false, _) => Reach::Public,
        }
    }

    /// Returns `true` if the place is called past a proxy: it is private, or an address that is not public.
    pub fn is_direct(&self) -> bool {
        self.private || matches!(&self.url.host, PlaceHost::One(CallHost::Address(address)) if !is_public(*address))
    }

    /// Returns `true` if both cover the same targets and share a method.
    pub fn clashes(&self, other: &Self) -> bool {
        let shares_method = self.methods.is_empty()
            || other.methods.is_empty()
            || self.methods.intersection(&other.methods).next().is_some();
        self.url == other.url && shares_method
    }

    /// Returns `true` if it is at the origin of a target, whatever the path and the method.
    pub(crate) fn is_at_origin(&self, target: &CallTarget) -> bool {
        self.url.is_at_origin(target)
    }

    /// Returns `true` if it has the target, whatever the method.
    pub(crate) fn has(&self, target: &CallTarget) -> bool {
        self.url.is_at_origin(target) && self.url.has_path(target)
    }

    /// Returns `true` if it takes the method.
    pub(crate) fn takes(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// Returns how exact it is, as a rank.
    pub(crate) fn exactness(&self) -> impl Ord + use<> {
        self.url.exactness()
    }
}

/// Returns `true` for a method that no call may have: a tunnel, and what answers with the headers that the host added.
pub(crate) fn is_forbidden_method(method: &str) -> bool {
    ["CONNECT", "TRACE", "TRACK"].iter().any(|forbidden| method.eq_ignore_ascii_case(forbidden))
}

impl TryFrom<WrittenPlace> for CallPlace {
    type Error = PlaceError;

    fn try_from(written: WrittenPlace) -> Result<Self, PlaceError> {
        let WrittenPlace { url, methods, headers, private, journal, unknown, idempotency, meter } = written;
        let rules = JournalRules { is_kept: journal, unknown, adds_key: idempotency.is_some() };
        let place = Self::new(PlaceUrl::parse(&url)?, methods, headers, private)?.with_journal(rules)?;
        Ok(place.with_meter(meter))
    }
}

impl From<CallPlace> for WrittenPlace {
    fn from(place: CallPlace) -> Self {
        let CallPlace { url, methods, headers, private, journal, meter } = place;
        let JournalRules { is_kept, unknown, adds_key } = journal;
        let idempotency = adds_key.then_some(Idempotency::Header);
        Self { url: url.to_string(), methods, headers, private, journal: is_kept, unknown, idempotency, meter }
    }
}

impl fmt::Display for PlaceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, own) = if self.is_https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://")?;
        match &self.host {
            PlaceHost::One(host) => write!(f, "{host}")?,
            PlaceHost::Below(domain) => write!(f, "{BELOW}{domain}")?,
        }
        if self.port != own {
            write!(f, ":{}", self.port)?;
        }
        match &self.path {
            PlacePath::Exact(path) => f.write_str(path),
            PlacePath::Below(prefix) => write!(f, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn urls_of_places_are_brought_to_one_form() {
        for (text, expected) in [
            ("https://api.example.com", Ok("https://api.example.com/*")),
            ("https://api.example.com/", Ok("https://api.example.com/*")),
            ("https://api.example.com/*", Ok("https://api.example.com/*")),
            ("HTTPS://API.Example.com:443/v1/*", Ok("https://api.example.com/v1/*")),
            ("https://api.example.com/v1/chat", Ok("https://api.example.com/v1/chat")),
            ("https://api.example.com/a/../v1/*", Ok("https://api.example.com/v1/*")),
            ("http://*.example.com:8080/x", Ok("http://*.example.com:8080/x")),
            ("http://127.0.0.1:9/", Ok("http://127.0.0.1:9/*")),
            ("http://[::1]/", Ok("http://[::1]/*")),
            ("api.example.com", Err("it is no URL: relative URL without a base")),
            ("https://", Err("it is no URL: empty host")),
            ("ws://example.com", Err("its scheme is `ws`, and calls are made over `https` and `http`")),
            ("https://key@example.com/", Err("it has a user or a password in front of its host")),
            ("https://example.com/?a=b", Err("a place has neither a query nor a fragment, and its calls may have any")),
            ("https://*", Err("wildcard")),
            ("https://*.1.2.3.4/", Err("wildcard")),
            ("https://a.*.example.com/", Err("wildcard")),
            ("https://*.*.example.com/", Err("wildcard")),
            ("https://example.com/v1*", Err("wildcard")),
            ("https://example.com/*/v1", Err("wildcard")),
        ] {
            let wildcard = PlaceError::Wildcard.to_string();
            let expected = expected.map_err(|why: &str| if why == "wildcard" { wildcard } else { why.to_owned() });
            let parsed = PlaceUrl::parse(text).map(|url| url.to_string()).map_err(|error| error.to_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn headers_and_methods_are_checked() {
        let place = |url: &str, methods: &[&str], given: &[(&str, &str)], private| {
            let methods = methods.iter().map(|method| (*method).to_owned()).collect();
            CallPlace::new(PlaceUrl::parse(url).unwrap(), methods, headers(given), private)
        };
        let (https, http) = ("https://a.example", "http://a.example");
        let key = ("Authorization", "Bearer ${secret:a}");
        for (url, methods, given, private, expected) in [
            (https, &["GET", "POST"][..], key, false, Ok(Reach::Public)),
            (https, &[], key, true, Ok(Reach::Any)),
            (http, &[], key, true, Ok(Reach::Private)),
            ("http://10.0.0.1", &[], key, true, Ok(Reach::Private)),
            (http, &[], key, false, Err(PlaceError::PlainText)),
            ("http://10.0.0.1", &[], key, false, Err(PlaceError::PlainText)),
            ("http://1.1.1.1", &[], key, true, Err(PlaceError::PlainText)),
            (https, &["TRACE"], key, false, Err(PlaceError::Method("TRACE".into()))),
            (https, &[], ("a b", ""), false, Err(PlaceError::HeaderName("a b".into()))),
            (https, &[], ("*", ""), false, Err(PlaceError::HeaderName("*".into()))),
            (https, &[], ("Host", "x"), false, Err(PlaceError::OwnHeader("Host".into()))),
            (https, &[], ("x", "a\r\nb: c"), false, Err(PlaceError::HeaderValue("x".into()))),
        ] {
            let found = place(url, methods, &[given], private).map(|place| place.reach());
            assert_eq!(found, expected, "{url} {methods:?} {given:?}");
        }
        assert_eq!(place("http://10.0.0.1", &[], &[], false).map(|place| place.reach()), Ok(Reach::Any));
        let found = place(https, &[], &[key], false).unwrap();
        assert_eq!(found.resolve_headers(|_| Some("1")), Ok(vec![("authorization".to_owned(), "Bearer 1".to_owned())]));
        assert_eq!(found.resolve_headers(|_| None), Err("a".to_owned()));
    }

    #[test]
    fn places_clash_if_they_cover_the_same() {
        let place = |url: &str, methods: &[&str]| {
            let methods = methods.iter().map(|method| (*method).to_owned()).collect();
            CallPlace::new(PlaceUrl::parse(url).unwrap(), methods, BTreeMap::new(), false).unwrap()
        };
        let (all, get) = (("https://a.example/", &[][..]), ("https://A.example:443/*", &["GET"][..]));
        let (post, deeper) = (("https://a.example", &["POST"][..]), ("https://a.example/v1/*", &[][..]));
        for (one, other, expected) in
            [(all, get, true), (all, all, true), (get, post, false), (all, deeper, false), (post, all, true)]
        {
            assert_eq!(place(one.0, one.1).clashes(&place(other.0, other.1)), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_stored_place_reads_back() {
        let text = r#"{"url":"https://a.example/v1/*","methods":["POST"],"headers":{"authorization":"${secret:a}"}}"#;
        let place: CallPlace = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&place).unwrap(), text);
        let plain = CallPlace::of_url("https://a.example").unwrap();
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"url":"https://a.example/*"}"#);
    }
}
