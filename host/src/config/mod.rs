//! The loading of settings: from a file, the environment and the command line to [`Desired`].
//!
//! ```text
//! caxton.toml --syntax, toml--.
//! CAXTON_*  -----variables-----+--> layers: figment picks --> Node --caxton_control::config::check--> Desired
//! --listen … ------flags------'                                          `--> errors --render--> text or JSON
//! ```
//!
//! Every value keeps its place, so that an error names the line, the variable or the flag that caused it. The rules and
//! the meaning of settings are in `caxton-control`; this folder only reads the sources and renders errors. The
//! environment is an argument, so that tests need not change that of the process.

mod layers;
mod render;
mod syntax;
#[cfg(test)]
mod tests;
mod toml;
mod variables;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use caxton_control::config::{ConfigError, Entry, Location, Source, Value, check};
use caxton_control::{Desired, Digest};
use sha2::Digest as _;

use self::variables::Variables;
pub(crate) use render::ConfigErrors;

/// A configuration without errors.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The desired state.
    pub(crate) desired: Desired,
    /// The absolute folder of the file, from which relative paths start.
    pub(crate) dir: PathBuf,
    /// The SHA-256 of the file's bytes, to detect changes.
    pub(crate) text_digest: Digest,
    /// Harmless oddities of the environment, one line each.
    pub(crate) warnings: Vec<String>,
}

impl Loaded {
    /// Logs the warnings.
    pub(crate) fn log_warnings(&self) {
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
}

/// Loads the file at `path`, overridden by variables in `env` that begin with `CAXTON_`, and these by `flags` (a key
/// such as `http.listen` and its value).
///
/// # Errors
/// All errors at once. Only a file that cannot be read, or is not valid TOML, hides the errors of its settings.
pub(crate) fn load(
    path: &Path,
    env: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
) -> Result<Loaded, ConfigErrors> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let (desired, warnings) =
        parse(&text, env, flags).map_err(|errors| ConfigErrors::new(path, text.clone(), errors))?;
    Ok(Loaded {
        desired,
        dir: folder(path),
        text_digest: Digest(sha2::Sha256::digest(text.as_bytes()).into()),
        warnings,
    })
}

/// Returns the components of a file by their agents, even if other settings are wrong; none if the file cannot be
/// parsed. Paths are as written, and returned with the folder that they start from.
pub(crate) fn components(
    path: &Path,
    env: impl Iterator<Item = (OsString, OsString)>,
) -> (PathBuf, Vec<(String, String)>) {
    let read = || {
        let file = syntax::parse(&std::fs::read_to_string(path).ok()?).ok()?;
        let root = layers::merge(file, variables::read(env).settings, &[]);
        let Value::Table(agents) = &root.get("agents")?.node.value else { return None };
        let component = |(name, agent): (&String, &Entry)| match &agent.node.get("component")?.node.value {
            Value::String(component) => Some((name.clone(), component.clone())),
            _ => None,
        };
        Some(agents.iter().filter_map(component).collect())
    };
    (folder(path), read().unwrap_or_default())
}

/// Returns the absolute folder of a file.
fn folder(path: &Path) -> PathBuf {
    // Not canonical: paths start from the folder as it was named, even if that is behind a link.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Parses and checks a text. Also returns the warnings of the environment.
fn parse(
    text: &str,
    env: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
) -> Result<(Desired, Vec<String>), Vec<ConfigError>> {
    let Variables { settings, mut errors, warnings } = variables::read(env);
    let file = match syntax::parse(text) {
        Ok(file) => file,
        Err(mut broken) => {
            // Reported together, although the settings of a broken file cannot be checked yet.
            broken.append(&mut errors);
            return Err(broken);
        }
    };
    let root = layers::merge(file, settings, flags);
    match check(&root) {
        Ok(desired) if errors.is_empty() => Ok((desired, warnings)),
        Ok(_) => Err(errors),
        Err(mut wrong) => {
            wrong.append(&mut errors);
            Err(wrong)
        }
    }
}

/// Returns `true` if an error of this code hides all settings of a file.
pub(crate) fn is_unreadable(code: &str) -> bool {
    ["missing-file", "unreadable-file"].contains(&code)
}

/// Creates the error for a file that is missing or cannot be read.
fn unreadable(path: &Path, error: &std::io::Error) -> ConfigErrors {
    let at = Location { key: String::new(), source: Source::Default };
    let error = match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::MissingFile { at },
        _ => ConfigError::UnreadableFile { at, reason: error.to_string() },
    };
    ConfigErrors::new(path, String::new(), vec![error])
}
