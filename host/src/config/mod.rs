//! From a file, the environment and the command line to [`Desired`].
//!
//! ```text
//! caxton.toml --syntax, toml--.
//! CAXTON_*  -----variables-----+--> layers: figment picks --> Node --caxton_control::config::check--> Desired
//! --listen … ------flags------'                                          `--> errors --render--> text or JSON
//! ```
//!
//! Every value keeps its place, so an error names the line, the variable or the flag that is to blame. What is
//! allowed and what it means is `caxton-control`'s; here is only where it comes from and how errors look. Nothing
//! here reads the environment itself: it is an argument.

mod layers;
mod render;
mod syntax;
#[cfg(test)]
mod tests;
mod toml;
mod variables;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use caxton_control::config::{At, ConfigError, Entry, Place, Value, check};
use caxton_control::{Desired, Digest};
use sha2::Digest as _;

use self::variables::Variables;
pub(crate) use render::ConfigErrors;

/// A configuration without errors.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// What it means.
    pub(crate) desired: Desired,
    /// The folder of the file, absolute: paths in the file start from here.
    pub(crate) dir: PathBuf,
    /// The SHA-256 of the file's bytes, to tell whether the file changed.
    pub(crate) text_digest: Digest,
    /// Harmless oddities of the environment, a line each.
    pub(crate) warnings: Vec<String>,
}

impl Loaded {
    /// Says what is odd, in the log.
    pub(crate) fn tell_warnings(&self) {
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
}

/// Reads the file at `path`, overridden by the variables of `env` that begin with `CAXTON_`, and these by `flags`
/// (a key such as `http.listen` and its value).
///
/// Returns all errors at once; only a file that cannot be read, or is not TOML, hides what else is wrong.
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

/// The components that a file names, by their agents, whatever else is wrong with it; none if it cannot be read. Given
/// as the file has them, with the folder that they start from.
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

/// The folder of a file, absolute.
fn folder(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

/// The same for a text at hand; with what is odd about the environment.
fn parse(
    text: &str,
    env: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&str, String)],
) -> Result<(Desired, Vec<String>), Vec<ConfigError>> {
    let Variables { settings, mut errors, warnings } = variables::read(env);
    let file = match syntax::parse(text) {
        Ok(file) => file,
        Err(mut broken) => {
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

/// Whether an error of this code hides all that a file says.
pub(crate) fn is_unreadable(code: &str) -> bool {
    ["missing-file", "unreadable-file"].contains(&code)
}

/// The error for a file that is not there or cannot be read.
fn unreadable(path: &Path, error: &std::io::Error) -> ConfigErrors {
    let at = At { key: String::new(), place: Place::Default };
    let error = match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::MissingFile { at },
        _ => ConfigError::UnreadableFile { at, reason: error.to_string() },
    };
    ConfigErrors::new(path, String::new(), vec![error])
}
