//! The remedy for each error.

use super::error::{ConfigError, Overlap};
use super::error_parts::UnknownReceiver;
use crate::cron::{CronError, CronField};
use crate::units::guess_bytes;

/// The values of `snapshot.save`.
const SAVE_MODES: &str =
    "\"commit\", \"idle\", \"every N\" with 1 to 1000000 messages, or \"every TIME\" with 1s to 1h";

/// The remedy for a file that is not there.
const OTHER_FILE: &str = "name another file with `-f FILE`, or start from the `caxton.toml` of Caxton's repository";

// Apart from the errors: these texts are for the authors of the file, and change for other reasons.
impl ConfigError {
    /// Returns the remedy.
    pub fn help(&self) -> String {
        match self {
            Self::MissingFile { .. } => OTHER_FILE.to_owned(),
            Self::UnreadableFile { .. } => "the file must be UTF-8 text that this user may read".to_owned(),
            Self::Syntax { .. } => "see https://toml.io for the syntax".to_owned(),
            Self::DuplicateKey { .. } => "keep one of the two".to_owned(),
            Self::UnknownVariable { suggestion: Some(suggestion), .. } => did_you_mean(suggestion),
            Self::UnknownVariable { suggestion: None, .. } => {
                "a setting's variable has `__` between the keys, such as `CAXTON_HTTP__LISTEN`; unset this one"
                    .to_owned()
            }
            Self::UnknownKey { suggestion, known, .. } => one_of("the keys here are", known, suggestion.as_deref()),
            Self::NotImplemented { instead: [], .. } => {
                "remove it: what this version of Caxton cannot act on, it refuses rather than ignores".to_owned()
            }
            Self::NotImplemented { instead, .. } => one_of("what works here is", instead, None),
            Self::Missing { example, agent: Some(agent), .. } => {
                format!("{} otherwise add `{example}`", did_you_mean(&format!("agents.{agent}")))
            }
            Self::Missing { example, agent: None, .. } => format!("add `{example}`"),
            Self::WrongType { example, .. } | Self::Empty { example, .. } => format!("write it like `{example}`"),
            Self::BadSize { text, .. } => size_help(&text.given),
            Self::BadDuration { .. } => "whole numbers with h, m, s or ms, such as \"10s\" or \"1m30s\"".to_owned(),
            Self::OutOfBounds { least, most, .. } if least == most => format!("only {least} is allowed"),
            Self::OutOfBounds { least, most, .. } => format!("from {least} to {most} is allowed"),
            Self::UnknownFormat { .. } => {
                "write `caxton = 1`, or use a version of Caxton that reads this file".to_owned()
            }
            Self::UnknownWord { known, suggestion, .. } => one_of("it is one of", known, suggestion.as_deref()),
            Self::BadAddress { .. } | Self::NotLoopback { .. } | Self::BadHostName { .. } => address_help(self),
            Self::BadName { reason, .. } => reason.to_string(),
            Self::BadVariableName { .. } => "letters, digits and `_`, no digit first, such as \"LANG\"".to_owned(),
            Self::BadRoute { .. } => "such as \"/tickets\", \"/tickets/{id}\" or \"/files/{*rest}\"".to_owned(),
            Self::BadRate { .. } | Self::BadCallerToken { .. } | Self::BadKeySource { .. } => caller_help(self),
            Self::BadPlace { problem, .. } => problem.help().to_owned(),
            Self::BadConversation { .. } => {
                "such as \"order-{id}\" for a route with `{id}`, or \"{header:x-order}\"".to_owned()
            }
            Self::BadSaveMode { .. } => SAVE_MODES.to_owned(),
            Self::BadCron { reason, .. } => cron_help(reason),
            Self::UnknownTimezone { suggestion, .. } => timezone_help(suggestion.as_deref()),
            Self::BadContentType { .. } => {
                "1 to 100 printable characters of ASCII, such as \"application/json\"".to_owned()
            }
            Self::UnknownMethod { suggestion: Some(suggestion), .. } => did_you_mean(suggestion),
            Self::UnknownMethod { suggestion: None, .. } => {
                "methods are written in upper case, such as \"GET\" or \"POST\"".to_owned()
            }
            Self::BadOrigin { .. } | Self::BadHeaderName { .. } | Self::CredentialsForAll { .. } => cors_help(self),
            Self::UnusableFile { help, .. } | Self::UnusableSecret { help, .. } => help.clone(),
            Self::BadSecretName { .. }
            | Self::SecretSource { .. }
            | Self::BadSecretText { .. }
            | Self::UnknownSecret { .. } => secret_help(self),
            Self::Repeated { .. } => "remove one of the two".to_owned(),
            Self::MinAboveMax { low, high, .. } => format!("raise {} or lower {}", name(high), name(low)),
            Self::OtherStrategy { at, belongs, .. } => strategy_help(&at.key, belongs),
            Self::RouteClash { clash, .. } => clash_help(&clash.overlap),
            Self::Policy { reason, .. } => reason.help(),
            Self::UnknownAgent { receiver, .. } => unknown_agent(receiver),
            Self::UnknownCapability { receiver, .. } => unknown_capability(receiver),
        }
    }
}

/// Returns the remedy for an unknown time zone.
fn timezone_help(suggestion: Option<&str>) -> String {
    let known = || "a name of the IANA database, such as \"UTC\" or \"Europe/Berlin\"".to_owned();
    suggestion.map_or_else(known, did_you_mean)
}

/// Returns the remedy for a size, with the probably meant one.
fn size_help(given: &str) -> String {
    guess_bytes(given).map_or_else(
        || "a whole number with B, KB, KiB, MB, MiB, GB or GiB, such as \"64MiB\", or a number of bytes".to_owned(),
        |guess| did_you_mean(&guess),
    )
}

/// Returns the remedy for a wrong address or name of a listener.
fn address_help(error: &ConfigError) -> String {
    let help = match error {
        ConfigError::NotLoopback { .. } => {
            "add `[admin.tls]` with `cert` and `key`, or use an address of this machine's own, such as \"127.0.0.1:8081\""
        }
        ConfigError::BadHostName { .. } => {
            "the name alone in lower case, such as \"agents.example.com\", \"*.example.com\" for all names below it, or an IP address"
        }
        _ => "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"; port 0 lets the system choose",
    };
    help.to_owned()
}

/// Returns the remedy for a wrong secret, or a wrong reference to one.
fn secret_help(error: &ConfigError) -> String {
    match error {
        ConfigError::BadSecretName { .. } => "letters, digits, `_`, `-` and `.`, such as \"openai\"".to_owned(),
        ConfigError::SecretSource { .. } => {
            "one of `env`, `file` and `command`, such as `{ env = \"OPENAI_API_KEY\" }`".to_owned()
        }
        ConfigError::UnknownSecret { suggestion: Some(name), .. } => did_you_mean(&format!("${{secret:{name}}}")),
        ConfigError::UnknownSecret { name, .. } => {
            format!("declare it in `[secrets]`, such as `{name} = {{ file = \"…\" }}`, or name a `folder` that has it")
        }
        _ => "`${secret:NAME}` is the value of a secret; a literal `${` is written `$${`".to_owned(),
    }
}

/// Returns the remedy for a wrong part of `http.cors`.
fn cors_help(error: &ConfigError) -> String {
    let help = match error {
        ConfigError::BadOrigin { .. } => {
            "scheme, host, and port if it is not the scheme's own, as browsers send it, such as \"https://app.example\"; \"*\" for all"
        }
        ConfigError::BadHeaderName { .. } => "the name alone, such as \"content-type\"; \"*\" for all",
        _ => "name the origins, or leave out `credentials`",
    };
    help.to_owned()
}

/// Returns the remedy for a wrong part of what a route asks of its callers.
fn caller_help(error: &ConfigError) -> String {
    let help = match error {
        ConfigError::BadRate { .. } => "such as \"100/s\", \"30/m\" or \"1000/h\"",
        ConfigError::BadCallerToken { .. } => {
            "the name of a token of `caxton token ls`, such as \"shop\", or \"shop=sha256:\" and the digest of its text"
        }
        _ => "such as \"file:keys/shop.key\" or \"env:SHOP_KEY\"",
    };
    help.to_owned()
}

/// Returns the question for a suggested name.
fn did_you_mean(name: &str) -> String {
    format!("did you mean `{name}`?")
}

/// Returns the suggestion if there is one, and otherwise all known names.
fn one_of(intro: &str, known: &[&str], suggestion: Option<&str>) -> String {
    match suggestion {
        Some(suggestion) => did_you_mean(suggestion),
        None if known.len() == 1 => format!("only `{}` works here", known[0]),
        None => format!("{intro} `{}`", known.join("`, `")),
    }
}

/// Returns the name in an end such as `min = 5`.
fn name(end: &str) -> &str {
    end.split(' ').next().unwrap_or(end)
}

/// Returns the remedy for the wrong part of a cron pattern.
fn cron_help(reason: &CronError) -> String {
    match reason {
        CronError::Fields(_) => {
            "5 fields: minute, hour, day, month and weekday; or 6 with the second first, such as \"0 */5 * * * *\""
                .to_owned()
        }
        CronError::Field { field: CronField { name, takes, .. }, .. } => {
            format!("the {name} takes `*` and {takes}; with `-`, `/` and `,` also ranges, steps and lists")
        }
        CronError::Never => "name days that a month has".to_owned(),
    }
}

fn strategy_help(key: &str, belongs: &str) -> String {
    let (table, key) = key.rsplit_once('.').unwrap_or(("", key));
    format!("set `strategy = \"{belongs}\"` in `{table}`, or remove `{key}`")
}

/// Returns the remedy for two clashing routes.
fn clash_help(overlap: &Overlap) -> String {
    match overlap {
        Overlap::Methods(Some(method)) => {
            format!("both answer {method} on the same paths; change a path, or give each its own `methods`")
        }
        Overlap::Methods(None) => {
            "both answer every method on the same paths; change a path, or give each its own `methods`".to_owned()
        }
        Overlap::ParamAndRest => {
            "`{name}` and `{*name}` cannot stand at the same place; put a literal segment before one of them".to_owned()
        }
    }
}

fn unknown_agent(receiver: &UnknownReceiver) -> String {
    match &receiver.suggestion {
        Some(name) => did_you_mean(name),
        None => format!("declare `[agents.{}]` or remove the grant", receiver.name),
    }
}

fn unknown_capability(receiver: &UnknownReceiver) -> String {
    match &receiver.suggestion {
        Some(name) => did_you_mean(&format!("cap:{name}")),
        None => {
            let name = &receiver.name;
            format!("add `capabilities = [\"{name}\"]` to an agent or remove the grant")
        }
    }
}
