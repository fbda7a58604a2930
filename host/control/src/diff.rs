//! The differences between two declarations, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::desired::{AgentSpec, Desired};
use crate::units::print_bytes;

/// A difference of one agent, or of the host itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeclarationChange {
    /// The agent's name; `None` for the host itself.
    pub agent: Option<String>,
    /// The effect of the difference.
    pub kind: ChangeKind,
    /// The settings that differ, such as `limits.cpu: 1s -> 2s`, sorted by name.
    pub details: Vec<String>,
}

/// The effect of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// A new agent.
    Add,
    /// A removed agent.
    Remove,
    /// A new revision of an agent.
    NewRevision,
    /// Settings that apply at once.
    InPlace,
    /// Settings that apply at the next start of the host.
    RestartNeeded,
}

impl ChangeKind {
    /// Returns the kind as text, such as `new-revision`.
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

/// Compares two declarations. The host's own differences come first.
pub fn diff(old: &Desired, new: &Desired) -> Vec<DeclarationChange> {
    let mut differences = Vec::new();
    differences.extend(host(old, new));
    for (name, spec) in &new.agents {
        match old.agents.get(name) {
            None => differences.push(agent(spec, ChangeKind::Add, Vec::new())),
            Some(before) if before != spec => {
                let kind = if before.same_revision(spec) { ChangeKind::InPlace } else { ChangeKind::NewRevision };
                let mut details = settings(&**before, &**spec);
                // The keys of `reload` are split between the two structs, so the details have to be sorted together.
                details.extend(settings(&before.rollout, &spec.rollout));
                details.sort();
                differences.push(agent(spec, kind, details));
            }
            Some(_) => {}
        }
    }
    for (name, spec) in &old.agents {
        if !new.agents.contains_key(name) {
            differences.push(agent(spec, ChangeKind::Remove, Vec::new()));
        }
    }
    differences
}

fn agent(spec: &AgentSpec, kind: ChangeKind, details: Vec<String>) -> DeclarationChange {
    DeclarationChange { agent: Some(spec.name.to_string()), kind, details }
}

/// The host's settings that apply at its next start; all others apply at once.
// Listeners, the open store, the audit log and the pool of instances are in use until the host ends.
const RESTART_KEYS: [&str; 7] = [
    "http.listen",
    "admin.listen",
    "admin.audit-max",
    "probes.listen",
    "store.path",
    "store.durability",
    "host.instances",
];

/// Compares the host's own settings.
fn host(old: &Desired, new: &Desired) -> Vec<DeclarationChange> {
    let tables = [
        ("http", settings(&old.http, &new.http)),
        ("admin", settings(&old.admin, &new.admin)),
        ("probes", settings(&old.probes, &new.probes)),
        ("store", settings(&old.store, &new.store)),
        ("host", settings(&old.host, &new.host)),
        ("conversations", settings(&old.conversations, &new.conversations)),
        ("outgoing", settings(&old.outgoing, &new.outgoing)),
        ("secrets", settings(&old.secrets, &new.secrets)),
        ("policy", settings(&old.policy, &new.policy)),
    ];
    let below = |(table, details): (&str, Vec<String>)| -> Vec<String> {
        details.into_iter().map(|detail| format!("{table}.{detail}")).collect()
    };
    // A listener without TLS would take connections in plain text that the old declaration has promised to encrypt.
    let has_tls =
        |desired: &Desired| [("http.tls.", desired.http.tls.is_some()), ("admin.tls.", desired.admin.tls.is_some())];
    let toggled: Vec<&str> = std::iter::zip(has_tls(old), has_tls(new))
        .filter(|((_, before), (_, after))| before != after)
        .map(|((table, _), _)| table)
        .collect();
    let needs_restart = |detail: &String| {
        RESTART_KEYS.iter().any(|key| detail.split(':').next() == Some(key))
            || toggled.iter().any(|table| detail.starts_with(table))
    };
    let (restart, in_place): (Vec<_>, Vec<_>) = tables.into_iter().flat_map(below).partition(needs_restart);
    [(ChangeKind::RestartNeeded, restart), (ChangeKind::InPlace, in_place)]
        .into_iter()
        // A kind without details is no difference.
        .filter(|(_, details)| !details.is_empty())
        .map(|(kind, details)| DeclarationChange { agent: None, kind, details })
        .collect()
}

/// Compares two values of one type. Returns the leaves that differ as `key: old -> new`, sorted.
fn settings<T: Serialize>(old: &T, new: &T) -> Vec<String> {
    let leaves = |value: &T| {
        let mut leaves = BTreeMap::new();
        // Serialization cannot fail: settings are trees of plain values with text keys.
        collect(String::new(), &serde_json::to_value(value).unwrap_or_default(), &mut leaves);
        leaves
    };
    // Compared as trees of values, so that a new setting needs no code here.
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
                // Keys in the file have hyphens and no units.
                let name = key.replace('_', "-");
                let size = name.strip_suffix("-bytes");
                let name = size.unwrap_or(&name);
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                match (size, value.as_u64()) {
                    (Some(_), Some(bytes)) => _ = leaves.insert(path, print_bytes(bytes)),
                    _ => collect(path, value, leaves),
                }
            }
        }
        // An absent value is no leaf, so the other side is shown against `none`.
        Value::Null => {}
        // A list is one leaf: its elements have no names under which to list a difference.
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            leaves.insert(path, format_value(value));
        }
    }
}

/// Formats a value for people: `[triage, cap:desk]`, and a route as `/tickets [POST] enqueue`. Omits empty values.
fn format_value(value: &Value) -> String {
    let list = |values: &mut dyn Iterator<Item = &Value>, between: &str| {
        // A route without methods would show `[]` for them.
        values.map(format_value).filter(|text| !text.is_empty() && text != "[]").collect::<Vec<_>>().join(between)
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", list(&mut values.iter(), ", ")),
        Value::Object(fields) => list(&mut fields.values(), " "),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::config::{Entry, Node, Source, Table, Value as Typed, check};
    use crate::desired::Reuse;
    use crate::schedule::{Missed, Schedule};

    fn tree(value: &Value) -> Node {
        let source = Source::File { start: 0, end: 0 };
        let value = match value {
            Value::Object(fields) => {
                let entry = |(key, value)| (String::clone(key), Entry { key: source.clone(), node: tree(value) });
                Typed::Table(fields.iter().map(entry).collect::<Table>())
            }
            Value::Array(values) => Typed::Array(values.iter().map(tree).collect()),
            Value::String(text) => Typed::String(text.clone()),
            Value::Number(number) => Typed::Integer(number.as_i64().unwrap()),
            Value::Bool(truth) => Typed::Boolean(*truth),
            Value::Null => panic!("a file has no null"),
        };
        Node { value, source }
    }

    fn before() -> Desired {
        check(&tree(&serde_json::json!({
            "caxton": 1,
            "agents": {
                "echo": { "component": "echo.wasm", "config": { "mood": "calm" }, "http": [{ "route": "/echo" }] },
                "triage": { "component": "triage.wasm" },
            },
        })))
        .unwrap()
    }

    fn echo(desired: &mut Desired) -> &mut AgentSpec {
        let echo = desired.agents.iter_mut().find(|(name, _)| name.as_str() == "echo").unwrap().1;
        Arc::make_mut(echo)
    }

    /// A change of a declaration.
    type Change = fn(&mut Desired);

    #[test]
    fn changes_are_reported_with_kind_and_details() {
        let table: [(&str, Change, &[&str]); 30] = [
            ("nothing", |_| {}, &[]),
            (
                "an agent more",
                |d| {
                    let more = Arc::new(AgentSpec { name: "more".parse().unwrap(), ..echo(d).clone() });
                    d.agents.insert(more.name.clone(), more);
                },
                &["more add"],
            ),
            ("an agent less", |d| _ = d.agents.remove("echo"), &["echo remove"]),
            (
                "another component",
                |d| echo(d).component = "e2.wasm".to_owned(),
                &["echo new-revision component: echo.wasm -> e2.wasm"],
            ),
            (
                "config: changed, more, less",
                |d| {
                    echo(d).config = BTreeMap::from([
                        ("mood".to_owned(), "cross".to_owned()),
                        ("tone".to_owned(), "low".to_owned()),
                    ]);
                },
                &["echo new-revision config.mood: calm -> cross; config.tone: none -> low"],
            ),
            ("less config", |d| echo(d).config.clear(), &["echo new-revision config.mood: calm -> none"]),
            (
                "a grant",
                |d| _ = echo(d).allow.send.insert("triage".parse().unwrap()),
                &["echo new-revision allow.send: [] -> [triage]"],
            ),
            (
                "limits",
                |d| {
                    let limits = &mut echo(d).limits;
                    limits.cpu = Duration::from_millis(1_500);
                    limits.fuel = Some(1_000_000);
                    limits.memory_bytes = 128 << 20;
                    limits.state_bytes = 1_000;
                    limits.sends = 7;
                },
                &[
                    "echo new-revision limits.cpu: 1s -> 1s500ms; limits.fuel: none -> 1000000; limits.memory: 64MiB -> 128MiB; limits.sends: 1000 -> 7; limits.state: 64MiB -> 1KB",
                ],
            ),
            ("instances", |d| echo(d).instances.max = 9, &["echo in-place instances.max: 4 -> 9"]),
            (
                "how often an instance is used",
                |d| echo(d).instances.reuse = Reuse::Own(1),
                &["echo in-place instances.reuse: none -> 1"],
            ),
            (
                "what may be saved",
                |d| echo(d).snapshot.max_bytes = 1 << 20,
                &["echo in-place snapshot.max: 64MiB -> 1MiB"],
            ),
            ("mailbox", |d| echo(d).mailbox.depth = 5, &["echo in-place mailbox.depth: 10000 -> 5"]),
            (
                "how often and how long a message is tried",
                |d| {
                    let mailbox = &mut echo(d).mailbox;
                    mailbox.attempts = 1;
                    mailbox.backoff.factor = 1.5;
                    mailbox.backoff.max = Duration::from_secs(90);
                    mailbox.timeout = Some(Duration::from_secs(3_600));
                },
                &[
                    "echo in-place mailbox.attempts: 5 -> 1; mailbox.backoff.factor: 2.0 -> 1.5; mailbox.backoff.max: 5m -> 1m30s; mailbox.timeout: none -> 1h",
                ],
            ),
            ("breaker", |d| echo(d).breaker.faults = 3, &["echo in-place breaker.faults: 10 -> 3"]),
            (
                "a schedule",
                |d| {
                    echo(d).schedules.push(Schedule {
                        cron: "0 */5 * * * *".parse().unwrap(),
                        timezone: "UTC".parse().unwrap(),
                        content: String::new(),
                        content_type: "text/plain".to_owned(),
                        missed: Missed::Latest,
                    });
                },
                &["echo in-place schedule: [] -> [0 */5 * * * * UTC text/plain latest]"],
            ),
            ("reload", |d| echo(d).reload.drain = Duration::from_secs(5), &["echo in-place reload.drain: 1m -> 5s"]),
            (
                "when it goes back",
                |d| echo(d).rollout.rollback.rules.errors = 2.5,
                &["echo in-place rollback.errors: 5.0 -> 2.5"],
            ),
            (
                "how it takes over",
                |d| echo(d).rollout.deploy.strategy = crate::rollout::DeployStrategy::Immediate,
                &["echo in-place deploy.batch.count: 1 -> none; deploy.strategy: rolling -> immediate"],
            ),
            ("no route", |d| echo(d).http.clear(), &["echo in-place http: [/echo request] -> []"]),
            (
                "in source and not",
                |d| {
                    echo(d).mailbox.depth = 5;
                    echo(d).limits.sends = 7;
                },
                &["echo new-revision limits.sends: 1000 -> 7; mailbox.depth: 10000 -> 5"],
            ),
            (
                "a listener",
                |d| d.http.listen.set_port(1),
                &["- restart-needed http.listen: 127.0.0.1:8080 -> 127.0.0.1:1"],
            ),
            (
                "the admin listener",
                |d| d.admin.listen.set_port(1),
                &["- restart-needed admin.listen: 127.0.0.1:8081 -> 127.0.0.1:1"],
            ),
            (
                "the listener of probes",
                |d| d.probes.listen = Some(([0, 0, 0, 0], 9090).into()),
                &["- restart-needed probes.listen: none -> 0.0.0.0:9090"],
            ),
            (
                "the store",
                |d| d.store.path = "elsewhere".to_owned(),
                &["- restart-needed store.path: .caxton -> elsewhere"],
            ),
            (
                "how many instances",
                |d| (d.host.instances, d.host.drain) = (Some(99), Duration::from_secs(5)),
                &["- restart-needed host.instances: none -> 99", "- in-place host.drain: 30s -> 5s"],
            ),
            (
                "what the store keeps",
                |d| {
                    d.store.history = 0;
                    d.store.dead_letters = 10_000;
                    d.store.dead_letters_max_bytes = 2 << 20;
                },
                &[
                    "- in-place store.dead-letters-max: 1GiB -> 2MiB; store.dead-letters: 100000 -> 10000; store.history: 100000 -> 0",
                ],
            ),
            (
                "conversations",
                |d| d.conversations.timeout = Duration::from_secs(300),
                &["- in-place conversations.timeout: 30m -> 5m"],
            ),
            (
                "what the listener bears",
                |d| d.http.max_body_bytes = 1 << 20,
                &["- in-place http.max-body: 1GiB -> 1MiB"],
            ),
            ("the host", |d| d.host.drain = Duration::from_secs(1), &["- in-place host.drain: 30s -> 1s"]),
            (
                "all at once, the host first",
                |d| {
                    d.http.listen.set_port(1);
                    d.http.max_connections = 1;
                    d.agents.remove("triage");
                    echo(d).mailbox.depth = 5;
                },
                &[
                    "- restart-needed http.listen: 127.0.0.1:8080 -> 127.0.0.1:1",
                    "- in-place http.max-connections: 10000 -> 1",
                    "echo in-place mailbox.depth: 10000 -> 5",
                    "triage remove",
                ],
            ),
        ];
        for (name, change, expected) in table {
            let mut after = before();
            change(&mut after);
            let shown = |difference: DeclarationChange| {
                let agent = difference.agent.as_deref().unwrap_or("-");
                let text = format!("{agent} {} {}", difference.kind.as_str(), difference.details.join("; "));
                text.trim_end().to_owned()
            };
            let found: Vec<String> = diff(&before(), &after).into_iter().map(shown).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
