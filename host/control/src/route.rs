//! The path patterns with parameters, such as `/tickets/{id}` and `/files/{*rest}`.
//!
//! A pattern is compared with the path of the request byte by byte, without decoding. A literal segment is therefore
//! written as a client sends it: percent-encoded where RFC 3986 demands it, in upper case (`%C3%BC`), and not where it
//! does not. `{name}` matches one non-empty segment, `{*name}` at the end of the pattern the rest of the path, which
//! may be empty. A literal has precedence over both; a parameter and a rest at the same position conflict.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

/// The longest pattern, in bytes: more than any path that a person types.
pub const MAX_ROUTE: usize = 1_024;

/// The prefix of the host's own paths, such as the status of messages.
pub const RESERVED_PREFIX: &str = "/.caxton/";

/// A route's path pattern, parsed and checked. A clone shares it: the router has one beside that of the declaration.
#[derive(Clone, PartialEq, Eq)]
pub struct RoutePattern(Arc<ParsedPattern>);

#[derive(PartialEq, Eq)]
struct ParsedPattern {
    text: Box<str>,
    /// The shape, where it is another text.
    shape: Option<Box<str>>,
    params: Box<[String]>,
}

/// The error for a text that is not a path pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A pattern without a leading `/`.
    #[error("a route begins with `/`")]
    NoSlash,
    /// A pattern longer than [`MAX_ROUTE`].
    #[error("a route has at most {MAX_ROUTE} bytes")]
    TooLong,
    /// A pattern below [`RESERVED_PREFIX`].
    #[error("paths below `{RESERVED_PREFIX}` are the host's own")]
    Own,
    /// An empty segment before the last.
    #[error("a segment is empty (`//`)")]
    EmptySegment,
    /// A segment `.` or `..`, which clients resolve before they send a path.
    #[error("clients resolve `{0}` before they send a path, so it never matches")]
    DotSegment(String),
    /// A brace that does not enclose a whole segment.
    #[error("`{0}`: a parameter is a whole segment, such as `{{id}}`")]
    PartialParam(String),
    /// A parameter with an invalid name.
    #[error("`{0}`: a parameter is named with letters, digits, `_` and `-`, a letter first")]
    ParamName(String),
    /// A `{*name}` before the last segment.
    #[error("`{0}` takes the rest of the path, so nothing may follow it")]
    WildcardNotLast(String),
    /// A second parameter of one name, ignoring case.
    #[error("the parameter `{0}` is there twice")]
    RepeatedParam(String),
    /// A character that is always sent percent-encoded.
    #[error("a client sends `{found}` as `{encoded}`")]
    NotEncoded {
        /// The character.
        found: char,
        /// The encoding that clients send.
        encoded: String,
    },
    /// A percent sign without two upper-case hexadecimal digits after it.
    #[error("`{0}` is no percent-encoded byte: two hexadecimal digits follow `%`, in upper case")]
    BadEncoding(String),
    /// A percent-encoded character that clients do not encode.
    #[error("a client sends `{encoded}` as `{plain}`")]
    NeedlessEncoding {
        /// The encoding in the pattern.
        encoded: String,
        /// The character that clients send.
        plain: char,
    },
}

impl RoutePattern {
    /// Returns the pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Returns the pattern with its parameters named by position (`/tickets/{p0}`): equal for all patterns that match
    /// the same paths. A `matchit` router accepts every set of different shapes without
    /// [conflicts](Self::conflicts_with).
    pub fn shape(&self) -> &str {
        self.0.shape.as_deref().unwrap_or(&self.0.text)
    }

    /// Returns the names of the parameters, in order of position.
    pub fn params(&self) -> &[String] {
        &self.0.params
    }

    /// Returns `true` if some path matches both patterns and neither has precedence: they differ only in the names of
    /// their parameters, or one has a rest where the other has a parameter.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        // A rest matches a single segment too, so it competes with a parameter at its position.
        let crosses = |one: &Self, two: &Self| one.rest_at().is_some_and(|at| two.params_at().any(|p| p == at));
        self.shape() == other.shape() || crosses(self, other) || crosses(other, self)
    }

    /// Returns the part of the [shape](Self::shape) before each `{name}`.
    pub fn params_at(&self) -> impl Iterator<Item = &str> {
        // A literal has no brace and a rest begins with `{*`, so only parameters are found.
        let shape = self.shape();
        shape.match_indices("{p").map(|(at, _)| &shape[..at])
    }

    /// Returns the part of the [shape](Self::shape) before `{*name}`, if there is one: the path whose rest is empty. A
    /// `matchit` router never matches an empty rest, so this path has to be added as well, unless another pattern has
    /// that shape.
    pub fn rest_at(&self) -> Option<&str> {
        self.shape().find("{*").map(|at| &self.shape()[..at])
    }
}

impl FromStr for RoutePattern {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let path = text.strip_prefix('/').ok_or(RouteError::NoSlash)?;
        if text.len() > MAX_ROUTE {
            return Err(RouteError::TooLong);
        }
        // An agent that answered these paths would hide the status of messages.
        if text.starts_with(RESERVED_PREFIX) {
            return Err(RouteError::Own);
        }
        let mut shape = String::with_capacity(text.len());
        let mut params: Vec<String> = Vec::new();
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            shape.push('/');
            let last = segments.peek().is_none();
            if !segment.contains(['{', '}']) {
                check_literal(segment, last)?;
                shape.push_str(segment);
                continue;
            }
            let (name, star) = param(segment)?;
            if star && !last {
                return Err(RouteError::WildcardNotLast(segment.to_owned()));
            }
            // Names that differ in case only would be too easy to confuse.
            if params.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                return Err(RouteError::RepeatedParam(name.to_owned()));
            }
            let star = if star { "*" } else { "" };
            // Positional names, so that equal patterns have equal shapes whatever their parameters are called.
            shape.push_str(&format!("{{{star}p{}}}", params.len()));
            params.push(name.to_owned());
        }
        let shape = Some(shape).filter(|shape| shape != text).map(String::into_boxed_str);
        Ok(Self(Arc::new(ParsedPattern { text: text.into(), shape, params: params.into() })))
    }
}

/// Returns the name in `{name}` or `{*name}`, and `true` if the star is there.
fn param(segment: &str) -> Result<(&str, bool), RouteError> {
    let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    // `{a}{b}` is stripped like a single parameter.
    let inner = inner.filter(|inner| !inner.contains(['{', '}']));
    let inner = inner.ok_or_else(|| RouteError::PartialParam(segment.to_owned()))?;
    let name = inner.strip_prefix('*').unwrap_or(inner);
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if named { Ok((name, name.len() < inner.len())) } else { Err(RouteError::ParamName(segment.to_owned())) }
}

/// Returns `true` if the byte is unreserved in RFC 3986: it stands for itself and is never encoded.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Refuses a literal segment that no request contains in this form. Only the last segment may be empty.
fn check_literal(segment: &str, last: bool) -> Result<(), RouteError> {
    match segment {
        "" if last => return Ok(()),
        "" => return Err(RouteError::EmptySegment),
        "." | ".." => return Err(RouteError::DotSegment(segment.to_owned())),
        _ => {}
    }
    let mut chars = segment.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '%' {
            check_encoded(&segment[at..])?;
            // The two digits were checked with the sign.
            chars.nth(1);
        } else if !(c.is_ascii() && (is_unreserved(c as u8) || "!$&'()*+,;=:@".contains(c))) {
            let mut bytes = [0; 4];
            let encoded = c.encode_utf8(&mut bytes).bytes().map(|b| format!("%{b:02X}")).collect();
            return Err(RouteError::NotEncoded { found: c, encoded });
        }
    }
    Ok(())
}

/// Refuses a percent-encoded byte at the start of `text` that is not in the normal form of RFC 3986: equal paths would
/// be written in several ways.
fn check_encoded(text: &str) -> Result<(), RouteError> {
    // By characters: the third byte may lie inside one.
    let shown: String = text.chars().take(3).collect();
    let upper = shown.len() == 3 && !shown.contains(|c: char| c.is_ascii_lowercase());
    match shown.get(1..).filter(|_| upper).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        // `from_str_radix` accepts a sign, the encoding does not.
        Some(_) if shown.contains('+') => Err(RouteError::BadEncoding(shown)),
        Some(byte) if is_unreserved(byte) => Err(RouteError::NeedlessEncoding { encoded: shown, plain: byte as char }),
        Some(_) => Ok(()),
        None => Err(RouteError::BadEncoding(shown)),
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for RoutePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for RoutePattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn routes_are_parsed() {
        for (text, expected) in [
            ("/", Ok("/")),
            ("/tickets", Ok("/tickets")),
            ("/tickets/", Ok("/tickets/")),
            ("/tickets/{id}", Ok("/tickets/{p0}")),
            ("/a/{b}/c/{d}", Ok("/a/{p0}/c/{p1}")),
            ("/files/{*rest}", Ok("/files/{*p0}")),
            ("/{*rest}", Ok("/{*p0}")),
            ("/t%C3%BCr", Ok("/t%C3%BCr")),
            ("/a:b@c,d;e=f", Ok("/a:b@c,d;e=f")),
            ("", Err("a route begins with `/`")),
            ("tickets", Err("a route begins with `/`")),
            ("/.caxton", Ok("/.caxton")),
            ("/.caxton/messages", Err("paths below `/.caxton/` are the host's own")),
            ("/a//b", Err("a segment is empty (`//`)")),
            ("//", Err("a segment is empty (`//`)")),
            ("/a/../b", Err("clients resolve `..` before they send a path, so it never matches")),
            ("/a{b}", Err("`a{b}`: a parameter is a whole segment, such as `{id}`")),
            ("/{a}{b}", Err("`{a}{b}`: a parameter is a whole segment, such as `{id}`")),
            ("/{", Err("`{`: a parameter is a whole segment, such as `{id}`")),
            ("/{}", Err("`{}`: a parameter is named with letters, digits, `_` and `-`, a letter first")),
            ("/{*}", Err("`{*}`: a parameter is named with letters, digits, `_` and `-`, a letter first")),
            ("/{9}", Err("`{9}`: a parameter is named with letters, digits, `_` and `-`, a letter first")),
            ("/{*rest}/a", Err("`{*rest}` takes the rest of the path, so nothing may follow it")),
            ("/{*rest}/", Err("`{*rest}` takes the rest of the path, so nothing may follow it")),
            ("/{id}/{ID}", Err("the parameter `ID` is there twice")),
            ("/tür", Err("a client sends `ü` as `%C3%BC`")),
            ("/a b", Err("a client sends ` ` as `%20`")),
            ("/a?b=c", Err("a client sends `?` as `%3F`")),
            ("/%", Err("`%` is no percent-encoded byte: two hexadecimal digits follow `%`, in upper case")),
            ("/%c3", Err("`%c3` is no percent-encoded byte: two hexadecimal digits follow `%`, in upper case")),
            ("/%+1", Err("`%+1` is no percent-encoded byte: two hexadecimal digits follow `%`, in upper case")),
            ("/%ü", Err("`%ü` is no percent-encoded byte: two hexadecimal digits follow `%`, in upper case")),
            ("/%41", Err("a client sends `%41` as `A`")),
        ] {
            let read = text.parse::<RoutePattern>();
            let shown = read.as_ref().map(RoutePattern::shape).map_err(ToString::to_string);
            assert_eq!(shown, expected.map_err(str::to_owned), "{text}");
        }
        assert_eq!(format!("/{}", "a".repeat(MAX_ROUTE)).parse::<RoutePattern>(), Err(RouteError::TooLong));
    }

    fn pattern(text: &str) -> RoutePattern {
        text.parse().unwrap()
    }

    #[test]
    fn routes_conflict_when_they_match_the_same_paths() {
        for (one, other, conflict) in [
            ("/a/{x}", "/a/{y}", true),
            ("/a/{*x}", "/a/{*y}", true),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a/{x}", "/a/{*x}", true),
            ("/a/{*x}", "/a/{x}/b", true),
            ("/a/{x}", "/{*x}", false),
            ("/{x}/{y}", "/{x}/b/{*y}", false),
            ("/a/{x}", "/a/b", false),
            ("/a/{x}/c", "/a/{y}/d", false),
            ("/{x}/b", "/a/{x}", false),
        ] {
            assert_eq!(pattern(one).conflicts_with(&pattern(other)), conflict, "{one} {other}");
        }
        assert_eq!(serde_json::to_value(pattern("/a/{x}")).unwrap(), "/a/{x}");
        assert_eq!(pattern("/a/{x}/{*y}").params(), ["x", "y"]);
    }

    /// Ranks each segment of a match: a literal before a parameter before a rest.
    fn rank(shape: &str, path: &str) -> Option<Vec<u8>> {
        let mut ranks = Vec::new();
        let mut path = path[1..].split('/');
        for segment in shape[1..].split('/') {
            let given = path.next()?;
            ranks.push(match segment {
                s if s.starts_with("{*") => {
                    path.by_ref().for_each(drop);
                    2
                }
                s if s.starts_with('{') && !given.is_empty() => 1,
                s if s == given => 0,
                _ => return None,
            });
        }
        path.next().is_none().then_some(ranks)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// A `matchit` router accepts every set of shapes without conflicts, and picks the best rank.
        #[test]
        fn a_router_accepts_all_shapes_and_picks_by_rank(
            texts in prop::collection::vec("(/(a|ab|b|\\{x\\})){0,3}(/|/\\{\\*y\\}|/b|/\\{z\\})", 1..8),
            path in "(/(a|ab|b|c)){0,4}/?",
        ) {
            let mut patterns: Vec<RoutePattern> = Vec::new();
            for pattern in texts.iter().filter_map(|text| text.parse::<RoutePattern>().ok()) {
                if !patterns.iter().any(|other| pattern.conflicts_with(other)) {
                    patterns.push(pattern);
                }
            }
            let shapes: BTreeSet<&str> = patterns.iter().map(RoutePattern::shape).collect();
            let mut router = matchit::Router::new();
            for shape in &shapes {
                prop_assert!(router.insert(*shape, *shape).is_ok(), "{} in {:?}", shape, shapes);
            }
            for pattern in &patterns {
                let whole = pattern.rest_at().filter(|whole| !shapes.contains(whole));
                if let Some(whole) = whole {
                    prop_assert!(router.insert(whole, pattern.shape()).is_ok(), "{} in {:?}", whole, shapes);
                }
            }
            if path.starts_with('/') {
                let ranked: BTreeMap<Vec<u8>, &str> =
                    shapes.iter().filter_map(|shape| Some((rank(shape, &path)?, *shape))).collect();
                let best = ranked.first_key_value().map(|(_, shape)| *shape);
                prop_assert_eq!(router.at(&path).ok().map(|found| *found.value), best, "{} in {:?}", path, shapes);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = text.parse::<RoutePattern>();
            let _ = format!("/{text}").parse::<RoutePattern>();
        }
    }
}
