//! A table of the file together with its schema.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::ceilings::Excess;
use super::error::{ConfigError, Location};
use super::findings::Findings;
use super::meters::MeterUnits;
use super::node::{Entry, Node, Source, Table, Value};
use super::policy_error::PolicyError;
use super::schema::{DefaultValue, Field, Fields, Key, Kind};
use super::values::{Element, TypedValue, example, read, wrong_type};
use crate::access::{CallerToken, RouteRate};
use crate::cron::Cron;
use crate::names::{BudgetName, Capability, Receiver};
use crate::outgoing::ProxySpec;
use crate::place::PlaceUrl;
use crate::policy::{AllowedDigest, NamePattern, TrustedKey};
use crate::rollout::strategy::{Batch, CanaryStep};
use crate::route::RoutePattern;
use crate::schedule::Timezone;
use crate::snapshot::SaveMode;

/// A table with known keys; reading from it reports wrong values.
pub(super) struct Section<'a> {
    fields: &'static Fields,
    table: Option<&'a Table>,
    path: String,
    source: Source,
}

impl<'a> Section<'a> {
    /// Opens the table at `path`. Reports each key that is unknown or not implemented.
    pub(super) fn open(
        fields: &'static Fields,
        table: &'a Table,
        path: String,
        source: Source,
        findings: &mut Findings,
    ) -> Self {
        let section = Self { fields, table: Some(table), path, source };
        // Here and not when a value is read, as no code ever reads an unknown key.
        for (name, entry) in table {
            match fields.get(name.as_str()) {
                None => findings.errors.push(section.unknown(name, entry, &mut findings.suggest)),
                Some(field) if field.key.kind == Kind::Unimplemented => {
                    let at = Location { key: section.key(name), source: entry.key.clone() };
                    findings.errors.push(ConfigError::NotImplemented { at, what: name.clone(), instead: &[] });
                }
                Some(_) => {}
            }
        }
        section
    }

    /// Returns an absent table: all its keys have their defaults.
    pub(super) fn absent(fields: &'static Fields, path: String) -> Self {
        Self { fields, table: None, path, source: Source::Default }
    }

    /// Returns the path of a key in this table.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Returns the entry of a key, if the table has it.
    pub(super) fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.table?.get(name)
    }

    /// Returns the place of a key's value, or [`Source::Default`].
    pub(super) fn source_of(&self, name: &str) -> Source {
        self.entry(name).map_or(Source::Default, |entry| entry.node.source.clone())
    }

    /// Returns the place of the value of a key in a table below this one, or [`Source::Default`].
    pub(super) fn nested_source(&self, table: &str, name: &str) -> Source {
        let written = self.entry(table).and_then(|entry| entry.node.get(name));
        written.map_or(Source::Default, |entry| entry.node.source.clone())
    }

    /// Returns a key of this table with the keys below it.
    pub(super) fn field(&self, name: &str) -> &'static Field {
        self.fields.get(name).expect("the schema has every key that is read; a test reads them all")
    }

    /// Returns the table of a key, if it was written and is a table.
    pub(super) fn written(&self, name: &str, findings: &mut Findings) -> Option<Section<'a>> {
        let field = self.field(name);
        let entry = self.entry(name)?;
        let path = self.key(name);
        match &entry.node.value {
            Value::Table(table) => Some(Section::open(&field.fields, table, path, entry.key.clone(), findings)),
            _ => {
                findings.errors.push(wrong_type(field.key, name, &entry.node, &path));
                None
            }
        }
    }

    /// Returns the table of a key; if it was not written, an absent one.
    pub(super) fn section(&self, name: &str, findings: &mut Findings) -> Section<'a> {
        let written = self.written(name, findings);
        written.unwrap_or_else(|| Section::absent(&self.field(name).fields, self.key(name)))
    }

    /// Returns the tables of a list of tables.
    pub(super) fn sections(&self, name: &str, findings: &mut Findings) -> Vec<Section<'a>> {
        let field = self.field(name);
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let path = self.key(name);
        let Value::Array(nodes) = &entry.node.value else {
            findings.errors.push(wrong_type(field.key, name, &entry.node, &path));
            return Vec::new();
        };
        let open = |(index, node): (usize, &'a Node)| {
            let path = format!("{path}[{index}]");
            if let Value::Table(table) = &node.value {
                return Some(Section::open(&field.fields, table, path, node.source.clone(), findings));
            }
            findings.errors.push(ConfigError::WrongType {
                at: Location { key: path, source: node.source.clone() },
                expected: "a table".to_owned(),
                found: node.value.describe(),
                example: example(field.key, name),
            });
            None
        };
        nodes.iter().enumerate().filter_map(open).collect()
    }

    /// Returns the value of a key: as written, else `inherited`, else the schema's default. `None` if the value is
    /// wrong, if the key is required and missing, or if there is no default.
    pub(super) fn get<T: FromValue>(&self, name: &str, inherited: Option<T>, findings: &mut Findings) -> Option<T> {
        let key = self.field(name).key;
        if key.kind == Kind::Unimplemented {
            // A written key was reported by [`open`](Self::open).
            return inherited;
        }
        if let Some(entry) = self.entry(name) {
            let value = read(key, name, &entry.node, &self.key(name), findings)?;
            let excess = value.amount().and_then(|amount| findings.ceilings.excess(key, amount));
            if let Some(Excess { given, most, ceiling, at: other }) = excess {
                let at = Location { key: self.key(name), source: entry.node.source.clone() };
                let reason = Box::new(PolicyError::AboveCeiling { given, most, ceiling, other });
                findings.errors.push(ConfigError::Policy { at, reason });
            }
            return T::from_value(value);
        }
        // Before the default of the schema: `[defaults]` was written, and that was not.
        if inherited.is_some() {
            return inherited;
        }
        match key.default.node() {
            Some(node) => {
                let default = read(key, name, &node, &self.key(name), findings);
                lowered(key, default, findings).and_then(T::from_value)
            }
            None => {
                if matches!(key.default, DefaultValue::Required(_)) {
                    findings.errors.push(self.missing(key, name, None));
                }
                lowered(key, None, findings).and_then(T::from_value)
            }
        }
    }

    /// Returns the error for a missing required key.
    pub(super) fn missing(&self, key: &Key, name: &str, agent: Option<String>) -> ConfigError {
        let at = Location { key: self.key(name), source: self.source.clone() };
        ConfigError::Missing { at, example: example(key, name), agent }
    }

    /// Returns the error for a key that the table does not have.
    fn unknown(&self, name: &str, entry: &Entry, suggest: &mut super::suggestions::Suggestions) -> ConfigError {
        let names =
            || self.fields.values().filter(|field| field.key.kind != Kind::Unimplemented).map(|field| field.name);
        // A key is often written one table too high.
        let below = || names().find(|table| self.fields[table].fields.contains_key(name));
        let near = suggest.nearest(name, names()).map(str::to_owned);
        let suggestion = near.or_else(|| below().map(|table| format!("{table}.{name}")));
        let at = Location { key: self.key(name), source: entry.key.clone() };
        ConfigError::UnknownKey { at, suggestion, known: names().collect() }
    }

    /// Returns the keys below a key of this table.
    pub(super) fn fields_of(&self, name: &str) -> &'static Fields {
        &self.field(name).fields
    }

    /// Returns the schema of a key in this table.
    pub(super) fn schema(&self, name: &str) -> &'static Key {
        self.field(name).key
    }
}

/// Returns the default of a key, or the ceiling that is below it.
fn lowered(key: &Key, default: Option<TypedValue>, findings: &Findings) -> Option<TypedValue> {
    let amount = default.as_ref().and_then(TypedValue::amount);
    // Only keys of agents have ceilings, so that another without a value stays without.
    findings.ceilings.in_place_of(key, amount).map(TypedValue::from).or(default)
}

impl Element {
    /// Returns the text of a text element.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the name of a capability element.
    pub(super) fn capability(self) -> Option<Capability> {
        match self {
            Self::Capability(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the receiver of a receiver element.
    pub(super) fn receiver(self) -> Option<Receiver> {
        match self {
            Self::Receiver(receiver) => Some(receiver),
            _ => None,
        }
    }

    /// Returns the token of a token element.
    pub(super) fn token(self) -> Option<CallerToken> {
        match self {
            Self::Token(token) => Some(token),
            _ => None,
        }
    }

    /// Returns the pattern of an element that is one.
    pub(super) fn pattern(self) -> Option<NamePattern> {
        match self {
            Self::Pattern(pattern) => Some(pattern),
            _ => None,
        }
    }

    /// Returns the digest of an element that is one.
    pub(super) fn digest(self) -> Option<AllowedDigest> {
        match self {
            Self::Digest(digest) => Some(digest),
            _ => None,
        }
    }

    /// Returns the key of an element that is one.
    pub(super) fn key(self) -> Option<TrustedKey> {
        match self {
            Self::Key(key) => Some(key),
            _ => None,
        }
    }

    /// Returns the proposal of an element that is one.
    pub(super) fn feature(self) -> Option<&'static str> {
        match self {
            Self::Feature(feature) => Some(feature),
            _ => None,
        }
    }
}

/// A type that a value can be read as.
pub(super) trait FromValue: Sized {
    /// Converts the value if it is of the kind for this type.
    fn from_value(scalar: TypedValue) -> Option<Self>;
}

/// Implements [`FromValue`] for a type by the variant of [`TypedValue`] that holds it.
macro_rules! from_value {
    ($($type:ty: $pattern:pat => $value:expr;)*) => {
        $(impl FromValue for $type {
            fn from_value(scalar: TypedValue) -> Option<Self> {
                match scalar {
                    $pattern => $value,
                    // The kind of a key does not fit the type that reads it: the test that reads every key fails.
                    _ => None,
                }
            }
        })*
    };
}

from_value! {
    u64: TypedValue::Number(number) => Some(number);
    f64: TypedValue::Fraction(number) => Some(number);
    u32: TypedValue::Number(number) => u32::try_from(number).ok();
    Duration: TypedValue::Time(time) => Some(time);
    bool: TypedValue::Boolean(truth) => Some(truth);
    String: TypedValue::Text(text) => Some(text);
    &'static str: TypedValue::Word(word) => Some(word);
    SocketAddr: TypedValue::Address(address) => Some(address);
    Cron: TypedValue::Cron(cron) => Some(cron);
    Timezone: TypedValue::Timezone(zone) => Some(zone);
    RoutePattern: TypedValue::Route(route) => Some(route);
    RouteRate: TypedValue::Rate(rate) => Some(rate);
    PlaceUrl: TypedValue::PlaceUrl(url) => Some(url);
    ProxySpec: TypedValue::Proxy(proxy) => Some(proxy);
    Batch: TypedValue::Batch(batch) => Some(batch);
    SaveMode: TypedValue::SaveMode(mode) => Some(mode);
    Vec<CanaryStep>: TypedValue::CanarySteps(steps) => Some(steps);
    Vec<u8>: TypedValue::Weights(weights) => Some(weights);
    BTreeSet<u32>: TypedValue::Versions(versions) => Some(versions);
    Vec<(Element, Source)>: TypedValue::List(elements) => Some(elements);
    Vec<String>: TypedValue::List(elements) => Some(elements.into_iter().filter_map(|(element, _)| element.text()).collect());
    BTreeSet<String>: TypedValue::List(elements) => Some(elements.into_iter().filter_map(|(element, _)| element.text()).collect());
    BudgetName: TypedValue::Budget(name) => Some(name);
    BTreeMap<String, u64>: TypedValue::Units(units) => Some(units);
    MeterUnits: TypedValue::Meter(units) => Some(units);
    BTreeMap<String, String>: TypedValue::TextMap(pairs) => Some(pairs.into_iter().collect());
}
