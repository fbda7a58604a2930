//! The loading of settings: from a file, the environment and the command line to [`Desired`].
//!
//! ```text
//! caxton.toml --parts, in pieces --.
//!             `--syntax, as a whole-+
//! CAXTON_*  -----variables----------+--> layers: figment picks --> Node --caxton_control::config--> Desired
//! --listen … ------flags-----------'                                          `--> errors --render--> text or JSON
//! Desired --named_files--> errors of the files that it names, such as certificates
//! the operator's own file --operator--> Operator, which bounds what caxton.toml may say
//! ```
//!
//! Every value keeps its place, so that an error names the line, the variable or the flag that caused it. The rules and
//! the meaning of settings are in `caxton-control`; this folder only reads the sources and renders errors. The
//! environment is an argument, so that tests need not change that of the process.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod examine;
mod layers;
mod named_files;
mod operator;
mod origins;
mod parts;
mod render;
mod syntax;
#[cfg(test)]
mod tests;
mod toml;
mod variables;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_control::config::{ConfigError, Entry, Operator, Value, check_within};
use caxton_control::{Desired, Digest};
use sha2::Digest as _;

use self::named_files::Places;
use self::origins::Origins;
use self::parts::FileParts;
use self::variables::Variables;
pub(crate) use named_files::TlsTable;
pub(crate) use operator::{LoadedOperator, load_operator};
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
    /// The parts of the file, from which a later one is read faster; `None` if it was read as a whole.
    parts: Option<Arc<FileParts>>,
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

/// Loads the file at `path` without an operator's own file; see [`load_within`].
#[cfg(test)]
pub(crate) fn load(
    path: &Path,
    env: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
) -> Result<Loaded, ConfigErrors> {
    load_within(path, env, flags, &Operator::default())
}

/// Loads the file at `path`, overridden by variables in `env` that begin with `CAXTON_`, and these by `flags` (a key
/// such as `http.listen` and its value). None of it may be looser than what the operator's own file says.
///
/// # Errors
/// All errors at once. Only a file that cannot be read, or is not valid TOML, hides the errors of its settings.
pub(crate) fn load_within(
    path: &Path,
    env: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
    operator: &Operator,
) -> Result<Loaded, ConfigErrors> {
    load_after(None, path, env, flags, operator)
}

/// Loads the file at `path` like [`load_within`]. Of `before`, an earlier state of it, the agents are taken that have not
/// changed.
///
/// # Errors
/// Those of [`load_within`].
pub(crate) fn load_after(
    before: Option<&Loaded>,
    path: &Path,
    env: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
    operator: &Operator,
) -> Result<Loaded, ConfigErrors> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigErrors::unreadable(path, &error))?;
    let text: Arc<str> = text.into();
    let Parsed { desired, origins, mut warnings } = read(&text, env, flags, operator, before)
        .map_err(|errors| ConfigErrors::new(path, Arc::clone(&text), errors))?;
    let dir = folder(path);
    let (errors, mut of_files) = named_files::check(&desired, &origins, &dir);
    warnings.append(&mut desired.warnings());
    warnings.append(&mut of_files);
    let text_digest = Digest(sha2::Sha256::digest(text.as_bytes()).into());
    let report = ConfigErrors::new(path, text, errors);
    let places = named_files::places(&desired, &origins, &report);
    let file_errors = (!report.errors().is_empty()).then_some(report);
    let parts = match origins {
        Origins::Parts(parts) => Some(parts),
        Origins::Whole(_) => None,
    };
    Ok(Loaded { desired, dir, text_digest, file_errors, places, warnings, parts })
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

/// A declaration without errors, with the places of its settings.
#[derive(Debug)]
struct Parsed {
    desired: Desired,
    origins: Origins,
    /// The warnings of the environment.
    warnings: Vec<String>,
}

/// Reads and checks a text, in parts if it has some.
fn read(
    text: &Arc<str>,
    env: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
    operator: &Operator,
    before: Option<&Loaded>,
) -> Result<Parsed, Vec<ConfigError>> {
    let variables = variables::read(env);
    let before = before.map(|before| (before.parts.as_deref(), &before.desired));
    if variables.errors.is_empty()
        && let Some((desired, parts)) = parts::read(text, &variables.settings, flags, operator, before)
    {
        return Ok(Parsed { desired, origins: Origins::Parts(Arc::new(parts)), warnings: variables.warnings });
    }
    parse(text, variables, flags, operator)
}

/// Parses and checks a text as a whole.
fn parse(
    text: &str,
    variables: Variables,
    flags: &[(&str, String)],
    operator: &Operator,
) -> Result<Parsed, Vec<ConfigError>> {
    let Variables { settings, mut errors, warnings } = variables;
    let file = match syntax::parse(text) {
        Ok(file) => file,
        Err(mut broken) => {
            // Reported together, although the settings of a broken file cannot be checked yet.
            broken.append(&mut errors);
            return Err(broken);
        }
    };
    let root = layers::merge(file, settings, flags);
    match check_within(&root, operator) {
        Ok(desired) if errors.is_empty() => Ok(Parsed { desired, origins: Origins::Whole(root), warnings }),
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
