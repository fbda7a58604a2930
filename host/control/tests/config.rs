//! Tests of the table of keys: every key has an effect, no input panics, the pages generated from it are those in the
//! repository, and checking scales to many agents.
//!
//! The meaning of files and the text of their errors are tested with the reader, in `host/src/config`, on the files in
//! `config/` beside this one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use caxton_control::config::schema::{DefaultValue, ItemKind, KEYS, Key, Kind};
use caxton_control::config::{
    ConfigError, Entry, Node, Source, Table, Value, check, check_operator, check_within, json_schema, reference, schema,
};
use caxton_control::units::{print_bytes, print_duration};
use proptest::prelude::*;
use serde_json::json;

/// Converts a JSON value to a tree located at byte 0 of the file.
fn tree(value: &serde_json::Value) -> Node {
    let value = match value {
        serde_json::Value::Null => Value::Datetime("1979-05-27".to_owned()),
        serde_json::Value::Bool(truth) => Value::Boolean(*truth),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Float(number.as_f64().unwrap()),
        },
        serde_json::Value::String(text) => Value::String(text.clone()),
        serde_json::Value::Array(values) => Value::Array(values.iter().map(tree).collect()),
        serde_json::Value::Object(map) => {
            let entry = |(key, value)| (String::clone(key), Entry { key: source(), node: tree(value) });
            Value::Table(map.iter().map(entry).collect())
        }
    };
    Node { value, source: source() }
}

fn source() -> Source {
    Source::File { start: 0, end: 0 }
}

/// Sets the value at a path of the table of keys, with `triage` for `NAME`, one route and one schedule.
fn set(node: &mut Node, path: &[&str], value: Node) {
    if let Value::Array(nodes) = &mut node.value {
        return set(&mut nodes[0], path, value);
    }
    let Value::Table(table) = &mut node.value else { panic!("no table for {path:?}") };
    let name = if path[0] == "NAME" { "triage" } else { path[0] };
    let absent = || Entry { key: source(), node: Node { value: Value::Table(Table::new()), source: source() } };
    let entry = table.entry(name.to_owned()).or_insert_with(absent);
    match path {
        [_] => entry.node = value,
        [_, rest @ ..] => set(&mut entry.node, rest, value),
        [] => unreachable!("a path has a key"),
    }
}

/// Returns a public key as it is written.
fn public_key(byte: u8) -> String {
    format!("ed25519:{}", format!("{byte:02x}").repeat(32))
}

/// A file to set keys in: everything that is required, and everything that other keys refer to.
fn base() -> Node {
    tree(&json!({
        "caxton": 1,
        "http": { "tls": { "cert": "cert.pem", "key": "key.pem" } },
        "admin": { "tls": { "cert": "cert.pem", "key": "key.pem" } },
        "policy": { "keys": [public_key(1)] },
        "budgets": { "triage": { "messages": 7 } },
        "agents": { "triage": {
            "component": "triage.wasm", "build": { "command": "make" }, "capabilities": ["other"],
            "allow": {
                "http": [{ "url": "https://a.example", "meter": { "tokens": "/usage" } }], "tcp": [{ "to": "a.example:1" }], "files": [{ "folder": "f" }],
            },
            "http": [{ "route": "/a", "auth": { "jwt": { "jwks": "k", "issuer": "i", "audience": "a" } } }], "schedule": [{ "cron": "0 0 * * *" }],
        } },
    }))
}

/// Returns a valid value other than the default; `None` if there is only one valid value.
fn another(key: &Key) -> Option<serde_json::Value> {
    let value = match key.kind {
        // Its lower bound is below the default of `first`, which it must not be.
        _ if key.path == "agents.NAME.mailbox.backoff.max" => json!("1m"),
        _ if key.path == "agents.NAME.allow.tcp.to" => json!("another.example:2"),
        _ if key.path == "agents.NAME.allow.files.name" => json!("/another"),
        // No default is at its upper bound, and some are at the lower.
        Kind::Integer { least, .. } => {
            json!(least + u64::from(key.default == DefaultValue::Integer(least.cast_signed())))
        }
        Kind::Number { least, .. } => json!(least),
        Kind::Size { least, .. } => json!(print_bytes(least)),
        Kind::Time { least, .. } => json!(print_duration(Duration::from_millis(least))),
        Kind::Boolean => json!(key.default != DefaultValue::Boolean(true)),
        Kind::Text | Kind::AnyText => json!("another"),
        Kind::ContentType => json!("text/html"),
        Kind::Cron => json!("1 1 * * *"),
        Kind::Timezone => json!("Europe/Berlin"),
        Kind::Word { known, .. } => json!(known.iter().find(|word| key.default != DefaultValue::Text(word))?),
        Kind::Address => json!("127.0.0.2:1"),
        Kind::Route => json!("/another"),
        Kind::List(ItemKind::Receiver) => json!(["triage", "cap:other"]),
        Kind::List(ItemKind::Method) => json!(["PUT"]),
        Kind::List(ItemKind::Origin) => json!(["https://another.example"]),
        Kind::List(ItemKind::AllowedDigest) => json!([format!("triage=sha256:{}", "ab".repeat(32))]),
        Kind::List(ItemKind::PublicKey) => json!([public_key(2)]),
        Kind::List(ItemKind::Feature) => json!(["simd"]),
        Kind::List(_) => json!(["another"]),
        _ if key.path == "agents.NAME.http.auth.hmac" => json!({ "shop": "env:SHOP_KEY" }),
        Kind::Rate => json!("7/m"),
        Kind::Folders => json!(["another", { "folder": "more", "name": "/x", "write": true }]),
        Kind::TcpPlaces => json!(["another.example:1", { "to": "10.0.0.0/8:1" }]),
        Kind::Places => json!(["https://another.example", { "url": "https://a.example/b/*" }]),
        Kind::PlaceUrl => json!("https://another.example"),
        Kind::BudgetName => json!("triage"),
        Kind::Units => json!({ "tokens": 7 }),
        Kind::Meter => json!({ "tokens": { "/another": 2 } }),
        Kind::Proxy => json!("http://another.example:3128"),
        Kind::TextMap => json!({ "a": "b" }),
        Kind::Percent { least, .. } => json!(format!("{least}%")),
        Kind::Batch => json!("33%"),
        Kind::SaveMode => json!("every 7"),
        Kind::CanarySteps => json!([{ "pause": true }]),
        Kind::Weights => json!([7]),
        Kind::Versions => json!([7]),
        Kind::Format
        | Kind::Table
        | Kind::Tables
        | Kind::Agents
        | Kind::Secrets
        | Kind::Budgets
        | Kind::Unimplemented => return None,
    };
    Some(value)
}

/// Returns the paths under which a key can be typed: keys of agents also under `[defaults]`, where it has them.
fn paths(key: &Key) -> Vec<String> {
    let inherited = key.path.strip_prefix("agents.NAME.").map(|rest| format!("defaults.{rest}"));
    let inherited = inherited.filter(|path| schema::find(path.split('.')).is_some());
    std::iter::once(key.path.to_owned()).chain(inherited).collect()
}

/// Returns the strategy that a key belongs to, unless that is the default strategy.
fn strategy(key: &Key) -> Option<&'static str> {
    match key.path {
        "agents.NAME.deploy.keep-warm" => Some("blue-green"),
        "agents.NAME.deploy.steps" => Some("canary"),
        "agents.NAME.reload.steps" | "agents.NAME.reload.every" => Some("traffic-splitting"),
        "agents.NAME.reload.for"
        | "agents.NAME.reload.min-messages"
        | "agents.NAME.reload.match"
        | "agents.NAME.reload.ignore" => Some("parallel"),
        _ => None,
    }
}

/// Selects the strategy that a key belongs to, and sets the other key that it needs.
fn set_strategy(root: &mut Node, key: &Key, path: &str) {
    if let (Some(strategy), Some((table, _))) = (strategy(key), path.rsplit_once('.')) {
        let at = format!("{table}.strategy");
        set(root, &at.split('.').collect::<Vec<_>>(), tree(&json!(strategy)));
    }
    // It says what becomes of calls that are recorded.
    if let Some(place) = path.strip_suffix("allow.http.unknown") {
        let at = format!("{place}allow.http.journal");
        set(root, &at.split('.').collect::<Vec<_>>(), tree(&json!(true)));
    }
}

#[test]
fn every_key_has_an_effect() {
    for key in KEYS {
        let Some(value) = another(key) else { continue };
        for path in paths(key) {
            let mut root = base();
            set_strategy(&mut root, key, &path);
            let before = check(&root).unwrap();
            set(&mut root, &path.split('.').collect::<Vec<_>>(), tree(&value));
            let after = check(&root).unwrap_or_else(|errors| panic!("{path} = {value}: {errors:?}"));
            assert_ne!(after, before, "{path} = {value} changes nothing");
        }
    }
}

#[test]
fn every_key_has_its_default() {
    for key in KEYS {
        let value = match key.default {
            DefaultValue::Text(text) => json!(text),
            DefaultValue::Integer(number) => json!(number),
            DefaultValue::Number(number) => json!(number),
            DefaultValue::Boolean(truth) => json!(truth),
            DefaultValue::Required(_)
            | DefaultValue::Unset(_)
            | DefaultValue::EmptyList(_)
            | DefaultValue::EmptyTable(_) => continue,
        };
        for path in paths(key) {
            let mut root = base();
            set_strategy(&mut root, key, &path);
            let before = check(&root).unwrap();
            set(&mut root, &path.split('.').collect::<Vec<_>>(), tree(&value));
            assert_eq!(check(&root).as_ref(), Ok(&before), "{path} = {value}");
        }
    }
}

#[test]
fn every_key_that_is_not_implemented_is_refused_as_such() {
    for key in KEYS.iter().filter(|key| key.kind == Kind::Unimplemented) {
        for path in paths(key) {
            let mut root = base();
            set(&mut root, &path.split('.').collect::<Vec<_>>(), tree(&json!({})));
            let errors = check(&root).unwrap_err();
            assert!(matches!(&errors[..], [ConfigError::NotImplemented { .. }]), "{path}: {errors:?}");
        }
    }
}

#[test]
fn every_bound_is_enforced() {
    for key in KEYS {
        let inside_and_outside = match key.kind {
            Kind::Integer { least, most } => (json!([least, most]), json!([i128::from(least) - 1, most + 1])),
            Kind::Size { least, most } => (json!([least, most]), json!([i128::from(least) - 1, most + 1])),
            Kind::Number { least, most } => (json!([least, most]), json!([least - 0.01, most + 0.01, -1, 1_000])),
            Kind::Time { least, most } => {
                let text = |ms| print_duration(Duration::from_millis(ms));
                (json!([text(least), text(most)]), json!([text(most + 1)]))
            }
            _ => continue,
        };
        let mut root = base();
        // Leaves room for each `max` at its lower bound and each `min` at its upper one.
        set(&mut root, &["agents", "NAME", "instances", "max"], tree(&json!(1_000)));
        set(&mut root, &["agents", "NAME", "mailbox", "backoff", "first"], tree(&json!("100ms")));
        set(&mut root, &["agents", "NAME", "limits", "memory"], tree(&json!("4GiB")));
        set_strategy(&mut root, key, key.path);
        let path: Vec<&str> = key.path.split('.').collect();
        for value in inside_and_outside.0.as_array().unwrap() {
            set(&mut root, &path, tree(value));
            assert!(check(&root).is_ok(), "{} = {value}", key.path);
        }
        for value in inside_and_outside.1.as_array().unwrap() {
            set(&mut root, &path, tree(value));
            let errors = check(&root).unwrap_err();
            assert!(matches!(&errors[..], [ConfigError::OutOfBounds { .. }]), "{} = {value}: {errors:?}", key.path);
        }
    }
}

#[test]
fn the_generated_page_is_the_one_in_the_repository() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs")).unwrap();
        std::fs::write(path, reference()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == reference(), "docs/configuration.md is not up to date; UPDATE_GOLDEN=1 rewrites it");
    for key in KEYS {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(committed.contains(name), "{} is not on the page", key.path);
    }
}

#[test]
fn the_editor_schema_has_exactly_the_working_keys() {
    let schema = json_schema();
    let follow = |node: &serde_json::Value| match node["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.strip_prefix('#').unwrap()).unwrap().clone(),
        None => node.clone(),
    };
    for key in KEYS {
        for path in paths(key) {
            let mut node = schema.clone();
            for part in path.split('.') {
                node = follow(&node);
                node = match part {
                    "NAME" => node["additionalProperties"].clone(),
                    _ if node["type"] == "array" => node["items"]["properties"][part].clone(),
                    _ => node["properties"][part].clone(),
                };
            }
            assert_eq!(node.is_null(), key.kind == Kind::Unimplemented, "{path}: {node}");
            let described = node["description"].as_str().is_some_and(|text| text.starts_with(key.doc));
            assert!(node.is_null() || described, "{path}: {node}");
        }
    }
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn checking_ten_thousand_agents_is_not_quadratic() {
    let names: Vec<String> = (0..10_000).map(|n| format!("agent-{n}")).collect();
    let root = |good: bool| {
        let agent = |name: &String| {
            let settings = json!({
                "component": "a.wasm", "capabilities": [name], "limits": { "memory": "32MiB" },
                "allow": { "send": [if good { name.clone() } else { format!("x{name}") }] },
                "http": [{ "route": if good { format!("/{name}/{{id}}") } else { "/{any}".to_owned() } }],
            });
            (name.clone(), settings)
        };
        tree(&json!({ "caxton": 1, "agents": names.iter().map(agent).collect::<serde_json::Map<_, _>>() }))
    };
    let (good, bad) = (root(true), root(false));
    let started = Instant::now();
    let desired = check(&good).unwrap();
    let good_took = started.elapsed();
    let errors = check(&bad).unwrap_err();
    let bad_took = started.elapsed() - good_took;
    assert_eq!((desired.agents.len(), errors.len()), (10_000, 19_999));
    println!("good {good_took:?}, bad {bad_took:?}");
    // A quadratic pass takes minutes, so the bound leaves room for a busy machine.
    assert!(good_took < Duration::from_secs(60) && bad_took < Duration::from_secs(60), "{good_took:?} {bad_took:?}");
}

/// A value of any depth.
fn any_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(|truth| json!(truth)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        any_text().prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| json!(values)),
            prop::collection::vec((any_text(), inner), 0..6)
                .prop_map(|pairs| json!(pairs.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

/// A text, often a meaningful one.
fn any_text() -> impl Strategy<Value = String> {
    let words: BTreeSet<&'static str> = KEYS.iter().flat_map(|key| key.path.split('.')).collect();
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    prop_oneof![prop::sample::select(words), "\\PC{0,12}", "[0-9]{0,3}(ms|s|MiB|B|%)?", "/[a-z{}*%/]{0,8}"]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_tree_panics(value in any_value(), path in 0..KEYS.len()) {
        let _ = check(&tree(&value));
        // At each key as well, where its own reader sees the value.
        let mut root = base();
        set(&mut root, &KEYS[path].path.split('.').collect::<Vec<_>>(), tree(&value));
        if let Err(errors) = check(&root) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(!error.help().is_empty() && !error.to_string().is_empty());
                prop_assert!(!error.to_string().ends_with('.'), "{}", error);
                prop_assert!(error.related().is_none_or(|(source, _)| *source == crate::source() || *source == Source::Default));
            }
        }
    }
}

#[test]
fn every_ceiling_lowers_the_default_and_refuses_more() {
    for key in KEYS.iter().filter(|key| key.is_capped) {
        let least = match key.kind {
            Kind::Integer { least, .. } => json!(least),
            Kind::Size { least, .. } => json!(print_bytes(least)),
            Kind::Time { least, .. } => json!(print_duration(Duration::from_millis(least))),
            _ => panic!("{} has no order", key.path),
        };
        let more = match key.kind {
            Kind::Integer { most, .. } | Kind::Size { most, .. } => json!(most),
            Kind::Time { most, .. } => json!(print_duration(Duration::from_millis(most))),
            _ => continue,
        };
        let ceiling = key.path.replacen("agents.NAME", "ceilings", 1);
        let mut root = base();
        set(&mut root, &ceiling.split('.').collect::<Vec<_>>(), tree(&least));
        let lowered = check(&root).unwrap_or_else(|errors| panic!("{ceiling}: {errors:?}"));
        let mut written = base();
        set(&mut written, &key.path.split('.').collect::<Vec<_>>(), tree(&least));
        let written = check(&written).unwrap_or_else(|errors| panic!("{}: {errors:?}", key.path));
        assert_eq!(lowered.agents, written.agents, "{ceiling} acts like a value");
        for path in paths(key) {
            let mut root = root.clone();
            set(&mut root, &path.split('.').collect::<Vec<_>>(), tree(&more));
            let errors = check(&root).unwrap_err();
            assert!(
                errors
                    .iter()
                    .any(|error| error.code() == "above-ceiling" && error.at().key == path.replace("NAME", "triage")),
                "{errors:?}"
            );
        }
        // The operator's own file goes before.
        let mut strict = tree(&json!({ "caxton": 1 }));
        set(&mut strict, &ceiling.split('.').collect::<Vec<_>>(), tree(&least));
        let operator = check_operator(&strict).unwrap();
        assert_eq!(check_within(&base(), &operator).unwrap().agents, lowered.agents, "{ceiling}");
        set(&mut root, &ceiling.split('.').collect::<Vec<_>>(), tree(&more));
        let errors = check_within(&root, &operator).unwrap_err();
        assert!(errors.iter().any(|error| error.code() == "looser-than-policy" && error.at().key == ceiling));
    }
}

#[test]
fn the_policy_of_the_file_is_not_looser_than_that_of_the_operator() {
    let digest = |byte: u8| format!("sha256:{}", format!("{byte:02x}").repeat(32));
    let operator = json!({ "caxton": 1, "policy": {
        "imports": ["caxton:*", "wasi:io/*"], "max-component": "10MiB", "digests": [digest(1), digest(2)],
        "signatures": "required", "keys": [public_key(1), public_key(2)], "features": ["simd", "bulk-memory"],
        "forbidden-exports": ["wasi:http/*"],
    } });
    let operator = check_operator(&tree(&operator)).unwrap();
    let with = |policy: serde_json::Value| {
        let root = json!({ "caxton": 1, "agents": { "triage": { "component": "a.wasm" } }, "policy": policy });
        check_within(&tree(&root), &operator)
    };
    assert_eq!(with(json!({})).unwrap().policy, *operator.policy());
    // setting, error
    for (policy, expected) in [
        (json!({ "imports": ["wasi:io/poll"] }), None),
        (json!({ "imports": ["wasi:*"] }), Some("policy.imports[0]")),
        (json!({ "max-component": "1MiB" }), None),
        (json!({ "max-component": "11MiB" }), Some("policy.max-component")),
        (json!({ "digests": [digest(1)] }), None),
        (json!({ "digests": [format!("triage={}", digest(2))] }), None),
        (json!({ "digests": [digest(1), digest(3)] }), Some("policy.digests[1]")),
        (json!({ "signatures": "required" }), None),
        (json!({ "signatures": "off" }), Some("policy.signatures")),
        (json!({ "keys": [public_key(2)] }), None),
        (json!({ "keys": [public_key(3)] }), Some("policy.keys[0]")),
        (json!({ "features": ["simd"] }), None),
        (json!({ "features": ["tail-call"] }), Some("policy.features[0]")),
        (json!({ "forbidden-exports": ["caxton:agent/health"] }), None),
        (json!({ "imports": [] }), Some("policy.imports")),
    ] {
        match (with(policy.clone()), expected) {
            (Ok(_), None) => {}
            (Err(errors), Some(key)) => {
                let found: Vec<&str> = errors.iter().map(|error| error.at().key.as_str()).collect();
                assert_eq!(found, [key], "{policy}: {errors:?}");
            }
            (found, expected) => panic!("{policy}: {found:?}, and not {expected:?}"),
        }
    }
    // Only the ceilings and the policy are the operator's.
    let errors = check_operator(&tree(&json!({ "caxton": 1, "agents": {}, "policy": { "signatures": "required" } })));
    let codes: Vec<&str> = errors.unwrap_err().iter().map(ConfigError::code).collect();
    assert_eq!(codes, ["unknown-key", "missing-key"]);
}
