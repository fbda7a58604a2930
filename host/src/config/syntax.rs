//! The syntax errors of a TOML file, all at once.
//!
//! toml_edit stops at the first error. Errors of the grammar come from its parser, which goes on with the next line. A
//! key that is set twice leaves the rest readable: it is renamed in a copy of the text without moving other bytes, and
//! the copy is parsed again.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use caxton_control::config::{ConfigError, Location, Node, Table, Value};
use toml_edit::Document;
use toml_parser::decoder::ScalarKind;
use toml_parser::parser::{Event, EventKind, RecursionGuard, ValidateWhitespace, parse_document};
use toml_parser::{ParseError, Source};

use super::toml::{document, in_file};

/// The number of errors reported for one file: later ones often follow from earlier ones.
const MAX_ERRORS: usize = 20;

/// The nesting depth at which toml_edit gives up.
const MAX_DEPTH: u32 = 80;

/// Parses the text of a file.
///
/// # Errors
/// All syntax errors, in order of place.
pub(super) fn parse(text: &str) -> Result<Node, Vec<ConfigError>> {
    match Document::parse(text) {
        Ok(read) => Ok(document(&read)),
        Err(first) => Err(errors(text, &first)),
    }
}

/// Returns the errors of `text`, for which toml_edit reported `first`.
fn errors(text: &str, first: &toml_edit::TomlError) -> Vec<ConfigError> {
    let (events, grammar) = events(text);
    if grammar.is_empty() {
        return repair(text, &events, first);
    }
    // One error for each line: the parser stumbles over what follows the first one. Collected in reverse, so that the
    // first one wins.
    let by_line: BTreeMap<usize, ConfigError> = grammar
        .into_iter()
        .rev()
        .map(|error| {
            let span = error.unexpected().map_or(text.len()..text.len(), |span| span.start()..span.end());
            (text.bytes().take(span.start).filter(|byte| *byte == b'\n').count(), syntax(span, &error))
        })
        .collect();
    by_line.into_values().take(MAX_ERRORS).collect()
}

/// Returns the events of the parser, with the errors of the grammar and of single values in order of place.
fn events(text: &str) -> (Vec<Event>, Vec<ParseError>) {
    let source = Source::new(text);
    let tokens = source.lex().into_vec();
    let mut events = Vec::with_capacity(tokens.len());
    let mut errors = Vec::new();
    let mut spaced = ValidateWhitespace::new(&mut events, source);
    parse_document(&tokens, &mut RecursionGuard::new(&mut spaced, MAX_DEPTH), &mut errors);
    // After an error of the grammar, a value may not be what it seems.
    let sure = errors.iter().filter_map(|error| Some(error.unexpected()?.start())).min().unwrap_or(text.len());
    for event in events.iter().filter(|event| event.span().start() < sure) {
        let Some(raw) = source.get(event) else { continue };
        let mut decoded = Cow::Borrowed("");
        match event.kind() {
            EventKind::SimpleKey => raw.decode_key(&mut decoded, &mut errors),
            EventKind::Scalar => {
                let kind = raw.decode_scalar(&mut decoded, &mut errors);
                errors.extend(unfit(kind, &decoded).map(|why| ParseError::new(why).with_unexpected(event.span())));
            }
            _ => {}
        }
    }
    errors.sort_by_key(|error| error.unexpected().map_or(text.len(), |span| span.start()));
    (events, errors)
}

/// Returns an error for a value that is well formed and invalid: a number out of range, a date that does not exist.
fn unfit(kind: ScalarKind, decoded: &str) -> Option<&'static str> {
    match kind {
        ScalarKind::Integer(radix) => {
            i64::from_str_radix(decoded, radix.value()).is_err().then_some("the number is too large")
        }
        ScalarKind::DateTime => {
            decoded.parse::<toml_edit::Datetime>().is_err().then_some("there is no such date or time")
        }
        ScalarKind::String | ScalarKind::Boolean(_) | ScalarKind::Float => None,
    }
}

/// Converts an error of the parser, with what it expected.
fn syntax(span: Range<usize>, error: &ParseError) -> ConfigError {
    let expected: Vec<String> = error
        .expected()
        .unwrap_or_default()
        .iter()
        .map(|expected| match expected {
            toml_parser::Expected::Literal("\n") => "a new line".to_owned(),
            toml_parser::Expected::Literal(literal) => format!("`{literal}`"),
            toml_parser::Expected::Description(description) => (*description).to_owned(),
            _ => "something else".to_owned(),
        })
        .collect();
    let mut reason = error.description().to_owned();
    if !expected.is_empty() {
        reason = format!("{reason}, expected {}", expected.join(" or "));
    }
    ConfigError::Syntax { at: Location { key: String::new(), source: in_file(span) }, reason }
}

/// A key that is set twice, with its name in the copy.
struct Renamed {
    span: Range<usize>,
    name: String,
    stand_in: String,
}

/// Returns the errors of a text with a valid grammar: keys that are set twice.
fn repair(text: &str, events: &[Event], first: &toml_edit::TomlError) -> Vec<ConfigError> {
    let keys: BTreeMap<usize, usize> = events
        .iter()
        .filter(|event| event.kind() == EventKind::SimpleKey)
        .map(|event| (event.span().start(), event.span().end()))
        .collect();
    let mut taken: BTreeSet<String> = keys.iter().map(|(start, end)| text[*start..*end].to_owned()).collect();
    let mut copy = text.to_owned();
    let mut renamed: Vec<Renamed> = Vec::new();
    let mut other = None;
    let mut tree = None;
    let mut next = Some(first.clone());
    while let Some(error) = next.take() {
        let span = error.span().unwrap_or(text.len()..text.len());
        let is_key = keys.get(&span.start) == Some(&span.end) && renamed.len() < MAX_ERRORS;
        let Some(stand_in) = stand_in(span.len(), &mut taken).filter(|_| is_key) else {
            let at = Location { key: String::new(), source: in_file(span) };
            // Anything but a duplicate cannot be repaired, so that later errors stay hidden.
            other = Some(ConfigError::Syntax { at, reason: error.message().to_owned() });
            break;
        };
        // toml_edit reports one duplicate for each parse.
        copy.replace_range(span.clone(), &stand_in);
        renamed.push(Renamed { name: text[span.clone()].trim_matches(['"', '\'']).to_owned(), span, stand_in });
        match Document::parse(copy.as_str()) {
            Ok(read) => tree = Some(document(&read)),
            Err(error) => next = Some(error),
        }
    }
    let mut errors: Vec<ConfigError> =
        renamed.into_iter().map(|renamed| duplicate(renamed, tree.as_ref())).chain(other).collect();
    errors.sort_by(|one, other| one.at().source.cmp(&other.at().source));
    errors
}

/// Returns a name of this length that does not occur in the text, so that no byte of the copy moves.
fn stand_in(length: usize, taken: &mut BTreeSet<String>) -> Option<String> {
    let number = |n: u32| format!("{n:->length$x}");
    // Bounded, because a short name has few: one of a single byte has ten.
    let free = (0..4096).map(number).find(|name| name.len() == length && !taken.contains(name))?;
    taken.insert(free.clone());
    Some(free)
}

/// Creates the error for a key that is set twice. The tree, if there is one, tells its table.
fn duplicate(renamed: Renamed, tree: Option<&Node>) -> ConfigError {
    let source = in_file(renamed.span.clone());
    let found = tree.and_then(|tree| holder(tree, &renamed.stand_in, ""));
    let (key, first) = match found {
        Some((path, table)) => (join(&path, &renamed.name), table.get(&renamed.name).map(|entry| entry.key.clone())),
        None => (renamed.name, None),
    };
    ConfigError::DuplicateKey { at: Location { key, source }, first }
}

/// Returns the table that has the key `name`, with its path.
fn holder<'a>(node: &'a Node, name: &str, path: &str) -> Option<(String, &'a Table)> {
    match &node.value {
        Value::Table(table) if table.contains_key(name) => Some((path.to_owned(), table)),
        Value::Table(table) => table.iter().find_map(|(key, entry)| holder(&entry.node, name, &join(path, key))),
        Value::Array(nodes) => {
            nodes.iter().enumerate().find_map(|(index, node)| holder(node, name, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
