//! The operator's own file: ceilings and rules that `caxton.toml` cannot override.

use std::path::Path;

use caxton_control::Digest;
use caxton_control::config::{Operator, Source, check_operator};
use sha2::Digest as _;

use super::render::ConfigErrors;
use super::syntax;

/// The operator's own file without errors.
#[derive(Debug, Clone)]
pub(crate) struct LoadedOperator {
    /// Its meaning, with places for errors of other files.
    pub(crate) operator: Operator,
    /// The SHA-256 of the file's bytes, to detect changes.
    pub(crate) text_digest: Digest,
}

/// Loads the operator's own file. `shown` is its path for messages.
///
/// # Errors
/// All errors at once.
pub(crate) fn load_operator(path: &Path, shown: &Path) -> Result<LoadedOperator, ConfigErrors> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigErrors::unreadable(shown, &error))?;
    let errors = |errors| ConfigErrors::new(shown, text.clone(), errors);
    // Without variables: who runs the host sets them, and this file is to bound that.
    let operator = syntax::parse(&text).and_then(|root| check_operator(&root)).map_err(errors)?;
    let places = errors(Vec::new());
    let place = |source: &Source| Source::Place(places.place(source).text(shown).into());
    Ok(LoadedOperator {
        operator: operator.located(&place),
        text_digest: Digest(sha2::Sha256::digest(text.as_bytes()).into()),
    })
}
