//! The reading of secrets from their sources.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_control::Desired;
use caxton_control::desired::{SecretSource, SecretsSpec};
use caxton_control::secret::{is_secret_name, names_in};

use super::command;
use super::values::{SecretValue, SecretValues};

/// The largest secret in bytes.
const MAX_VALUE: u64 = 64 << 10;
/// The most files of a folder that are read.
const MAX_FILES: usize = 1_000;

/// A secret that has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretError {
    /// The keys from the root to the setting that is to be changed, such as `secrets`, `openai`, `file`.
    pub(crate) path: Vec<String>,
    /// The name of the secret; empty for the folder as a whole.
    pub(crate) name: String,
    /// The reason. It has no part of the value.
    pub(crate) reason: String,
    /// The remedy.
    pub(crate) help: &'static str,
}

/// The result of reading.
#[derive(Debug, Default)]
pub(crate) struct SecretsRead {
    pub(crate) values: SecretValues,
    pub(crate) errors: Vec<SecretError>,
}

/// Returns the files and folders that are read.
pub(crate) fn files(spec: &SecretsSpec, dir: &Path) -> impl Iterator<Item = PathBuf> {
    let named = spec.named.values().filter_map(|source| match source {
        SecretSource::File(file) => Some(dir.join(file)),
        SecretSource::Env(_) | SecretSource::Command(_) => None,
    });
    let folder = spec.folder.iter().map(|folder| dir.join(folder));
    // With the files that it has now: a file that is added is read when it is referred to.
    let inside = folder.clone().flat_map(|folder| names(&folder).into_iter().map(move |name| folder.join(name)));
    named.chain(inside).collect::<Vec<_>>().into_iter().chain(folder.collect::<Vec<_>>())
}

/// Reads all secrets but those that a command prints. Relative paths start from `dir`.
pub(crate) fn read(desired: &Desired, dir: &Path) -> SecretsRead {
    let mut read = SecretsRead::default();
    let spec = &desired.secrets;
    if let Some(folder) = &spec.folder {
        read_folder(desired, folder, &dir.join(folder), &mut read);
    }
    for (name, source) in &spec.named {
        match source {
            SecretSource::Env(variable) => read.add(
                name,
                "env",
                from_variable(variable),
                "set the variable for the host, such as in the unit of systemd or the manifest of the container",
            ),
            SecretSource::File(file) => {
                let help = "relative paths start from the folder of this file";
                read.add(name, "file", from_file(&dir.join(file), file), help);
            }
            SecretSource::Command(_) => {}
        }
    }
    read
}

/// Runs the commands that print secrets, in `dir`, and adds what they print.
pub(crate) async fn run_commands(spec: &SecretsSpec, dir: &Path, read: &mut SecretsRead) {
    let commands = spec.named.iter().filter_map(|(name, source)| match source {
        SecretSource::Command(line) => Some((name, line)),
        SecretSource::Env(_) | SecretSource::File(_) => None,
    });
    let running = commands.map(|(name, line)| async move { (name, command::run(line, dir, MAX_VALUE).await) });
    // All at once, so that together they take no longer than the slowest.
    for (name, output) in futures::future::join_all(running).await {
        let result = output.and_then(|bytes| from_bytes(bytes, "what its command prints"));
        read.add(name, "command", result, "try the command by hand, as the user of the host");
    }
}

impl SecretsRead {
    fn add(&mut self, name: &str, key: &str, result: Result<SecretValue, String>, help: &'static str) {
        match result {
            Ok(value) => _ = self.values.insert(name.to_owned(), value),
            Err(reason) => {
                let path = ["secrets", name, key].map(str::to_owned).to_vec();
                self.errors.push(SecretError { path, name: name.to_owned(), reason, help });
            }
        }
    }
}

/// Reads the files of a folder. Those that an agent refers to have to be there.
fn read_folder(desired: &Desired, written: &str, folder: &Path, read: &mut SecretsRead) {
    if let Err(error) = std::fs::read_dir(folder) {
        let reason = format!("cannot be read: {error}");
        let help = "relative paths start from the folder of this file";
        let path = ["secrets", "folder"].map(str::to_owned).to_vec();
        read.errors.push(SecretError { path, name: String::new(), reason, help });
        return;
    }
    let mut wanted = BTreeSet::new();
    for spec in desired.agents.values() {
        let of_config = spec
            .config
            .iter()
            .flat_map(|(key, text)| names_in([text]).into_iter().map(move |name| (name, ["config", key.as_str()])));
        let of_calls = spec.allow.secrets().into_iter().map(|name| (name, ["allow", "http"]));
        for (name, [table, key]) in of_config.chain(of_calls) {
            if !desired.secrets.named.contains_key(&name) && wanted.insert(name.clone()) {
                match from_file(&folder.join(&name), &format!("{written}/{name}")) {
                    Ok(value) => _ = read.values.insert(name, value),
                    Err(reason) => {
                        let path = ["agents", spec.name.as_str(), table, key].map(str::to_owned).to_vec();
                        let help = "put the file there, or declare the secret in `[secrets]`";
                        read.errors.push(SecretError { path, name, reason, help });
                    }
                }
            }
        }
    }
    // Revisions that are kept for an undo may refer to others.
    for name in names(folder) {
        if !wanted.contains(&name)
            && let Ok(value) = from_file(&folder.join(&name), &name)
        {
            read.values.insert(name, value);
        }
    }
}

/// Returns the names of the files in a folder that can be secrets.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_secret_name(name)).take(MAX_FILES).collect();
    names.sort();
    names
}

fn from_variable(name: &str) -> Result<SecretValue, String> {
    match std::env::var_os(name) {
        None => Err(format!("the variable {name} is not set")),
        Some(value) => from_bytes(value.into_encoded_bytes(), &format!("the variable {name}")),
    }
}

fn from_file(path: &Path, written: &str) -> Result<SecretValue, String> {
    let mut content = Vec::new();
    // Asked before it is opened: opening a pipe would wait for its writer.
    let mut read = || {
        if !std::fs::metadata(path)?.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        File::open(path)?.take(MAX_VALUE + 1).read_to_end(&mut content)
    };
    match read() {
        Ok(_) => from_bytes(content, &format!("`{written}`")),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("`{written}` is not there")),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Err(format!("`{written}` is not a file")),
        Err(error) => Err(format!("`{written}` cannot be read: {error}")),
    }
}

/// Makes a value of bytes, without one line feed at the end, which editors and commands add.
fn from_bytes(bytes: Vec<u8>, what: &str) -> Result<SecretValue, String> {
    if bytes.len() as u64 > MAX_VALUE {
        return Err(format!("{what} is larger than {MAX_VALUE} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("{what} is no text in UTF-8"))?;
    let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    Ok(SecretValue(Arc::from(text)))
}
