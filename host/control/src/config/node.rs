//! The settings as they were typed: a tree that knows where each value comes from, whatever the syntax was.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub place: Place,
}

/// A value as TOML knows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Keys with values.
    Table(Table),
    /// A list, in its order.
    Array(Vec<Node>),
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date, a time or both, as written. No setting takes one.
    Datetime(String),
}

/// Keys with values.
pub type Table = BTreeMap<String, Entry>;

/// One key of a table with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Where the key was written.
    pub key: Place,
    /// What it is set to.
    pub node: Node,
}

/// Where a value comes from. What the file says is overridden by the environment, and that by the command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// These bytes of the file.
    File {
        /// The first byte.
        start: usize,
        /// The byte after the last.
        end: usize,
    },
    /// The environment variable of this name.
    Variable(Arc<str>),
    /// The flag of this name, such as `--listen`.
    Flag(Arc<str>),
    /// Nobody wrote it.
    Default,
}

impl Value {
    /// What it is, for a sentence such as "expected a size, found a list".
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
    /// The entry of `key`, if this is a table that has it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(table) => table.get(key),
            _ => None,
        }
    }
}
