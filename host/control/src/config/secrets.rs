//! The table `[secrets]`, and the references to it.

use super::error::{ConfigError, Location};
use super::findings::Findings;
use super::node::{Entry, Value};
use super::schema;
use super::section::Section;
use super::values::{TypedValue, is_variable, read, wrong_type};
use crate::desired::{SecretSource, SecretsSpec};
use crate::secret::{SecretText, is_secret_name};

/// The key that is no secret's name.
const FOLDER: &str = "folder";
/// The keys of a secret, of which it has one.
const SOURCES: [&str; 3] = ["env", "file", "command"];

/// Reads the table.
pub(super) fn secrets(root: &Section<'_>, findings: &mut Findings) -> SecretsSpec {
    let mut spec = SecretsSpec::default();
    let Some(entry) = root.entry("secrets") else { return spec };
    let Value::Table(table) = &entry.node.value else {
        findings.errors.push(wrong_type(root.schema("secrets"), "secrets", &entry.node, "secrets"));
        return spec;
    };
    for (name, entry) in table {
        let path = format!("secrets.{name}");
        if name == FOLDER {
            let field = &schema::root()["secrets"].fields[FOLDER];
            if let Some(TypedValue::Text(folder)) = read(field.key, name, &entry.node, &path, findings) {
                spec.folder = Some(folder);
            }
            continue;
        }
        if !is_secret_name(name) {
            let at = Location { key: path.clone(), source: entry.key.clone() };
            findings.errors.push(ConfigError::BadSecretName { at, given: name.clone() });
        }
        // Declared even with a source that is wrong, so that the references to it are no further errors.
        let source = source(name, path, entry, findings).unwrap_or_else(|| SecretSource::Env(String::new()));
        spec.named.insert(name.clone(), source);
    }
    spec
}

/// Reads the source of one secret.
fn source(name: &str, path: String, entry: &Entry, findings: &mut Findings) -> Option<SecretSource> {
    let at = Location { key: path.clone(), source: entry.key.clone() };
    let Value::Table(table) = &entry.node.value else {
        findings.errors.push(ConfigError::WrongType {
            at: Location { key: path, source: entry.node.source.clone() },
            expected: "a table".to_owned(),
            found: entry.node.value.describe(),
            example: format!("{name} = {{ env = \"OPENAI_API_KEY\" }}"),
        });
        return None;
    };
    let section = Section::open(source_fields(), table, path, entry.key.clone(), findings);
    let given: Vec<&'static str> = SOURCES.into_iter().filter(|key| section.entry(key).is_some()).collect();
    let [key] = given[..] else {
        findings.errors.push(ConfigError::SecretSource { at, given });
        return None;
    };
    let text: String = section.get(key, None, findings)?;
    match key {
        "env" if !is_variable(&text) => {
            let at = Location { key: section.key(key), source: section.source_of(key) };
            findings.errors.push(ConfigError::BadVariableName { at, given: text });
            None
        }
        "env" => Some(SecretSource::Env(text)),
        "file" => Some(SecretSource::File(text)),
        _ => Some(SecretSource::Command(text)),
    }
}

/// Returns the keys of one secret. The schema has them beside `folder`, as it leaves names out.
fn source_fields() -> &'static schema::Fields {
    static FIELDS: std::sync::LazyLock<schema::Fields> = std::sync::LazyLock::new(|| {
        let mut fields = schema::root()["secrets"].fields.clone();
        fields.remove(FOLDER);
        fields
    });
    &FIELDS
}

/// Checks the references of an agent's configuration.
pub(super) fn references(section: &Section<'_>, secrets: &SecretsSpec, findings: &mut Findings) {
    let Some(entry) = section.entry("config") else { return };
    let Value::Table(table) = &entry.node.value else { return };
    for (key, entry) in table {
        let Value::String(text) = &entry.node.value else { continue };
        let key = format!("{}.{key}", section.key("config"));
        reference(text, secrets, Location { key, source: entry.node.source.clone() }, findings);
    }
}

/// Checks the references of one text.
pub(super) fn reference(text: &str, secrets: &SecretsSpec, at: Location, findings: &mut Findings) {
    if !text.contains("${") {
        return;
    }
    match SecretText::parse(text) {
        Err(reason) => findings.errors.push(ConfigError::BadSecretText { at, reason }),
        Ok(text) => {
            for name in text.names().filter(|name| !secrets.may_have(name)) {
                let known = secrets.named.keys().map(String::as_str);
                let suggestion = findings.suggest.nearest(name, known).map(str::to_owned);
                findings.errors.push(ConfigError::UnknownSecret { at: at.clone(), name: name.to_owned(), suggestion });
            }
        }
    }
}
