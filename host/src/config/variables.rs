//! Settings from the environment.
//!
//! `CAXTON_HTTP__MAX_HEAD` is `http.max-head`: `__` separates keys, `_` is a hyphen. A variable with `__` that is not a
//! setting is an error, like an unknown key in the file. Any other unknown variable is a warning at most, because the
//! system has variables of its own: Kubernetes derives some from the name of each Service.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use caxton_control::config::schema::{self, KEYS, Kind};
use caxton_control::config::{ConfigError, Location, Node, Source, Value, nearest};

use super::toml;

/// The prefix of all variables of Caxton.
const PREFIX: &str = "CAXTON_";

/// Variables that the command line reads in place of flags.
const COMMAND_LINE: [&str; 10] = [
    "CAXTON_ADMIN",
    "CAXTON_CA",
    "CAXTON_CACHE",
    "CAXTON_CLIENT_CERT",
    "CAXTON_CLIENT_KEY",
    "CAXTON_DATA",
    "CAXTON_TOKEN_FILE",
    "CAXTON_FILE",
    "CAXTON_LOG",
    "CAXTON_POLICY",
];

/// A setting from outside of the file.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The keys from the root.
    pub(super) path: Vec<String>,
    /// The value, located at the variable or the flag.
    pub(super) node: Node,
}

/// The settings of the environment, with errors and warnings.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// The settings in order of the variables' names.
    pub(super) settings: Vec<Setting>,
    /// Errors that refuse the configuration.
    pub(super) errors: Vec<ConfigError>,
    /// Harmless oddities, one line each.
    pub(super) warnings: Vec<String>,
}

/// Reads the settings of an environment.
pub(super) fn read(env: impl Iterator<Item = (OsString, OsString)>) -> Variables {
    // Sorted, so that errors and precedence do not depend on the environment's order.
    let ours: BTreeMap<OsString, OsString> =
        env.filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes())).collect();
    let mut found = Variables::default();
    let mut services = Vec::new();
    for (name, value) in ours {
        // `shown` is only for messages: a name that is not UTF-8 cannot be a setting.
        let shown = name.to_string_lossy().into_owned();
        // Read by the command line itself, and no settings.
        if COMMAND_LINE.contains(&shown.as_str()) {
            continue;
        }
        let path = path(&shown).filter(|_| name.to_str().is_some());
        let key = path.as_ref().and_then(|path| schema::find(path.iter().map(String::as_str)));
        // Checked before errors: a Service may be named so that its variables look like tables of settings.
        if key.is_none_or(|key| is_table(key.kind)) && is_of_service(&shown, &value.to_string_lossy()) {
            services.push(shown);
            continue;
        }
        let source = Source::Variable(Arc::from(shown.as_str()));
        match (path, value.to_str()) {
            (Some(_), Some("")) if key.is_some_and(|key| !takes_nothing(key.kind)) => {
                found.warnings.push(format!("{shown} is empty and sets nothing; unset it, or give it a value"));
            }
            (Some(path), Some(text)) => found.settings.push(setting(path, text, source)),
            (Some(path), None) => found.errors.push(ConfigError::WrongType {
                at: Location { key: path.join("."), source },
                expected: "text in UTF-8".to_owned(),
                found: "other bytes",
                example: format!("{shown}=..."),
            }),
            (None, _) if shown.contains("__") => {
                let at = Location { key: String::new(), source };
                found.errors.push(ConfigError::UnknownVariable { at, suggestion: suggestion(&shown) });
            }
            (None, _) => found.warnings.push(match suggestion(&shown) {
                Some(meant) => format!("{shown} sets nothing; did you mean `{meant}`?"),
                None => format!(
                    "{shown} sets nothing: a setting's variable has `__` between the keys, such as `CAXTON_HTTP__LISTEN`"
                ),
            }),
        }
    }
    found.warnings.extend(of_services(&services));
    found
}

/// Returns `true` for a variable that Kubernetes derives from a Service's name and port, or Docker from a link's.
fn is_of_service(name: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // NAME_PORT_8080_TCP, and the same with _PROTO, _PORT or _ADDR.
    let of_port = name.match_indices("_PORT_").any(|(at, port)| {
        let mut parts = name[at + port.len()..].split('_');
        digits(parts.next().unwrap_or_default())
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!((parts.next(), parts.next()), (None | Some("PROTO" | "PORT" | "ADDR"), None))
    });
    of_port
        || name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme)))
        // Docker links pass on the environment of the other container under this prefix.
        || name.starts_with("CAXTON_ENV_")
}

/// Returns one warning for all variables of Services: a single Service has seven or more.
fn of_services(names: &[String]) -> Option<String> {
    let (first, others) = names.split_first()?;
    let more = match others.len() {
        0 => " is".to_owned(),
        1 => " and another are".to_owned(),
        count => format!(" and {count} others are"),
    };
    Some(format!(
        "{first}{more} of a service of the cluster whose name begins with `caxton`, and set nothing; \
         `enableServiceLinks: false` in the pod's specification leaves them out"
    ))
}

/// Returns `true` for a kind whose value is a table, which no text can express.
fn is_table(kind: Kind) -> bool {
    matches!(kind, Kind::Table | Kind::Tables | Kind::Agents | Kind::Secrets | Kind::Budgets)
}

/// Returns `true` for a kind that allows an empty text.
fn takes_nothing(kind: Kind) -> bool {
    matches!(kind, Kind::AnyText | Kind::TextMap)
}

/// Creates the setting of `path`. For a kind that only allows text, the value is taken literally; otherwise it is
/// parsed as TOML, and taken as text if that fails.
pub(super) fn setting(path: Vec<String>, text: &str, source: Source) -> Setting {
    let quoted = text.starts_with(['"', '\'']);
    let plain = schema::find(path.iter().map(String::as_str)).is_some_and(|key| takes_text(key.kind));
    let read = if plain && !quoted { None } else { toml::value(text, &source) };
    let node = read.unwrap_or_else(|| Node { value: Value::String(text.to_owned()), source });
    Setting { path, node }
}

/// Returns `true` if the kind only allows text.
fn takes_text(kind: Kind) -> bool {
    match kind {
        Kind::Text | Kind::Time { .. } | Kind::Word { .. } | Kind::Address | Kind::Route => true,
        Kind::AnyText | Kind::ContentType | Kind::Cron | Kind::Timezone | Kind::SaveMode | Kind::Rate => true,
        Kind::PlaceUrl | Kind::Proxy | Kind::BudgetName => true,
        // Meant for the map's entries. For the map itself no text is valid either way.
        Kind::TextMap => true,
        // These allow both, and a percentage does not parse as another type of TOML.
        Kind::Percent { .. } | Kind::Batch | Kind::CanarySteps | Kind::Weights | Kind::Versions | Kind::Places => false,
        Kind::Folders | Kind::TcpPlaces => false,
        Kind::Table | Kind::Tables | Kind::Agents | Kind::Secrets | Kind::Integer { .. } | Kind::Size { .. } => false,
        Kind::Budgets | Kind::Units | Kind::Meter => false,
        Kind::Number { .. } | Kind::Boolean | Kind::Format | Kind::List(_) | Kind::Unimplemented => false,
    }
}

/// Returns the keys that a variable names; `None` if it cannot be a setting.
fn path(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix(PREFIX)?;
    let parts: Vec<String> = rest.split("__").map(|part| part.to_lowercase().replace('_', "-")).collect();
    let complete = parts.len() > 1 && parts.iter().all(|part| !part.is_empty());
    complete.then_some(parts)
}

/// Returns the command-line variable or the setting that was probably meant.
fn suggestion(name: &str) -> Option<String> {
    let settings: Vec<String> = KEYS
        .iter()
        .filter(|key| key.path.contains('.') && !key.path.contains("NAME"))
        .map(|key| format!("{PREFIX}{}", key.path.to_uppercase().replace('.', "__").replace('-', "_")))
        .collect();
    // `_` in place of `__` differs by one at each level, which is too far for the nearest name once the key is deep.
    let flat = |text: &str| text.to_uppercase().replace("__", "_");
    let same = settings.iter().find(|setting| flat(setting) == flat(name)).map(String::as_str);
    same.or_else(|| nearest(name, COMMAND_LINE.into_iter().chain(settings.iter().map(String::as_str))))
        .map(str::to_owned)
}
