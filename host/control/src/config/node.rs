//! The settings as written: a tree with the source of each value, independent of the syntax.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A value with its source.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// The source of the value.
    pub source: Source,
}

/// A TOML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A table.
    Table(Table),
    /// A list.
    Array(Vec<Node>),
    /// A text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// A truth value: `true` or `false`.
    Boolean(bool),
    /// A date, a time or both, as written. No setting takes one.
    Datetime(String),
}

/// A table by key.
pub type Table = BTreeMap<String, Entry>;

/// A key of a table with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The source of the key.
    pub key: Source,
    /// The value.
    pub node: Node,
}

/// The source of a value. The environment overrides the file, and the command line overrides both; the order of the
/// variants is that of errors.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A range of bytes of the file.
    File {
        /// The first byte.
        start: usize,
        /// The byte after the last.
        end: usize,
    },
    /// An environment variable, by name.
    Variable(Arc<str>),
    /// A flag, such as `--listen`.
    Flag(Arc<str>),
    /// A default, which has no source.
    Default,
}

/// The setting that an error is about: its key from the root, and the place of its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Location {
    /// The path of keys, such as `agents.triage.limits.memory`; empty for the file as a whole.
    pub key: String,
    /// The place of the value.
    pub source: Source,
}

impl Value {
    /// Returns the type for a sentence such as "expected a size, found a list".
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::Array(_) => "a list",
            Self::String(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a point",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date or time",
        }
    }
}

impl Node {
    /// Returns the entry of `key` if this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(table) => table.get(key),
            _ => None,
        }
    }
}
