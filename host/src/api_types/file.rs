//! The shape of errors of the declaration.

use serde::{Deserialize, Serialize};

/// An error of the declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct FileError {
    /// A stable code for programs, such as `unknown-key`.
    pub(crate) code: String,
    /// `caxton.toml:12:9`, or the name of a variable or flag.
    pub(crate) place: String,
    /// The key, such as `agents.triage.limits.memory`; empty if the error concerns no key.
    pub(crate) key: String,
    /// The error, for a person.
    pub(crate) message: String,
    /// A suggestion, if there is one.
    pub(crate) help: Option<String>,
}

impl std::fmt::Display for FileError {
    /// Writes the place, the key if there is one, and the message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, key, message, .. } = self;
        if key.is_empty() { write!(f, "{place}: {message}") } else { write!(f, "{place}: {key}: {message}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_without_a_key_omit_it() {
        let mut error = FileError {
            code: "syntax".to_owned(),
            place: "caxton.toml:3:6".to_owned(),
            key: String::new(),
            message: "not valid TOML".to_owned(),
            help: None,
        };
        assert_eq!(error.to_string(), "caxton.toml:3:6: not valid TOML");
        error.key = "agents.a.limits".to_owned();
        assert_eq!(error.to_string(), "caxton.toml:3:6: agents.a.limits: not valid TOML");
    }
}
