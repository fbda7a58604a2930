//! Patterns of names of interfaces, such as `wasi:*` or `caxton:agent/state@0.1.*`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A pattern of names of interfaces. `*` stands for any text, also for none; without `@` it is for every version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePattern(String);

/// The error for a text that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("names have letters, digits and `-:/@.+`, and `*` stands for any text")]
pub struct NamePatternError;

impl FromStr for NamePattern {
    type Err = NamePatternError;

    fn from_str(text: &str) -> Result<Self, NamePatternError> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-:/@.+*".contains(&byte);
        let is_name = (1..=200).contains(&text.len()) && text.bytes().all(is_part) && text.matches('@').count() <= 1;
        if is_name { Ok(Self(text.to_owned())) } else { Err(NamePatternError) }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for NamePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl NamePattern {
    /// Returns `true` if the pattern matches the name of an interface, such as `wasi:io/poll@0.2.6`.
    pub fn matches(&self, name: &str) -> bool {
        glob(self.0.as_bytes(), self.part(name).as_bytes())
    }

    /// Returns `true` if this pattern matches all names that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        // A `*` of the other is a byte that only a `*` of this one matches.
        glob(self.0.as_bytes(), self.part(&other.0).as_bytes())
    }

    /// Returns the part of a name that this pattern is about.
    fn part<'a>(&self, name: &'a str) -> &'a str {
        if self.0.contains('@') { name } else { name.split('@').next().unwrap_or(name) }
    }
}

/// Matches a text with a pattern, in time that is the product of their lengths at most.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // The last `*`, and the text that it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == text[read] => (at, read) = (at + 1, read + 1),
            _ => match star {
                // The star takes one byte more, and what follows it is tried again.
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    (at, read) = (place + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    #[test]
    fn patterns_match_names() {
        // pattern, name, matches
        for (text, name, expected) in [
            ("*", "wasi:io/poll@0.2.6", true),
            ("wasi:*", "wasi:io/poll@0.2.6", true),
            ("wasi:*", "wasix:io/poll@0.2.6", false),
            ("wasi:io/*", "wasi:io/poll@0.2.6", true),
            ("wasi:io/*", "wasi:iota/poll@0.2.6", false),
            ("wasi:io/poll", "wasi:io/poll@0.2.6", true),
            ("wasi:io/poll", "wasi:io/poll", true),
            ("wasi:io/poll@0.2.*", "wasi:io/poll@0.2.6", true),
            ("wasi:io/poll@0.2.*", "wasi:io/poll@0.3.0", false),
            ("wasi:io/poll@0.2.*", "wasi:io/poll", false),
            ("wasi:*/p*l", "wasi:io/poll@0.2.6", true),
            ("wasi:*/p*k", "wasi:io/poll@0.2.6", false),
            ("*poll", "wasi:io/poll@0.2.6", true),
            ("", "", false),
        ] {
            let found = text.parse::<NamePattern>().is_ok_and(|pattern| pattern.matches(name));
            assert_eq!(found, expected, "{text} {name}");
        }
    }

    #[test]
    fn patterns_cover_narrower_ones() {
        // outer, inner, covers
        for (outer, inner, expected) in [
            ("*", "wasi:*", true),
            ("*", "*", true),
            ("wasi:*", "*", false),
            ("wasi:*", "wasi:io/*", true),
            ("wasi:*", "wasi:io/poll@0.2.6", true),
            ("wasi:io/*", "wasi:*", false),
            ("wasi:io/poll@0.2.*", "wasi:io/poll", false),
            ("wasi:io/poll@0.2.*", "wasi:io/poll@0.2.6", true),
            ("wasi:io/poll", "wasi:io/poll@0.2.*", true),
            ("wasi:io/poll", "wasi:io/p*", false),
        ] {
            assert_eq!(pattern(outer).covers(&pattern(inner)), expected, "{outer} {inner}");
        }
    }

    #[test]
    fn other_texts_are_no_patterns() {
        for text in ["", "wasi io", "a@1@2", "wasi:io/poll\n", "wäsi", &"a".repeat(201)] {
            assert_eq!(text.parse::<NamePattern>(), Err(NamePatternError), "{text:?}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_matched_in_time() {
        // An exponential search would not end.
        let many = pattern(&format!("{}b", "a*".repeat(90)));
        assert!(!many.matches(&"a".repeat(5_000)));
    }
}
