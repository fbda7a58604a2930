//! The rows of the table of settings: a key, the kind of its value, and its default.

use std::time::Duration;

use super::node::{Node, Source, Table, Value};
use crate::units::{print_bytes, print_duration};

/// A setting, or a table of settings.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The keys from the root, joined with `.`; `NAME` stands for an agent's name.
    pub path: &'static str,
    /// The values that it takes.
    pub kind: Kind,
    /// The value without it.
    pub default: DefaultValue,
    /// The meaning, in one line.
    pub doc: &'static str,
    /// Set if more of it uses more of the host, so that `[ceilings]` has the key too.
    pub is_capped: bool,
}

impl Key {
    /// Returns the key as one that can have a ceiling: a number, a size or a duration of an agent. Without a value it
    /// counts as more than any ceiling.
    pub(super) const fn capped(self) -> Self {
        Self { is_capped: true, ..self }
    }
}

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A table with the keys below its path.
    Table,
    /// A list of such tables.
    Tables,
    /// A table of such tables by agent name.
    Agents,
    /// The table of secrets by name, with `folder` among them.
    Secrets,
    /// A table of tables by the name of a budget.
    Budgets,
    /// A whole number.
    Integer {
        /// The lower bound.
        least: u64,
        /// The upper bound.
        most: u64,
    },
    /// A number that may have a fraction.
    Number {
        /// The lower bound.
        least: f64,
        /// The upper bound.
        most: f64,
    },
    /// A size in bytes.
    Size {
        /// The lower bound, in bytes.
        least: u64,
        /// The upper bound, in bytes.
        most: u64,
    },
    /// A duration.
    Time {
        /// The lower bound, in milliseconds.
        least: u64,
        /// The upper bound, in milliseconds.
        most: u64,
    },
    /// A truth value: `true` or `false`.
    Boolean,
    /// A text that is not empty.
    Text,
    /// A text, even an empty one.
    AnyText,
    /// The media type of a content.
    ContentType,
    /// A cron pattern.
    Cron,
    /// The name of a time zone.
    Timezone,
    /// The version of the file format.
    Format,
    /// A word of a list.
    Word {
        /// The implemented words.
        known: &'static [&'static str],
        /// The words of a later version.
        later: &'static [&'static str],
    },
    /// An IP address with a port.
    Address,
    /// A path with parameters.
    Route,
    /// A list without repetition.
    List(ItemKind),
    /// A table with any keys, each with a text.
    TextMap,
    /// A percentage, as text such as `5%` or as a number.
    Percent {
        /// The lower bound, in percent.
        least: f64,
        /// The upper bound, in percent.
        most: f64,
    },
    /// A number of instances, or a percentage of them.
    Batch,
    /// A time at which memories are saved.
    SaveMode,
    /// The steps of a canary.
    CanarySteps,
    /// A list of rising weights.
    Weights,
    /// Versions of a format, each a whole number from 0 to 1,000,000.
    Versions,
    /// A number of requests in a second, a minute or an hour.
    Rate,
    /// A list of places that may be called over HTTP: texts, or tables with the keys below its path.
    Places,
    /// The name of a budget.
    BudgetName,
    /// A table of whole numbers by the name of a unit.
    Units,
    /// A table of JSON pointers, or of tables of factors by JSON pointer, by the name of a unit.
    Meter,
    /// The URL of a place.
    PlaceUrl,
    /// A list of folders that an agent sees: texts, or tables with the keys below its path.
    Folders,
    /// A list of places that may be connected to: texts, or tables with the keys below its path.
    TcpPlaces,
    /// The URL of a proxy.
    Proxy,
    /// A key that is known but not implemented in this version.
    Unimplemented,
}

/// The kind of a list's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemKind {
    /// A text that is not empty.
    Text,
    /// The name of a capability.
    Capability,
    /// An agent's name, or `cap:` and a capability's.
    Receiver,
    /// The name of an environment variable.
    Variable,
    /// A method of HTTP.
    Method,
    /// An origin of web pages, or `*` for all.
    Origin,
    /// The name of a header, or `*` for all.
    Header,
    /// A host name, a domain with all names below it, or an IP address.
    HostName,
    /// The name of a token, or a name and a digest.
    CallerToken,
    /// A pattern of names of interfaces.
    NamePattern,
    /// The digest of a component, of all agents or of one.
    AllowedDigest,
    /// A public key that signs components.
    PublicKey,
    /// A proposal of WebAssembly.
    Feature,
}

/// The value of a key that is not set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DefaultValue {
    /// The absence of a default: the key is required. The text is an example.
    Required(&'static str),
    /// The absence of a default. The text is an example.
    Unset(&'static str),
    /// A text.
    Text(&'static str),
    /// A whole number.
    Integer(i64),
    /// A number that may have a fraction.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// An empty list. The text is an example.
    EmptyList(&'static str),
    /// An empty table. The text is an example.
    EmptyTable(&'static str),
}

impl DefaultValue {
    /// Returns the default, or else a typical value, as TOML.
    pub fn example(&self) -> String {
        match self {
            Self::Required(text) | Self::Unset(text) | Self::EmptyList(text) | Self::EmptyTable(text) => {
                (*text).to_owned()
            }
            Self::Text(text) => format!("\"{text}\""),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => format!("{number:?}"),
            Self::Boolean(truth) => truth.to_string(),
        }
    }

    /// Returns the default as a value, if there is one.
    pub(super) fn node(&self) -> Option<Node> {
        // Through the tree: a default takes the way of a written value, and its bounds are checked by it.
        let value = match self {
            Self::Required(_) | Self::Unset(_) => return None,
            Self::Text(text) => Value::String((*text).to_owned()),
            Self::Integer(number) => Value::Integer(*number),
            Self::Number(number) => Value::Float(*number),
            Self::Boolean(truth) => Value::Boolean(*truth),
            Self::EmptyList(_) => Value::Array(Vec::new()),
            Self::EmptyTable(_) => Value::Table(Table::new()),
        };
        Some(Node { value, source: Source::Default })
    }
}

impl Kind {
    /// Returns the bounds as text, if the kind has any.
    pub(super) fn bounds(&self) -> Option<String> {
        let print_time = |ms: u64| print_duration(Duration::from_millis(ms));
        match self {
            Self::Integer { least, most } => Some(format!("{least} to {most}")),
            Self::Number { least, most } => Some(format!("{least} to {most}")),
            Self::Percent { least, most } => Some(format!("{least}% to {most}%")),
            Self::Batch => Some("1 to 100".to_owned()),
            Self::Size { least, most } => Some(format!("{} to {}", print_bytes(*least), print_bytes(*most))),
            Self::Time { least, most } => Some(format!("{} to {}", print_time(*least), print_time(*most))),
            _ => None,
        }
    }

    /// Returns `true` for a list whose elements are texts, or tables with the keys below its path.
    pub fn is_list_of_tables(self) -> bool {
        matches!(self, Self::Places | Self::Folders | Self::TcpPlaces)
    }

    /// Returns the accepted values for a sentence such as "expected a size, found a list".
    pub fn describe(&self) -> String {
        let text = match self {
            Self::Table | Self::Agents | Self::Secrets | Self::Budgets | Self::TextMap => "a table",
            Self::Tables => "a list of tables",
            Self::Integer { .. } | Self::Format => "a whole number",
            Self::Size { .. } => "a size",
            Self::Time { .. } => "a duration",
            Self::Boolean => "true or false",
            Self::Text | Self::AnyText => "text",
            Self::Number { .. } => "a number",
            Self::ContentType => "a content type",
            Self::Cron => "a cron",
            Self::Timezone => "a time zone",
            Self::Word { .. } => "a word",
            Self::Address => "an address",
            Self::Route => "a route",
            Self::List(item) => return format!("a list of {}", item.plural()),
            Self::Percent { .. } => "a percentage",
            Self::Batch => "a number or a percentage",
            Self::SaveMode => "a time to save",
            Self::CanarySteps | Self::Weights => "a list of steps",
            Self::Versions => "a list of whole numbers up to 1000000",
            Self::Rate => "a rate",
            Self::Places => "a list of places",
            Self::Folders => "a list of folders",
            Self::TcpPlaces => "a list of places",
            Self::BudgetName => "the name of a budget",
            Self::Units => "a table of whole numbers",
            Self::Meter => "a table of JSON pointers",
            Self::PlaceUrl => "a place",
            Self::Proxy => "the URL of a proxy",
            Self::Unimplemented => "nothing",
        };
        text.to_owned()
    }
}

impl ItemKind {
    /// Returns the name of one element, with its article.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Capability => "the name of a capability",
            Self::Receiver => "an agent or a capability",
            Self::Variable => "the name of a variable",
            Self::Method => "a method",
            Self::Origin => "an origin",
            Self::Header => "the name of a header",
            Self::HostName => "a host name",
            Self::CallerToken => "a token",
            Self::NamePattern => "a pattern of names",
            Self::AllowedDigest => "a digest",
            Self::PublicKey => "a public key",
            Self::Feature => "a feature",
        }
    }

    /// Returns the name of several elements.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Text => "texts",
            Self::Capability => "capabilities",
            Self::Receiver => "agents and capabilities",
            Self::Variable => "names of variables",
            Self::Method => "methods",
            Self::Origin => "origins",
            Self::Header => "names of headers",
            Self::HostName => "host names",
            Self::CallerToken => "tokens",
            Self::NamePattern => "patterns of names",
            Self::AllowedDigest => "digests",
            Self::PublicKey => "public keys",
            Self::Feature => "features",
        }
    }

    /// Returns a typical element.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Text => "components/triage/**",
            Self::Capability => "triage",
            Self::Receiver => "cap:archive",
            Self::Variable => "LANG",
            Self::Method => "POST",
            Self::Origin => "https://app.example",
            Self::Header => "content-type",
            Self::HostName => "agents.example.com",
            Self::CallerToken => "shop",
            Self::NamePattern => "wasi:io/*",
            Self::AllowedDigest => "sha256:HEX",
            Self::PublicKey => "ed25519:HEX",
            Self::Feature => "simd",
        }
    }
}
