//! What differs between two declarations, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::desired::{AgentSpec, Desired};

/// One difference: of an agent, or of the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Whose; none for the host itself.
    pub agent: Option<String>,
    /// What it means.
    pub kind: Kind,
    /// Each setting that differs, such as `limits.cpu: 1s -> 2s`, in order of name.
    pub details: Vec<String>,
}

/// What a difference leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An agent comes.
    Add,
    /// An agent leaves.
    Remove,
    /// An agent gets a new revision.
    NewRevision,
    /// It applies at once.
    InPlace,
    /// It applies when the host starts again.
    RestartNeeded,
}

impl Kind {
    /// The kind as text, such as `new-revision`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::NewRevision => "new-revision",
            Self::InPlace => "in-place",
            Self::RestartNeeded => "restart-needed",
        }
    }
}

/// Compares two declarations.
pub fn diff(old: &Desired, new: &Desired) -> Vec<Difference> {
    let mut differences = Vec::new();
    differences.extend(host(old, new));
    for (name, spec) in &new.agents {
        match old.agents.get(name) {
            None => differences.push(agent(spec, Kind::Add, Vec::new())),
            Some(before) if before != spec => {
                let kind = if before.same_revision(spec) { Kind::InPlace } else { Kind::NewRevision };
                differences.push(agent(spec, kind, settings(&**before, &**spec)));
            }
            Some(_) => {}
        }
    }
    for (name, spec) in &old.agents {
        if !new.agents.contains_key(name) {
            differences.push(agent(spec, Kind::Remove, Vec::new()));
        }
    }
    differences
}

fn agent(spec: &AgentSpec, kind: Kind, details: Vec<String>) -> Difference {
    Difference { agent: Some(spec.name.to_string()), kind, details }
}

/// What differs in the host's own settings: listeners and store need a restart, the rest does not.
fn host(old: &Desired, new: &Desired) -> Vec<Difference> {
    let restart: Vec<String> = [
        ("http.listen", old.http.listen.to_string(), new.http.listen.to_string()),
        ("admin.listen", old.admin.listen.to_string(), new.admin.listen.to_string()),
    ]
    .into_iter()
    .filter(|(_, old, new)| old != new)
    .map(|(key, old, new)| format!("{key}: {old} -> {new}"))
    .chain(settings(&old.store, &new.store).into_iter().map(|detail| format!("store.{detail}")))
    .collect();
    let same_address = |http: &crate::desired::Http| crate::desired::Http { listen: new.http.listen, ..http.clone() };
    let in_place: Vec<String> = settings(&same_address(&old.http), &new.http)
        .into_iter()
        .map(|detail| format!("http.{detail}"))
        .chain(settings(&old.host, &new.host).into_iter().map(|detail| format!("host.{detail}")))
        .collect();
    [(Kind::RestartNeeded, restart), (Kind::InPlace, in_place)]
        .into_iter()
        .filter(|(_, details)| !details.is_empty())
        .map(|(kind, details)| Difference { agent: None, kind, details })
        .collect()
}

/// The leaves in which two values of one type differ.
fn settings<T: Serialize>(old: &T, new: &T) -> Vec<String> {
    let leaves = |value: &T| {
        let mut leaves = BTreeMap::new();
        // A setting is always a tree of plain values.
        collect(String::new(), &serde_json::to_value(value).unwrap_or_default(), &mut leaves);
        leaves
    };
    let (old, new) = (leaves(old), leaves(new));
    let none = "none";
    let mut details: Vec<String> = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value))
        .map(|(key, value)| format!("{key}: {} -> {value}", old.get(key).map_or(none, String::as_str)))
        .collect();
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    details.extend(gone.map(|(key, value)| format!("{key}: {value} -> {none}")));
    details.sort();
    details
}

fn collect(path: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                // The names of settings in the file have hyphens and no units.
                let key = key.replace('_', "-");
                let key = key.strip_suffix("-bytes").unwrap_or(&key);
                collect(if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, value, leaves);
            }
        }
        Value::Null => {}
        Value::String(text) => {
            leaves.insert(path, text.clone());
        }
        Value::Array(_) | Value::Bool(_) | Value::Number(_) => {
            leaves.insert(path, value.to_string());
        }
    }
}
