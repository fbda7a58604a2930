//! The environment: which variables are settings, and of which key.
//!
//! `CAXTON_HTTP__MAX_HEAD` is `http.max-head`: `__` separates keys, `_` is a hyphen. A variable that looks like a
//! setting and is none is an error, as a key in the file would be.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_control::config::schema::{self, KEYS, Kind};
use caxton_control::config::{At, ConfigError, Node, Place, Value, nearest};

use super::toml;

/// What all variables of Caxton begin with.
const PREFIX: &str = "CAXTON_";

/// Variables that the command line reads itself, in place of flags.
const COMMAND_LINE: [&str; 6] =
    ["CAXTON_ADMIN", "CAXTON_CACHE", "CAXTON_DATA", "CAXTON_TOKEN_FILE", "CAXTON_FILE", "CAXTON_LOG"];

/// A setting from outside the file.
#[derive(Debug)]
pub(super) struct Setting {
    /// The keys from the root.
    pub(super) path: Vec<String>,
    /// The value, at the place of the variable or flag.
    pub(super) node: Node,
}

/// The settings in the environment, in the order of their names, and the variables that are none.
pub(super) fn read(env: impl Iterator<Item = (String, String)>) -> (Vec<Setting>, Vec<ConfigError>) {
    let ours: BTreeMap<String, String> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
    let mut settings = Vec::new();
    let mut errors = Vec::new();
    for (name, text) in ours {
        if COMMAND_LINE.contains(&name.as_str()) {
            continue;
        }
        let place = Place::Variable(Arc::from(name.as_str()));
        match path(&name) {
            Some(path) => settings.push(setting(path, &text, place)),
            None => {
                let at = At { key: String::new(), place };
                errors.push(ConfigError::UnknownVariable { at, suggestion: suggestion(&name) });
            }
        }
    }
    (settings, errors)
}

/// The setting of `path`. Where only text can be right, the value is taken as it is; else as TOML if it is that.
pub(super) fn setting(path: Vec<String>, text: &str, place: Place) -> Setting {
    let quoted = text.starts_with(['"', '\'']);
    let plain = schema::find(path.iter().map(String::as_str)).is_some_and(|key| takes_text(key.kind));
    let read = if plain && !quoted { None } else { toml::value(text, &place) };
    let node = read.unwrap_or_else(|| Node { value: Value::String(text.to_owned()), place });
    Setting { path, node }
}

/// Whether only text is right for the kind.
fn takes_text(kind: Kind) -> bool {
    match kind {
        Kind::Text | Kind::Time { .. } | Kind::Word { .. } | Kind::Address { .. } | Kind::Route => true,
        Kind::AnyText | Kind::ContentType | Kind::Cron | Kind::Timezone => true,
        // Of the map itself this is not so, but no text is right for that either.
        Kind::TextMap => true,
        // They take both, and a percentage is no TOML of another type.
        Kind::Percent { .. } | Kind::Batch | Kind::CanarySteps | Kind::Weights => false,
        Kind::Table | Kind::Tables | Kind::Agents | Kind::Integer { .. } | Kind::Size { .. } => false,
        Kind::Number { .. } | Kind::Boolean | Kind::Format | Kind::List(_) | Kind::Later => false,
    }
}

/// The keys that a variable names, if it can be a setting's.
fn path(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix(PREFIX)?;
    let parts: Vec<String> = rest.split("__").map(|part| part.to_lowercase().replace('_', "-")).collect();
    let complete = parts.len() > 1 && parts.iter().all(|part| !part.is_empty());
    complete.then_some(parts)
}

/// The variable of the command line or of a setting that was probably meant.
fn suggestion(name: &str) -> Option<String> {
    let settings: Vec<String> = KEYS
        .iter()
        .filter(|key| key.path.contains('.') && !key.path.contains("NAME"))
        .map(|key| format!("{PREFIX}{}", key.path.to_uppercase().replace('.', "__").replace('-', "_")))
        .collect();
    // With one `_` for `__` it is off by one at each level, whatever else is wrong.
    let flat = |text: &str| text.to_uppercase().replace("__", "_");
    let same = settings.iter().find(|setting| flat(setting) == flat(name)).map(String::as_str);
    same.or_else(|| nearest(name, COMMAND_LINE.into_iter().chain(settings.iter().map(String::as_str))))
        .map(str::to_owned)
}
