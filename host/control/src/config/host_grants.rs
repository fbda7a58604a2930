//! The folders that an agent sees, and the places that it may connect to: both within the rules of the policy.

use std::collections::BTreeSet;

use super::error::{ConfigError, Location, PlaceProblem};
use super::findings::Findings;
use super::node::{Node, Source, Value};
use super::policy_error::PolicyError;
use super::section::Section;
use super::values::{bad_place, example, wrong_type};
use crate::folder::FolderGrant;
use crate::policy::{FilesRule, TcpRule};
use crate::tcp_place::TcpPlace;

/// Reads the folders of the table `allow`. No two may have one name.
pub(super) fn folders(allow: &Section<'_>, findings: &mut Findings) -> BTreeSet<FolderGrant> {
    let mut folders: Vec<(FolderGrant, Source)> = Vec::new();
    for (key, node) in nodes(allow, "files", findings) {
        let made = match &node.value {
            Value::String(text) => Some((text.clone(), None, false, Location { key, source: node.source.clone() })),
            Value::Table(table) => {
                let section = Section::open(allow.fields_of("files"), table, key, node.source.clone(), findings);
                let folder: Option<String> = section.get("folder", None, findings);
                let name: Option<String> = section.get("name", None, findings);
                let write = section.get("write", None, findings).unwrap_or_default();
                let named = if name.is_some() { "name" } else { "folder" };
                let at = Location { key: section.key(named), source: section.source_of(named) };
                folder.map(|folder| (folder, name, write, at))
            }
            _ => {
                findings.errors.push(other_type(allow, "files", ("a folder", key), node));
                None
            }
        };
        let Some((given, name, write, at)) = made else { continue };
        let folder = match FolderGrant::new(given.clone(), name, write) {
            Ok(folder) => folder,
            Err(reason) => {
                findings.errors.push(bad_place(at, PlaceProblem::Folder { given, reason }));
                continue;
            }
        };
        // Told beside other errors of the folder, so that one run shows all.
        let (rule, place) = &findings.rules.files;
        if *rule == FilesRule::None || *rule == FilesRule::Read && write {
            let what = if write { "a folder to write to" } else { "a folder" };
            let reason =
                PolicyError::Forbidden { what, rule: format!("policy.files = \"{rule}\""), other: place.clone() };
            findings.errors.push(ConfigError::Policy { at: at.clone(), reason: Box::new(reason) });
        }
        if let Some((_, first)) = folders.iter().find(|(other, _)| other.name() == folder.name()) {
            let problem = PlaceProblem::SameName { given: folder.name().to_owned(), first: first.clone() };
            findings.errors.push(bad_place(at.clone(), problem));
        }
        // Also after an error, so that a second folder of the name is told of.
        folders.push((folder, at.source));
    }
    folders.into_iter().map(|(folder, _)| folder).collect()
}

/// Reads the places for connections of the table `allow`.
pub(super) fn tcp_places(allow: &Section<'_>, findings: &mut Findings) -> BTreeSet<TcpPlace> {
    let mut places: Vec<(TcpPlace, Source)> = Vec::new();
    for (key, node) in nodes(allow, "tcp", findings) {
        let made = match &node.value {
            Value::String(text) => Some((text.clone(), false, Location { key, source: node.source.clone() })),
            Value::Table(table) => {
                let section = Section::open(allow.fields_of("tcp"), table, key, node.source.clone(), findings);
                let to: Option<String> = section.get("to", None, findings);
                let private = section.get("private", None, findings).unwrap_or_default();
                let at = Location { key: section.key("to"), source: section.source_of("to") };
                to.map(|to| (to, private, at))
            }
            _ => {
                findings.errors.push(other_type(allow, "tcp", ("a place", key), node));
                None
            }
        };
        let Some((given, private, at)) = made else { continue };
        let place = match TcpPlace::new(&given, private) {
            Ok(place) => place,
            Err(reason) => {
                findings.errors.push(bad_place(at, PlaceProblem::Tcp { given, reason }));
                continue;
            }
        };
        let (rule, of_rule) = &findings.rules.tcp;
        if *rule == TcpRule::None || *rule == TcpRule::Public && place.may_be_private() {
            let what = if *rule == TcpRule::None { "a connection" } else { "a connection to a private address" };
            let rule = format!("policy.tcp = \"{rule}\"");
            let reason = PolicyError::Forbidden { what, rule, other: of_rule.clone() };
            findings.errors.push(ConfigError::Policy { at: at.clone(), reason: Box::new(reason) });
        }
        if let Some((_, first)) = places.iter().find(|(other, _)| other.to() == place.to()) {
            findings.errors.push(ConfigError::Repeated { at: at.clone(), given: place.to(), first: first.clone() });
        }
        places.push((place, at.source));
    }
    places.into_iter().map(|(place, _)| place).collect()
}

/// Returns the elements of a list with their paths.
fn nodes<'a>(allow: &Section<'a>, name: &str, findings: &mut Findings) -> Vec<(String, &'a Node)> {
    let Some(entry) = allow.entry(name) else { return Vec::new() };
    let path = allow.key(name);
    let Value::Array(nodes) = &entry.node.value else {
        findings.errors.push(wrong_type(allow.schema(name), name, &entry.node, &path));
        return Vec::new();
    };
    nodes.iter().enumerate().map(|(index, node)| (format!("{path}[{index}]"), node)).collect()
}

/// Returns the error for an element that is neither text nor a table.
fn other_type(allow: &Section<'_>, name: &str, (expected, key): (&str, String), node: &Node) -> ConfigError {
    ConfigError::WrongType {
        at: Location { key, source: node.source.clone() },
        expected: expected.to_owned(),
        found: node.value.describe(),
        example: example(allow.schema(name), name),
    }
}
