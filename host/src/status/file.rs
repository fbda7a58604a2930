//! What is wrong with the file.

use serde::{Deserialize, Serialize};

/// Something wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct FileError {
    /// Stable, for programs.
    pub(crate) code: String,
    /// `caxton.toml:12:9`, or the name of a variable or flag.
    pub(crate) place: String,
    /// Which key, such as `agents.triage.limits.memory`.
    pub(crate) key: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What would be right.
    pub(crate) help: Option<String>,
}

impl std::fmt::Display for FileError {
    /// Where it is, which key if there is one, and what is wrong.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, key, message, .. } = self;
        if key.is_empty() { write!(f, "{place}: {message}") } else { write!(f, "{place}: {key}: {message}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_no_key_names_none() {
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
