//! The loading of settings: from a file, the environment and the command line to [`Desired`].
//!
//! ```text
//! caxton.toml --syntax, toml--.
//! CAXTON_*  -----variables-----+--> layers: figment picks --> Node --caxton_control::config::check--> Desired
//! --listen … ------flags------'                                          `--> errors --render--> text or JSON
//! Desired --named_files--> errors of the files that it names, such as certificates
//! ```
//!
//! Every value keeps its place, so that an error names the line, the variable or the flag that caused it. The rules and
//! the meaning of settings are in `caxton-control`; this folder only reads the sources and renders errors. The
//! environment is an argument, so that tests need not change that of the process.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod examine;
mod layers;
mod named_files;
mod render;
mod syntax;
#[cfg(test)]
mod tests;
mod toml;
mod variables;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use caxton_control::config::{ConfigError, Entry, Location, Node, Source, Value, check};
use caxton_control::{Desired, Digest};
use sha2::Digest as _;

use self::named_files::Places;
use self::variables::Variables;
pub(crate) use named_files::TlsTable;
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
    /// The errors of files that it names, such as a certificate that cannot be used. A host does not start with them;
    /// one that runs keeps what it had of such a file.
    pub(crate) file_errors: Option<ConfigErrors>,
    /// The places of the keys that name files.
    pub(crate) places: Places,
    /// Harmless oddities of the environment, and settings that may not be meant, one line each.
    pub(crate) warnings: Vec<String>,
}

impl Loaded {
    /// Logs the warnings.
    pub(crate) fn log_warnings(&self) {
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }

    /// Replaces the name of the file by the one that the user gave.
    pub(crate) fn named(self, file: &Path) -> Self {
        Self { file_errors: self.file_errors.map(|errors| errors.named(file)), ..self }
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
    let Parsed { desired, root, mut warnings } =
        parse(&text, env, flags).map_err(|errors| ConfigErrors::new(path, text.clone(), errors))?;
    let dir = folder(path);
    let (errors, mut of_files) = named_files::check(&desired, &root, &dir);
    warnings.append(&mut desired.warnings());
    warnings.append(&mut of_files);
    let text_digest = Digest(sha2::Sha256::digest(text.as_bytes()).into());
    let report = ConfigErrors::new(path, text, errors);
    let places = named_files::places(&desired, &root, &report);
    let file_errors = (!report.errors().is_empty()).then_some(report);
    Ok(Loaded { desired, dir, text_digest, file_errors, places, warnings })
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

/// A declaration without errors, with the tree that it was read from.
#[derive(Debug)]
struct Parsed {
    desired: Desired,
    root: Node,
    /// The warnings of the environment.
    warnings: Vec<String>,
}

/// Parses and checks a text.
fn parse(
    text: &str,
    env: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
) -> Result<Parsed, Vec<ConfigError>> {
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
        Ok(desired) if errors.is_empty() => Ok(Parsed { desired, root, warnings }),
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
