//! The reading of one value by its kind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::bounds::{bounded, fraction, size_text, time};
use super::ceilings::Amount;
use super::error::{ConfigError, Location, PlaceProblem};
use super::error_parts::BadUnit;
use super::findings::Findings;
use super::meters::{MeterUnits, budget_name, read_meter, read_units};
use super::node::{Node, Source, Value};
use super::policy_error::PolicyError;
use super::schema::{ItemKind, KEYS, Key, Kind, METHODS};
use super::steps;
use crate::access::{CallerToken, RouteRate};
use crate::cors;
use crate::cron::Cron;
use crate::hosts::is_host_pattern;
use crate::names::{BudgetName, CAPABILITY_PREFIX, Capability, Receiver};
use crate::outgoing::{ProxyError, ProxySpec};
use crate::place::PlaceUrl;
use crate::policy::{
    AllowedDigest, AllowedDigestError, FEATURES, NamePattern, NamePatternError, TrustedKey, TrustedKeyError,
};
use crate::rollout::strategy::{Batch, CanaryStep};
use crate::route::RoutePattern;
use crate::schedule::Timezone;
use crate::snapshot::SaveMode;
use crate::units::{parse_bytes, parse_duration};

/// A valid value of its kind.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TypedValue {
    Number(u64),
    Fraction(f64),
    Time(Duration),
    Boolean(bool),
    Text(String),
    Word(&'static str),
    Address(SocketAddr),
    Route(RoutePattern),
    Rate(RouteRate),
    PlaceUrl(PlaceUrl),
    Proxy(ProxySpec),
    Cron(Cron),
    Timezone(Timezone),
    List(Vec<(Element, Source)>),
    TextMap(Vec<(String, String)>),
    Budget(BudgetName),
    Units(BTreeMap<String, u64>),
    Meter(MeterUnits),
    Batch(Batch),
    SaveMode(SaveMode),
    CanarySteps(Vec<CanaryStep>),
    Weights(Vec<u8>),
    Versions(std::collections::BTreeSet<u32>),
}

impl TypedValue {
    /// Returns the value for a comparison with a ceiling; `None` for kinds that have no ceilings.
    pub(super) fn amount(&self) -> Option<Amount> {
        match self {
            Self::Number(number) => Some(Amount::Number(*number)),
            Self::Time(time) => Some(Amount::Time(*time)),
            _ => None,
        }
    }
}

impl From<Amount> for TypedValue {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Number(number) => Self::Number(number),
            Amount::Time(time) => Self::Time(time),
        }
    }
}

/// An element of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Element {
    Text(String),
    Capability(Capability),
    Receiver(Receiver),
    Token(CallerToken),
    Pattern(NamePattern),
    Digest(AllowedDigest),
    Key(TrustedKey),
    Feature(&'static str),
}

/// Reads the value of `key`, written at `path`. Returns `None` if it is wrong; `findings` has the error then.
pub(super) fn read(key: &Key, name: &str, node: &Node, path: &str, findings: &mut Findings) -> Option<TypedValue> {
    let at = Location { key: path.to_owned(), source: node.source.clone() };
    let result = match (key.kind, &node.value) {
        (Kind::List(item), Value::Array(nodes)) => return read_list(item, nodes, path, findings).map(TypedValue::List),
        (Kind::TextMap, Value::Table(_)) => return read_text_map(node, path, findings).map(TypedValue::TextMap),
        (Kind::Units, Value::Table(table)) => return read_units(table, path, findings).map(TypedValue::Units),
        (Kind::Meter, Value::Table(table)) => return read_meter(table, path, findings).map(TypedValue::Meter),
        (Kind::Percent { least, most }, _) => {
            steps::percent(node, least, most, at).map(|p| Some(TypedValue::Fraction(p)))
        }
        (Kind::Batch, _) => steps::batch(node, at).map(|batch| Some(TypedValue::Batch(batch))),
        (Kind::CanarySteps, _) => return steps::canary_steps(node, path, findings).map(TypedValue::CanarySteps),
        (Kind::Weights, _) => return steps::weights(node, path, findings).map(TypedValue::Weights),
        (Kind::Versions, Value::Array(nodes)) => {
            return steps::versions(nodes, path, findings).map(TypedValue::Versions);
        }
        (kind, value) => read_one(kind, value, at, findings),
    };
    let error = match result {
        Ok(Some(scalar)) => return Some(scalar),
        Ok(None) => wrong_type(key, name, node, path),
        // Only here is the key known from which the example is made.
        Err(ConfigError::Empty { at, .. }) => ConfigError::Empty { at, example: example(key, name) },
        Err(error) => error,
    };
    findings.errors.push(error);
    None
}

/// Reads a value by its kind. Returns `None` if it has another type.
fn read_one(
    kind: Kind,
    value: &Value,
    at: Location,
    findings: &mut Findings,
) -> Result<Option<TypedValue>, ConfigError> {
    let scalar = match (kind, value) {
        (Kind::Format, Value::Integer(1)) => TypedValue::Number(1),
        (Kind::Format, Value::Integer(given)) => return Err(ConfigError::UnknownFormat { at, given: *given }),
        (Kind::Integer { least, most }, Value::Integer(given)) => {
            TypedValue::Number(bounded(i128::from(*given), least, most, at, |n| n.to_string())?)
        }
        (Kind::Number { least, most }, Value::Float(given)) => TypedValue::Fraction(fraction(*given, least, most, at)?),
        #[allow(clippy::cast_precision_loss, reason = "what is within bounds is small")]
        (Kind::Number { least, most }, Value::Integer(given)) => {
            TypedValue::Fraction(fraction(*given as f64, least, most, at)?)
        }
        (Kind::Size { least, most }, Value::Integer(given)) => {
            TypedValue::Number(bounded(i128::from(*given), least, most, at, size_text)?)
        }
        (Kind::Size { least, most }, Value::String(text)) => match parse_bytes(text) {
            Ok(given) => TypedValue::Number(bounded(i128::from(given), least, most, at, size_text)?),
            Err(reason) => return Err(ConfigError::BadSize { at, text: BadUnit { given: text.clone(), reason } }),
        },
        (Kind::Time { least, most }, Value::String(text)) => match parse_duration(text) {
            Ok(given) => TypedValue::Time(time(given, least, most, at)?),
            Err(reason) => return Err(ConfigError::BadDuration { at, text: BadUnit { given: text.clone(), reason } }),
        },
        (Kind::Boolean, Value::Boolean(given)) => TypedValue::Boolean(*given),
        (Kind::Text, Value::String(text)) if text.trim().is_empty() => {
            return Err(ConfigError::Empty { at, example: String::new() });
        }
        (Kind::Text | Kind::AnyText, Value::String(text)) => TypedValue::Text(text.clone()),
        (Kind::ContentType, Value::String(text)) => TypedValue::Text(content_type(text, at)?),
        (Kind::Cron, Value::String(text)) => match text.parse() {
            Ok(cron) => TypedValue::Cron(cron),
            Err(reason) => return Err(ConfigError::BadCron { at, given: text.clone(), reason }),
        },
        (Kind::SaveMode, Value::String(text)) => match text.parse() {
            Ok(mode) => TypedValue::SaveMode(mode),
            Err(reason) => return Err(ConfigError::BadSaveMode { at, given: text.clone(), reason }),
        },
        (Kind::Timezone, Value::String(text)) => TypedValue::Timezone(timezone(text, at, findings)?),
        (Kind::Word { known, later }, Value::String(text)) => TypedValue::Word(word(text, known, later, at, findings)?),
        (Kind::Address, Value::String(text)) => match text.parse() {
            Ok(address) => TypedValue::Address(address),
            Err(_) => return Err(ConfigError::BadAddress { at, given: text.clone() }),
        },
        (Kind::Route, Value::String(text)) => match text.parse() {
            Ok(route) => TypedValue::Route(route),
            Err(reason) => return Err(ConfigError::BadRoute { at, given: text.clone(), reason }),
        },
        (Kind::PlaceUrl, Value::String(text)) => match PlaceUrl::parse(text) {
            Ok(url) => TypedValue::PlaceUrl(url),
            Err(reason) => return Err(bad_place(at, PlaceProblem::Unusable { given: text.clone(), reason })),
        },
        (Kind::Proxy, Value::String(text)) => match ProxySpec::parse(text) {
            Ok(proxy) => TypedValue::Proxy(proxy),
            Err(ProxyError::Url(shown)) => return Err(bad_place(at, PlaceProblem::Proxy(shown))),
            Err(ProxyError::Password) => return Err(bad_place(at, PlaceProblem::ProxyPassword)),
        },
        (Kind::BudgetName, Value::String(text)) => TypedValue::Budget(budget_name(text, at)?),
        (Kind::Rate, Value::String(text)) => match text.parse() {
            Ok(rate) => TypedValue::Rate(rate),
            Err(reason) => return Err(ConfigError::BadRate { at, given: text.clone(), reason }),
        },
        _ => return Ok(None),
    };
    Ok(Some(scalar))
}

/// Returns the error for a place or a proxy.
pub(super) fn bad_place(at: Location, problem: PlaceProblem) -> ConfigError {
    ConfigError::BadPlace { at, problem: Box::new(problem) }
}

/// Checks that a text can be the content type of a message (SPEC §7).
fn content_type(text: &str, at: Location) -> Result<String, ConfigError> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match text.len() {
        1..=100 if printable => Ok(text.to_owned()),
        _ => Err(ConfigError::BadContentType { at, given: text.to_owned() }),
    }
}

/// Parses the name of a time zone.
fn timezone(text: &str, at: Location, findings: &mut Findings) -> Result<Timezone, ConfigError> {
    text.parse().map_err(|_| {
        let suggestion = findings.suggest.nearest(text, Timezone::names()).map(str::to_owned);
        ConfigError::UnknownTimezone { at, given: text.to_owned(), suggestion }
    })
}

/// Checks that a word is implemented.
fn word(
    text: &str,
    known: &'static [&'static str],
    later: &'static [&'static str],
    at: Location,
    findings: &mut Findings,
) -> Result<&'static str, ConfigError> {
    if let Some(word) = known.iter().find(|word| **word == text) {
        return Ok(word);
    }
    // Before any suggestion: the word is spelt right, but not implemented yet.
    if later.contains(&text) {
        return Err(ConfigError::NotImplemented { at, what: text.to_owned(), instead: known });
    }
    let suggestion = findings.suggest.nearest(text, known.iter().copied()).map(str::to_owned);
    Err(ConfigError::UnknownWord { at, given: text.to_owned(), known, suggestion })
}

/// Returns the valid elements, each once; of methods all or none, since an empty list means all methods.
fn read_list(item: ItemKind, nodes: &[Node], path: &str, findings: &mut Findings) -> Option<Vec<(Element, Source)>> {
    let before = findings.errors.len();
    let mut seen: std::collections::BTreeMap<&str, &Source> = std::collections::BTreeMap::new();
    let mut elements = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let at = Location { key: format!("{path}[{index}]"), source: node.source.clone() };
        let Value::String(text) = &node.value else {
            let (expected, example) = (item.describe().to_owned(), format!("\"{}\"", item.example()));
            findings.errors.push(ConfigError::WrongType { at, expected, found: node.value.describe(), example });
            continue;
        };
        // A repetition is most often a slip for another element, so it is not silently dropped.
        if let Some(first) = seen.insert(text, &node.source) {
            let first = first.clone();
            findings.errors.push(ConfigError::Repeated { at, given: text.clone(), first });
            continue;
        }
        match read_item(item, text, at, findings) {
            Ok(element) => elements.push((element, node.source.clone())),
            Err(error) => findings.errors.push(error),
        }
    }
    (item != ItemKind::Method || findings.errors.len() == before).then_some(elements)
}

/// Reads one element of a list.
fn read_item(item: ItemKind, text: &str, at: Location, findings: &mut Findings) -> Result<Element, ConfigError> {
    let given = text.to_owned();
    match item {
        ItemKind::Text if text.trim().is_empty() => {
            Err(ConfigError::Empty { at, example: format!("\"{}\"", item.example()) })
        }
        ItemKind::Text => Ok(Element::Text(given)),
        ItemKind::Capability => match text.parse() {
            Ok(name) => Ok(Element::Capability(name)),
            Err(reason) => Err(ConfigError::BadName { at, given, whose: "a capability", reason }),
        },
        ItemKind::Receiver => match text.parse() {
            Ok(receiver) => Ok(Element::Receiver(receiver)),
            Err(reason) => {
                let (given, whose) = match text.strip_prefix(CAPABILITY_PREFIX) {
                    Some(name) => (name.to_owned(), "a capability"),
                    None => (given, "an agent"),
                };
                Err(ConfigError::BadName { at, given, whose, reason })
            }
        },
        ItemKind::Variable if is_variable(text) => Ok(Element::Text(given)),
        ItemKind::Variable => Err(ConfigError::BadVariableName { at, given }),
        ItemKind::Origin if cors::is_origin(text) => Ok(Element::Text(given)),
        ItemKind::Origin => Err(ConfigError::BadOrigin { at, given }),
        ItemKind::Header if cors::is_header(text) => Ok(Element::Text(given)),
        ItemKind::Header => Err(ConfigError::BadHeaderName { at, given }),
        ItemKind::HostName if is_host_pattern(text) => Ok(Element::Text(given)),
        ItemKind::HostName => Err(ConfigError::BadHostName { at, given }),
        ItemKind::CallerToken => match text.parse() {
            Ok(token) => Ok(Element::Token(token)),
            Err(reason) => Err(ConfigError::BadCallerToken { at, given, reason }),
        },
        ItemKind::NamePattern | ItemKind::AllowedDigest | ItemKind::PublicKey | ItemKind::Feature => {
            read_policy_item(item, text, at, findings)
        }
        ItemKind::Method if METHODS.contains(&text) => Ok(Element::Text(given)),
        ItemKind::Method => {
            let suggestion = findings.suggest.nearest(text, METHODS.iter().copied()).map(str::to_owned);
            Err(ConfigError::UnknownMethod { at, given, suggestion })
        }
    }
}

/// Reads one element of a list of the policy.
fn read_policy_item(item: ItemKind, text: &str, at: Location, findings: &mut Findings) -> Result<Element, ConfigError> {
    let (read, reason) = match item {
        ItemKind::AllowedDigest => (text.parse().map(Element::Digest).ok(), AllowedDigestError.to_string()),
        ItemKind::PublicKey => (text.parse().map(Element::Key).ok(), TrustedKeyError.to_string()),
        ItemKind::Feature => match FEATURES.iter().find(|known| **known == text) {
            Some(feature) => return Ok(Element::Feature(feature)),
            None => {
                let suggestion = findings.suggest.nearest(text, FEATURES.iter().copied()).map(str::to_owned);
                return Err(ConfigError::UnknownWord { at, given: text.to_owned(), known: FEATURES, suggestion });
            }
        },
        _ => (text.parse().map(Element::Pattern).ok(), NamePatternError.to_string()),
    };
    read.ok_or_else(|| {
        let (given, kind, example) = (text.to_owned(), item.describe(), item.example());
        ConfigError::Policy { at, reason: Box::new(PolicyError::BadItem { given, kind, reason, example }) }
    })
}

/// Returns `true` if an environment variable can have this name (POSIX, XBD 8.1).
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Reads a table of texts; `None` if a value is not text.
fn read_text_map(node: &Node, path: &str, findings: &mut Findings) -> Option<Vec<(String, String)>> {
    let Value::Table(table) = &node.value else { return None };
    let before = findings.errors.len();
    let mut pairs = Vec::with_capacity(table.len());
    for (name, entry) in table {
        if let Value::String(text) = &entry.node.value {
            pairs.push((name.clone(), text.clone()));
            continue;
        }
        findings.errors.push(ConfigError::WrongType {
            at: Location { key: format!("{path}.{name}"), source: entry.node.source.clone() },
            expected: "text".to_owned(),
            found: entry.node.value.describe(),
            example: text_of(name, &entry.node.value),
        });
    }
    (findings.errors.len() == before).then_some(pairs)
}

/// Returns a value written as text, for the remedy of an error.
fn text_of(name: &str, value: &Value) -> String {
    match value {
        Value::Integer(number) => format!("{name} = \"{number}\""),
        Value::Float(number) => format!("{name} = \"{number}\""),
        Value::Boolean(truth) => format!("{name} = \"{truth}\""),
        Value::Datetime(text) => format!("{name} = \"{text}\""),
        Value::String(_) | Value::Table(_) | Value::Array(_) => format!("{name} = \"…\""),
    }
}

/// Returns the error for a value of another type than the key takes.
pub(super) fn wrong_type(key: &Key, name: &str, node: &Node, path: &str) -> ConfigError {
    ConfigError::WrongType {
        at: Location { key: path.to_owned(), source: node.source.clone() },
        expected: key.kind.describe(),
        found: node.value.describe(),
        example: example(key, name),
    }
}

/// Returns a typical setting as written in the file.
pub(super) fn example(key: &Key, name: &str) -> String {
    let inner = || {
        let below = |inner: &&Key| inner.path.strip_prefix(key.path).is_some_and(|rest| rest.starts_with('.'));
        let inner = KEYS.iter().find(below)?;
        Some(example(inner, inner.path.rsplit('.').next()?))
    };
    match key.kind {
        Kind::Table => format!("{name} = {{ {} }}", inner().unwrap_or_default()),
        Kind::Tables => format!("{name} = [{{ {} }}]", inner().unwrap_or_default()),
        Kind::Agents => "[agents.triage]".to_owned(),
        Kind::Secrets => "[secrets]".to_owned(),
        Kind::Budgets => "[budgets.research]".to_owned(),
        _ => format!("{name} = {}", key.default.example()),
    }
}
