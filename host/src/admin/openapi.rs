//! The OpenAPI document of the API.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::Json;
use caxton_control::Performative;
use caxton_control::access::{Role, role_of};
use http::Method;
use serde_json::{Value, json};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::problem::ProblemDetails;
use super::{
    agents, budgets, config, conversations, dead, follow, invoke, mailboxes, probes, rehearse, rollouts, schedules,
    state, stats, store, timers, tokens,
};

/// The API.
#[derive(OpenApi)]
#[openapi(
    info(title = "Caxton", description = "The management API of a Caxton host.", license(name = "Apache-2.0")),
    paths(
        agents::show_host,
        agents::list_agents,
        agents::show_agent,
        agents::list_revisions,
        invoke::invoke,
        invoke::send,
        state::list_keys,
        state::get_value,
        state::put_value,
        state::delete_value,
        dead::list,
        dead::show,
        dead::redeliver_one,
        dead::redeliver_some,
        dead::drop_one,
        dead::drop_some,
        mailboxes::list,
        mailboxes::pause,
        mailboxes::resume,
        timers::list,
        timers::cancel,
        rollouts::list,
        rollouts::show,
        rollouts::follow,
        rollouts::command,
        rollouts::differences,
        rehearse::rehearse,
        stats::show,
        store::show,
        store::check,
        store::backup,
        store::compact,
        config::diff,
        config::apply,
        conversations::list,
        conversations::show,
        schedules::list,
        budgets::list,
        budgets::show,
        tokens::list,
        tokens::make,
        tokens::rotate,
        tokens::end,
        follow::events,
        follow::logs,
        document,
        probes::healthz,
        probes::readyz,
        probes::metrics,
    ),
    components(schemas(ProblemDetails)),
    modifiers(&Common),
    security(("token" = [])),
)]
struct Described;

/// Adds the parts that all paths have in common.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.security_schemes.insert("token".to_owned(), bearer.into());
        document.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], &str>("token", [])]);
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Details"))).build();
        let problem = ResponseBuilder::new()
            .description("The error and a suggestion (RFC 9457)")
            .content("application/problem+json", content)
            .build();
        for path in document.paths.paths.values_mut() {
            for operation in [&mut path.get, &mut path.put, &mut path.post, &mut path.delete].into_iter().flatten() {
                // Every operation may fail in the layers that it shares with the others.
                operation.responses.responses.insert("default".to_owned(), problem.clone().into());
            }
        }
    }
}

/// Builds the document.
fn describe() -> Value {
    let mut document = serde_json::to_value(Described::openapi()).unwrap_or_default();
    for (path, operations) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in operations.as_object_mut().into_iter().flatten() {
            refine(operation);
            require(operation, &method.to_uppercase(), path);
        }
    }
    document
}

/// Adds the role that an operation needs: in its security requirement, where OpenAPI 3.1 has it, and in its text.
fn require(operation: &mut Value, method: &str, path: &str) {
    // Those that need no token say so themselves.
    if operation.get("security").is_some() {
        return;
    }
    let role = role_of(method, path);
    operation["security"] = json!([{ "token": [role] }]);
    let text = operation["description"].as_str().map_or_else(String::new, |text| format!("{text}\n\n"));
    operation["description"] = format!("{text}Needs the role `{role}`.").into();
}

/// The names of the query parameters of each operation, by its path and its method in lower case.
type QueryKeys = HashMap<(String, String), Vec<String>>;

/// Returns the names of the query parameters that an operation takes; `None` for an unknown operation. `path` is that of
/// the router.
pub(super) fn query_keys(path: &str, method: &Method) -> Option<&'static [String]> {
    static KEYS: LazyLock<QueryKeys> = LazyLock::new(|| {
        let document = describe();
        let paths = document["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, operations)| {
            operations.as_object().into_iter().flatten().map(move |(method, operation)| (path, method, operation))
        });
        let keys = operations.map(|(path, method, operation)| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let names =
                parameters.filter(|parameter| parameter["in"] == "query").filter_map(|one| one["name"].as_str());
            ((path.clone(), method.clone()), names.map(str::to_owned).collect())
        });
        keys.collect()
    });
    // The router answers HEAD where it answers GET, and marks a parameter for the rest of a path.
    let method = if *method == Method::HEAD { "get".to_owned() } else { method.as_str().to_ascii_lowercase() };
    KEYS.get(&(path.replace("{*", "{"), method)).map(Vec::as_slice)
}

/// Adds to an operation what the attributes of its handler cannot express.
fn refine(operation: &mut Value) {
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
    parameters.into_iter().flatten().for_each(bound);
    if let Some(body) = operation.get_mut("requestBody") {
        // An empty body is a valid content.
        body["required"] = false.into();
        raw(body);
    }
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    for (_, response) in responses.into_iter().flatten() {
        if let Some(response) = response.as_object_mut() {
            response.entry("description").or_insert_with(|| "Success".into());
        }
        raw(response);
    }
}

/// Adds the bounds of a parameter.
fn bound(parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) else { return };
    // An optional parameter is left out, never null: a query or a header has no null.
    if let Some(Value::Array(types)) = schema.get("type") {
        let kind = types.iter().find(|kind| **kind != "null").cloned();
        schema.insert("type".to_owned(), kind.unwrap_or_default());
    }
    if schema.get("type").is_some_and(|kind| kind == "integer") {
        // Numbers of the API are stored as signed integers of SQLite.
        schema.entry("maximum").or_insert_with(|| i64::MAX.into());
    }
    let known = bounds().into_iter().find(|(of, _)| *of == name);
    if let Some((_, Value::Object(known))) = known {
        schema.extend(known);
    }
}

/// Describes a content that is not JSON as text or bytes, and a stream by one of its events.
fn raw(of: &mut Value) {
    let text = json!({ "type": "string" });
    let event = json!({
        "type": "object", "required": ["data"],
        "properties": { "data": text, "event": text, "id": text },
    });
    let content = of.get_mut("content").and_then(Value::as_object_mut);
    for (kind, content) in content.into_iter().flatten() {
        match kind.as_str() {
            "text/plain" => content["schema"] = text.clone(),
            "text/event-stream" => content["schema"] = event.clone(),
            kind if !kind.ends_with("json") => content["schema"] = json!({ "type": "string", "format": "binary" }),
            _ => {}
        }
    }
}

/// Returns the bounds of parameters by name, for all paths.
fn bounds() -> Vec<(&'static str, Value)> {
    let name = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?";
    let words =
        |most: usize| json!({ "minLength": 1, "maxLength": most, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" });
    let performatives: Vec<&str> = Performative::ALL.iter().map(|act| act.as_str()).collect();
    vec![
        // Of agents and of tokens: both have names by one rule.
        ("name", json!({ "pattern": format!("^{name}$") })),
        ("performative", json!({ "enum": performatives })),
        ("command", json!({ "enum": rollouts::COMMANDS.map(|(name, _)| name) })),
        ("timeout", json!({ "pattern": TIMEOUT })),
        ("conversation", words(256)),
        ("protocol", words(100)),
        ("ontology", words(100)),
        ("revision", json!({ "pattern": format!("^{name}@[1-9][0-9]{{0,8}}$") })),
        ("limit", json!({ "minimum": 1, "maximum": 1_000 })),
        ("tail", json!({ "minimum": 0, "maximum": 1_000 })),
        ("messages", json!({ "minimum": 1, "maximum": 10_000 })),
        ("key", json!({ "minLength": 1, "maxLength": 1_024 })),
        ("timer", words(256)),
        ("ttl", json!({ "pattern": TTL })),
        ("role", json!({ "enum": Role::ALL })),
        ("expires", json!({ "pattern": TTL })),
        ("Idempotency-Key", json!({ "pattern": "^[!-~][\\t -~]{0,255}$" })),
    ]
}

/// Matches durations from 1 ms to 1 h, the larger units first.
const TIMEOUT: &str = "^(1h|([1-9]|[1-5][0-9])m(([1-9]|[1-5][0-9])s)?([1-9][0-9]{0,2}ms)?|[1-9][0-9]{0,2}s([1-9][0-9]{0,2}ms)?|[1-9][0-9]{0,5}ms)$";

/// Matches durations of at least 1 ms, the larger units first.
const TTL: &str =
    "^([1-9][0-9]{0,4}h([1-9][0-9]{0,4}m)?|[1-9][0-9]{0,4}m([1-9][0-9]{0,4}s)?|[1-9][0-9]{0,6}s|[1-9][0-9]{0,8}ms)$";

/// Returns this document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "host",
    responses((status = 200, description = "This document (OpenAPI 3.1)", content_type = "application/json", body = Object)),
)]
pub(super) async fn document() -> Json<Value> {
    Json(describe())
}
