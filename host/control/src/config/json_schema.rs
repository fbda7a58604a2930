//! The JSON schema of the file, for editors.

use serde_json::{Map, Value, json};

use super::schema::{DefaultValue, Field, Fields, INHERITABLE, ItemKind, Key, Kind, METHODS, root};
use crate::format::MAX_VERSION;
use crate::policy::FEATURES;

/// The rule for names of agents and capabilities (SPEC §7).
const NAME: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";
const SIZE: &str = "^[0-9]+(B|KB|KiB|MB|MiB|GB|GiB)?$";
// The lookahead refuses the empty text, which the optional parts would accept.
const TIME: &str = "^(?=.)([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";
// The bounds after `every` are left to the parser.
const SAVE_MODE: &str = "^(commit|idle|every [0-9]\\S*)$";
// Five or six fields; their values are left to the parser.
const CRON: &str = "^\\s*\\S+(\\s+\\S+){4,5}\\s*$";
const CALLER_TOKEN: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?(=sha256:[0-9a-fA-F]{64})?$";
// What it matches beyond the scheme is left to the parser.
const PLACE: &str = "^\\s*[Hh][Tt][Tt][Pp][Ss]?:";
const CONTENT_TYPE: &str = "^[ -~]{1,100}$";

/// Returns a JSON schema (draft 2020-12) that accepts all files that [`super::check`] accepts. It checks one key at a
/// time: the bounds of sizes and durations, and relations between settings, are left to `check`.
pub fn json_schema() -> Value {
    let mut schema = table(root());
    schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".into(), json!("caxton.toml"));
    schema.insert("description".into(), json!("Which agents a Caxton host runs, and what each may do and use."));
    // As shared definitions, since `[defaults]` and each agent have the same tables.
    let agent = &root()["agents"].fields;
    let mut shared = Map::new();
    shared.insert("agent".into(), Value::Object(table(agent)));
    for name in INHERITABLE {
        if let Some(field) = agent.get(name).filter(|field| field.key.kind == Kind::Table) {
            shared.insert((*name).into(), Value::Object(table(&field.fields)));
        }
    }
    schema.insert("$defs".into(), Value::Object(shared));
    Value::Object(schema)
}

/// Returns the schema of a table. Unimplemented keys are left out, and so refused.
fn table(fields: &Fields) -> Map<String, Value> {
    let implemented = || fields.values().filter(|field| field.key.kind != Kind::Unimplemented);
    let properties: Map<String, Value> = implemented().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> = implemented()
        .filter(|field| matches!(field.key.default, DefaultValue::Required(_)))
        .map(|field| field.name)
        .collect();
    let mut schema = Map::new();
    schema.insert("type".into(), json!("object"));
    schema.insert("properties".into(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".into(), json!(required));
    }
    // Editors then mark unknown keys, which `check` refuses too.
    schema.insert("additionalProperties".into(), json!(false));
    schema
}

/// Returns the schema of a key, with its description and default.
fn property(field: &Field) -> Value {
    let key = field.key;
    let mut schema = match key.kind {
        Kind::Table if INHERITABLE.contains(&field.name) => {
            json!({ "$ref": format!("#/$defs/{}", field.name) })
        }
        Kind::Table => Value::Object(table(&field.fields)),
        Kind::Tables => json!({ "type": "array", "items": table(&field.fields) }),
        Kind::Agents => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME },
            "additionalProperties": { "$ref": "#/$defs/agent" },
        }),
        Kind::Secrets => secrets(&field.fields),
        Kind::Budgets => json!({
            "type": "object", "propertyNames": { "pattern": NAME }, "additionalProperties": table(&field.fields),
        }),
        Kind::Places | Kind::Folders | Kind::TcpPlaces => {
            // Each keyword holds for values of its own type: the pattern for texts, the rest for tables.
            let mut place = table(&field.fields);
            place.insert("type".into(), json!(["string", "object"]));
            let pattern = match key.kind {
                Kind::Places => PLACE,
                Kind::TcpPlaces => ":[0-9]+$",
                _ => "[^/.]",
            };
            place.insert("pattern".into(), json!(pattern));
            json!({ "type": "array", "items": place })
        }
        _ => scalar(key),
    };
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".into(), json!(describe(key)));
        let default = match key.default {
            DefaultValue::Text(text) => Some(json!(text)),
            DefaultValue::Integer(number) => Some(json!(number)),
            DefaultValue::Number(number) => Some(json!(number)),
            DefaultValue::Boolean(truth) => Some(json!(truth)),
            DefaultValue::Required(_)
            | DefaultValue::Unset(_)
            | DefaultValue::EmptyList(_)
            | DefaultValue::EmptyTable(_) => None,
        };
        if let Some(default) = default {
            schema.insert("default".into(), default);
        }
    }
    schema
}

/// Returns the schema of the secrets: each has one source, and one key is the folder.
fn secrets(fields: &Fields) -> Value {
    let sources: Map<String, Value> = fields
        .values()
        .filter(|field| field.name != "folder")
        .map(|field| (field.name.to_owned(), property(field)))
        .collect();
    json!({
        "type": "object",
        "properties": { "folder": property(&fields["folder"]) },
        "propertyNames": { "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$" },
        "additionalProperties": {
            "type": "object", "properties": sources, "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
        },
    })
}

/// Returns the schema of a value.
fn scalar(key: &Key) -> Value {
    match key.kind {
        Kind::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Number { least, most } => json!({ "type": "number", "minimum": least, "maximum": most }),
        // A number is in bytes and has the bounds; for a text only the form can be checked.
        Kind::Size { least, most } => json!({
            "type": ["string", "integer"], "pattern": SIZE, "minimum": least, "maximum": most,
        }),
        Kind::Time { .. } => json!({ "type": "string", "pattern": TIME }),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string", "pattern": "\\S" }),
        Kind::AnyText => json!({ "type": "string" }),
        Kind::ContentType => json!({ "type": "string", "pattern": CONTENT_TYPE }),
        Kind::Cron => json!({ "type": "string", "pattern": CRON }),
        // Not all names: hundreds of them would bury the other keys.
        Kind::Timezone => json!({ "type": "string", "pattern": "^[A-Z]" }),
        Kind::Format => json!({ "const": 1 }),
        Kind::Word { known, .. } => json!({ "enum": known }),
        Kind::Address => json!({ "type": "string", "pattern": "^.+:[0-9]+$" }),
        Kind::Rate => json!({ "type": "string", "pattern": "^[0-9]+/[smh]$" }),
        Kind::Route => json!({ "type": "string", "pattern": "^/" }),
        Kind::List(item) => json!({ "type": "array", "uniqueItems": true, "items": element(item) }),
        Kind::TextMap => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Percent { least, most } => json!({ "oneOf": [
            { "type": "string", "pattern": "^[0-9.]+%$" },
            { "type": "number", "minimum": least, "maximum": most },
        ] }),
        Kind::Batch => json!({ "oneOf": [
            { "type": "string", "pattern": "^[0-9.]+%$" },
            { "type": "integer", "minimum": 1, "maximum": 100 },
        ] }),
        Kind::SaveMode => json!({ "type": "string", "pattern": SAVE_MODE }),
        Kind::CanarySteps => json!({ "type": "array", "minItems": 1, "items": { "type": "object" } }),
        Kind::Weights => {
            json!({ "type": "array", "minItems": 1, "items": { "type": "integer", "minimum": 1, "maximum": 100 } })
        }
        Kind::Versions => json!({
            "type": "array", "uniqueItems": true, "items": { "type": "integer", "minimum": 0, "maximum": MAX_VERSION },
        }),
        Kind::BudgetName => json!({ "type": "string", "pattern": NAME }),
        Kind::Units => json!({
            "type": "object", "propertyNames": { "pattern": NAME },
            "additionalProperties": { "type": "integer", "minimum": 1 },
        }),
        Kind::Meter => json!({
            "type": "object", "propertyNames": { "pattern": NAME },
            "additionalProperties": { "oneOf": [
                { "type": "string", "pattern": "^/" },
                {
                    "type": "object", "propertyNames": { "pattern": "^/" }, "minProperties": 1,
                    "additionalProperties": { "type": "integer", "minimum": 1 },
                },
            ] },
        }),
        Kind::PlaceUrl => json!({ "type": "string", "pattern": PLACE }),
        Kind::Proxy => json!({ "type": "string", "pattern": "^http://" }),
        Kind::Table | Kind::Tables | Kind::Agents | Kind::Secrets | Kind::Budgets | Kind::Unimplemented => json!({}),
        Kind::Places | Kind::Folders | Kind::TcpPlaces => json!({}),
    }
}

/// Returns the schema of a list's element.
fn element(item: ItemKind) -> Value {
    match item {
        ItemKind::Text => json!({ "type": "string", "pattern": "\\S" }),
        ItemKind::Capability => json!({ "type": "string", "pattern": NAME }),
        ItemKind::Receiver => json!({ "type": "string", "pattern": NAME.replacen('^', "^(cap:)?", 1) }),
        ItemKind::Variable => json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" }),
        ItemKind::Method => json!({ "enum": METHODS }),
        ItemKind::Origin => json!({ "type": "string", "pattern": "^(\\*|[a-z][a-z0-9+.-]*://[^/?#@ ]+)$" }),
        ItemKind::HostName => json!({ "type": "string", "pattern": "^(\\*\\.)?[a-z0-9:._-]+$" }),
        ItemKind::CallerToken => json!({ "type": "string", "pattern": CALLER_TOKEN }),
        ItemKind::NamePattern => json!({ "type": "string", "pattern": "^[A-Za-z0-9:/@.+*-]{1,200}$" }),
        ItemKind::AllowedDigest => json!({ "type": "string", "pattern": "^(.+=)?sha256:[0-9a-fA-F]{64}$" }),
        ItemKind::PublicKey => json!({ "type": "string", "pattern": "^ed25519:[0-9a-fA-F]{64}$" }),
        ItemKind::Feature => json!({ "enum": FEATURES }),
        ItemKind::Header => json!({ "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" }),
    }
}

/// Returns the description of a key, with the bounds that a pattern cannot express.
fn describe(key: &Key) -> String {
    match key.kind.bounds() {
        Some(bounds) => format!("{} ({bounds})", key.doc),
        None => key.doc.to_owned(),
    }
}
