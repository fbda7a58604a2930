//! Paths in an answer, and patterns of paths.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::answer::AnswerDifference;

/// The patterns of paths that may differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IgnoredPaths(Vec<PathPattern>);

/// A pattern of paths, such as `reply.items[*].at`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(pub(super) Vec<PathPart>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathPart {
    Key(String),
    Index(usize),
    /// A `*`: any one key or index.
    Any,
    /// A `**`: any number of keys and indexes.
    Depth,
}

/// The error for a text that is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a path is written as `reply.items[*].at`, a key with other characters as `state[\"a b\"]`, any depth as `**.at`"
)]
pub struct PathError;

impl FromStr for PathPattern {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            // A quoted key before an index, since both begin with a bracket.
            let (part, after) = if let Some(inner) = rest.strip_prefix("[\"") {
                let (key, after) = unquoted(inner).ok_or(PathError)?;
                (PathPart::Key(key), after.strip_prefix(']').ok_or(PathError)?)
            } else if let Some(inner) = rest.strip_prefix('[') {
                let (index, after) = inner.split_once(']').ok_or(PathError)?;
                let part =
                    if index == "*" { PathPart::Any } else { PathPart::Index(index.parse().map_err(|_| PathError)?) };
                (part, after)
            } else {
                let rest = if parts.is_empty() { rest } else { rest.strip_prefix('.').ok_or(PathError)? };
                let (key, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
                let part = match key {
                    "" => return Err(PathError),
                    "*" => PathPart::Any,
                    "**" => PathPart::Depth,
                    key => PathPart::Key(key.to_owned()),
                };
                (part, after)
            };
            parts.push(part);
            rest = after;
        }
        if parts.is_empty() { Err(PathError) } else { Ok(Self(parts)) }
    }
}

/// Returns the key before the closing quote, and the text after it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((key, &text[at + 1..])),
            '\\' => key.push(chars.next()?.1),
            char => key.push(char),
        }
    }
    None
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.0.iter().enumerate() {
            let dot = if at == 0 { "" } else { "." };
            match part {
                PathPart::Key(key) if is_plain(key) => write!(f, "{dot}{key}")?,
                PathPart::Key(key) => write!(f, "[\"{}\"]", key.replace('\\', "\\\\").replace('"', "\\\""))?,
                PathPart::Index(index) => write!(f, "[{index}]")?,
                PathPart::Any => f.write_str("[*]")?,
                PathPart::Depth => write!(f, "{dot}**")?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    // Narrower than the parser, so that unusual keys are shown in quotes.
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'/')
}

impl Serialize for PathPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl IgnoredPaths {
    /// Parses declared paths.
    ///
    /// # Errors
    /// One of them is not a path.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<Self, PathError> {
        paths.into_iter().map(str::parse).collect::<Result<_, _>>().map(Self)
    }

    /// Adds the differences of a comparison of stable with itself: they are ignored from now on, in a list at any
    /// index.
    pub fn learn(&mut self, differences: &[AnswerDifference]) {
        for difference in differences {
            // A comparison printed the path, so it parses; a panic would cost more than a lost pattern.
            let Ok(PathPattern(parts)) = difference.path.parse() else { continue };
            // Lists of other lengths differ in the same way at other indexes.
            let general = |part| if let PathPart::Index(_) = part { PathPart::Any } else { part };
            let pattern = PathPattern(parts.into_iter().map(general).collect());
            // A list of a thousand elements would add as many patterns, each tried at each difference.
            if !self.covers(&pattern.0) {
                self.0.push(pattern);
            }
        }
    }

    /// Returns the patterns as text.
    pub fn paths(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    pub(super) fn covers(&self, path: &[PathPart]) -> bool {
        self.0.iter().any(|pattern| matches(&pattern.0, path))
    }

    /// Returns `true` if a pattern covers the path and ends with its last part.
    pub(super) fn names(&self, path: &[PathPart]) -> bool {
        self.0.iter().any(|pattern| pattern.0.last() == path.last() && matches(&pattern.0, path))
    }
}

/// Returns `true` if a path matches a pattern, or is below one that does.
fn matches(pattern: &[PathPart], path: &[PathPart]) -> bool {
    match (pattern, path) {
        ([], _) => true,
        ([PathPart::Depth, rest @ ..], _) => (0..=path.len()).any(|skipped| matches(rest, &path[skipped..])),
        ([PathPart::Any, rest @ ..], [_, path @ ..]) => matches(rest, path),
        ([part, rest @ ..], [first, path @ ..]) => part == first && matches(rest, path),
        (_, []) => false,
    }
}
