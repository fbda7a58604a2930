//! Requests that are malformed, of the management API, by its own description: parameters, queries and bodies.

use std::sync::atomic::{AtomicU64, Ordering};

use caxton_tests::Host;
use http::Method;
use serde_json::{Value, json};

use super::Siege;
use crate::agent;
use crate::mutation::{Case, Chance, INPUTS, mutate, mutate_value, odd_text};

/// Operations that are left out, and why.
const LEFT_OUT: [(&str, &str); 4] = [
    ("/pause", "calls of an agent whose messages are held wait for as long as they may"),
    ("/v1/tokens/{name}", "the token of these requests could be ended"),
    ("/v1/rollouts/{agent}/events", "it is answered for as long as a rollout lasts"),
    ("/v1/openapi.json", "it has neither parameters nor a body"),
];

/// An operation of the description.
struct Operation {
    method: Method,
    path: String,
    /// The names of the keys of its query.
    query: Vec<String>,
    /// An example of its body; null if it has none.
    body: Value,
}

/// Reads the operations of a host.
fn operations(host: &Host) -> Vec<Operation> {
    let described = host.api().get("/v1/openapi.json").json();
    let mut found = Vec::new();
    for (path, methods) in described["paths"].as_object().expect("paths") {
        if LEFT_OUT.iter().any(|(part, _)| path.contains(part)) {
            continue;
        }
        for (method, operation) in methods.as_object().expect("methods") {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let query = parameters.iter().filter(|parameter| parameter["in"] == "query");
            let query = query.filter_map(|parameter| parameter["name"].as_str());
            // Streams never end.
            let query: Vec<String> = query.filter(|name| *name != "follow").map(str::to_owned).collect();
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let body = if operation["requestBody"].is_null() { Value::Null } else { example(&described, schema, 0) };
            found.push(Operation { method, path: path.clone(), query, body });
        }
    }
    assert!(found.len() > 20, "{} operations", found.len());
    found
}

/// An example of a schema: something of each property.
fn example(described: &Value, schema: &Value, depth: usize) -> Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let schema = &described["components"]["schemas"][name];
        return if depth < 8 { example(described, schema, depth + 1) } else { Value::Null };
    }
    if let Some(properties) = schema["properties"].as_object() {
        let each = properties.iter().map(|(name, schema)| (name.clone(), example(described, schema, depth + 1)));
        return Value::Object(each.collect());
    }
    json!("x")
}

/// Encodes a text for a path or a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A value of a parameter: of something that is there, or of anything.
fn parameter(chance: &mut Chance) -> String {
    const KNOWN: [&str; 14] =
        ["echo", "rogue", "other", "1", "2", "key", "resume", "undo", "promote", "abort", "retry", "true", "10", "1s"];
    if chance.one_in(2) {
        return (*chance.pick(&KNOWN)).to_owned();
    }
    odd_text(chance).chars().take(500).collect()
}

/// Returns the path with the query of a request.
fn target(chance: &mut Chance, operation: &Operation) -> String {
    let mut target = String::new();
    for segment in operation.path.split('/').skip(1) {
        let segment = if segment.starts_with('{') { encoded(&parameter(chance)) } else { segment.to_owned() };
        target = format!("{target}/{segment}");
    }
    let mut separator = '?';
    for name in &operation.query {
        if chance.one_in(2) {
            // Waits are short: they are not what is looked for.
            let value = if name == "timeout" { "1s".to_owned() } else { encoded(&parameter(chance)) };
            target = format!("{target}{separator}{name}={value}");
            separator = '&';
        }
    }
    if chance.one_in(10) {
        target =
            format!("{target}{separator}{}={}", encoded(&odd_text(chance)).chars().take(60).collect::<String>(), 1);
    }
    target
}

fn body(chance: &mut Chance, operation: &Operation) -> Vec<u8> {
    if operation.body.is_null() && !chance.one_in(10) {
        return Vec::new();
    }
    let body = mutate_value(chance, &operation.body).to_string().into_bytes();
    if chance.one_in(3) { mutate(chance, &body, &[b"\"", b"{", b"[", b"\\ud800", b"\0asm\x0d\0\x01\0"]) } else { body }
}

#[test]
fn malformed_requests_of_the_api_are_answered() {
    let quick = "limits = { time = \"2s\" }\nmailbox = { attempts = 1 }\nbreaker = { faults = 100 }\n";
    let siege = Siege::start(&(agent("rogue", "rogue", quick) + &agent("other", "echo", quick)));
    let operations = operations(&siege.host);
    let answered = AtomicU64::new(0);
    siege.make(INPUTS, |host: &Host, numbers| {
        let api = host.api();
        for number in numbers {
            let (_case, mut chance) = Case::begin("request", number);
            let operation = chance.pick(&operations);
            // Each of them reads or copies the whole store.
            if operation.path.starts_with("/v1/store/") && !chance.one_in(50) {
                continue;
            }
            let (target, body) = (target(&mut chance, operation), body(&mut chance, operation));
            let about = [("content-type", "application/json")];
            // A refusal before the body was read ends the connection, which the client may learn while it writes.
            let Ok(reply) = api.try_send(operation.method.clone(), &target, &about, body) else { continue };
            answered.fetch_add(1, Ordering::Relaxed);
            let status = reply.status.as_u16();
            let code = match reply.header("content-type") {
                "application/problem+json" => reply.json()["code"].as_str().unwrap_or_default().to_owned(),
                _ => String::new(),
            };
            let method = &operation.method;
            assert!(status < 400 || !code.is_empty(), "{method} {target}: {status} without a code: {}", reply.text());
            assert!(code != "host-error", "{method} {target}: {}", reply.text());
        }
    });
    let answered = answered.into_inner();
    assert!(answered > INPUTS / 2, "{answered} of {INPUTS} were answered");
    siege.check();
}
