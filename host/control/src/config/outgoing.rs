//! The table `[outgoing]`, and the places that an agent may call.

use std::collections::{BTreeMap, BTreeSet};

use super::budgets::meter;
use super::error::{ConfigError, Location, PlaceProblem};
use super::findings::Findings;
use super::node::{Source, Value};
use super::secrets::reference;
use super::section::Section;
use super::values::{bad_place, wrong_type};
use crate::desired::SecretsSpec;
use crate::journal::{JournalRules, UnknownOutcome};
use crate::outgoing::{OutgoingSpec, ProxySpec};
use crate::place::{CallPlace, PlaceError, PlaceUrl};

/// Reads the table.
pub(super) fn outgoing(section: &Section<'_>, secrets: &SecretsSpec, findings: &mut Findings) -> OutgoingSpec {
    let proxy: Option<ProxySpec> = section.get("proxy", None, findings);
    if let Some(text) = proxy.as_ref().and_then(ProxySpec::credentials) {
        let at = Location { key: section.key("proxy"), source: section.source_of("proxy") };
        reference(text, secrets, at, findings);
    }
    OutgoingSpec {
        connect_timeout: section.get("connect-timeout", None, findings).unwrap_or_default(),
        first_byte_timeout: section.get("first-byte-timeout", None, findings).unwrap_or_default(),
        stall_timeout: section.get("stall-timeout", None, findings).unwrap_or_default(),
        calls: section.get("calls", None, findings).unwrap_or_default(),
        calls_per_message: section.get("calls-per-message", None, findings).unwrap_or_default(),
        max_request_body_bytes: section.get("max-request-body", None, findings).unwrap_or_default(),
        max_response_body_bytes: section.get("max-response-body", None, findings).unwrap_or_default(),
        journal_max_bytes: section.get("journal-max", None, findings).unwrap_or_default(),
        ca: section.get("ca", None, findings).unwrap_or_default(),
        connections: section.get("connections", None, findings).unwrap_or_default(),
        connections_per_message: section.get("connections-per-message", None, findings).unwrap_or_default(),
        proxy,
    }
}

/// Reads the places of the table `allow`. No two may cover the same calls.
pub(super) fn places(allow: &Section<'_>, secrets: &SecretsSpec, findings: &mut Findings) -> BTreeSet<CallPlace> {
    let Some(entry) = allow.entry("http") else { return BTreeSet::new() };
    let path = allow.key("http");
    let Value::Array(nodes) = &entry.node.value else {
        findings.errors.push(wrong_type(allow.schema("http"), "http", &entry.node, &path));
        return BTreeSet::new();
    };
    let mut places: Vec<(CallPlace, Source)> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let at = Location { key: path.clone(), source: node.source.clone() };
        let place = match &node.value {
            Value::String(text) => match CallPlace::of_url(text) {
                Ok(place) => Some((place, node.source.clone())),
                Err(reason) => {
                    let problem = PlaceProblem::Unusable { given: text.clone(), reason };
                    findings.errors.push(bad_place(at.clone(), problem));
                    None
                }
            },
            Value::Table(table) => {
                let fields = allow.fields_of("http");
                place(&Section::open(fields, table, path, node.source.clone(), findings), secrets, findings)
            }
            other => {
                findings.errors.push(ConfigError::WrongType {
                    at: at.clone(),
                    expected: "a place".to_owned(),
                    found: other.describe(),
                    example: "\"https://api.example.com/v1/*\"".to_owned(),
                });
                None
            }
        };
        let Some((place, source)) = place else { continue };
        if let Some((_, first)) = places.iter().find(|(other, _)| other.clashes(&place)) {
            let at = Location { source: source.clone(), ..at };
            findings.errors.push(bad_place(at, PlaceProblem::Clash { given: place.url(), first: first.clone() }));
        }
        places.push((place, source));
    }
    places.into_iter().map(|(place, _)| place).collect()
}

/// Reads a place that is a table. Returns it with the place of its URL in the file.
fn place(section: &Section<'_>, secrets: &SecretsSpec, findings: &mut Findings) -> Option<(CallPlace, Source)> {
    let url: Option<PlaceUrl> = section.get("url", None, findings);
    let methods: Option<BTreeSet<String>> = section.get("methods", None, findings);
    let headers: BTreeMap<String, String> = section.get("headers", None, findings).unwrap_or_default();
    let private = section.get("private", None, findings).unwrap_or_default();
    for (name, text) in &headers {
        let key = format!("{}.{name}", section.key("headers"));
        reference(text, secrets, Location { key, source: section.nested_source("headers", name) }, findings);
    }
    let (journal, meter) = (journal_rules(section, findings), meter(section, findings));
    let (url, source) = (url?, section.source_of("url"));
    let given = url.to_string();
    let place = CallPlace::new(url, methods?, headers, private).and_then(|place| place.with_journal(journal));
    match place {
        Ok(place) => Some((place.with_meter(meter?), source)),
        Err(reason) => {
            let key = if reason == PlaceError::UnknownWithoutJournal { "unknown" } else { "url" };
            let at = Location { key: section.key(key), source: section.source_of(key) };
            findings.errors.push(bad_place(at, PlaceProblem::Unusable { given, reason }));
            None
        }
    }
}

/// Reads the settings of a place for its calls in the journal.
fn journal_rules(section: &Section<'_>, findings: &mut Findings) -> JournalRules {
    let unknown: Option<&'static str> = section.get("unknown", None, findings);
    let idempotency: Option<&'static str> = section.get("idempotency", None, findings);
    JournalRules {
        is_kept: section.get("journal", None, findings).unwrap_or_default(),
        unknown: unknown.and_then(UnknownOutcome::parse),
        // The only word that there is.
        adds_key: idempotency.is_some(),
    }
}
