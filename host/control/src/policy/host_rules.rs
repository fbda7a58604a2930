//! The rules for what agents may reach of the host: its folders, and connections over TCP.

use std::fmt;

use serde::Serialize;

/// The folders that may be granted. In the order in which they are stricter and stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilesRule {
    /// Folders of all kinds.
    #[default]
    Write,
    /// Folders that are read only.
    Read,
    /// An empty set of folders.
    None,
}

/// The places for connections that may be granted. In the order in which they are stricter and stricter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TcpRule {
    /// Places of all kinds.
    #[default]
    Any,
    /// Places that are of the public internet only.
    Public,
    /// An empty set of places.
    None,
}

impl FilesRule {
    /// Returns the rule of a word; none for one that is not known.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        // By the words that are written, so that there is one list of them.
        [Self::Write, Self::Read, Self::None].into_iter().find(|rule| rule.to_string() == word)
    }
}

impl TcpRule {
    /// Returns the rule of a word; none for one that is not known.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        [Self::Any, Self::Public, Self::None].into_iter().find(|rule| rule.to_string() == word)
    }
}

/// Writes the word of the file.
impl fmt::Display for FilesRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::None => "none",
        })
    }
}

/// Writes the word of the file.
impl fmt::Display for TcpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Public => "public",
            Self::None => "none",
        })
    }
}
