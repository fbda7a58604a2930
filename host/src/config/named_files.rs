//! The check of the files that a declaration names, and the places where it names them.
//!
//! Apart from the check of the declaration itself, which stays valid when a file beside it breaks: a host that runs
//! keeps what it had of such a file.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use caxton_control::Desired;
use caxton_control::config::{ConfigError, Location};
use caxton_control::desired::{SecretSource, TlsSpec};

use super::origins::Origins;
use super::render::{ConfigErrors, Place};
use crate::folders;
use crate::net::{TlsError, TlsFiles, ca_errors};
use crate::secrets;

/// A table with the TLS of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsTable {
    /// The table `[http.tls]`.
    Http,
    /// The table `[admin.tls]`.
    Admin,
}

impl TlsTable {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Http, Self::Admin];

    /// Returns the path of the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http.tls",
            Self::Admin => "admin.tls",
        }
    }

    /// Returns the table, if the declaration has it.
    pub(crate) fn spec(self, desired: &Desired) -> Option<&TlsSpec> {
        match self {
            Self::Http => desired.http.tls.as_ref(),
            Self::Admin => desired.admin.tls.as_ref(),
        }
    }

    /// Returns the path of the key that names the file of an error.
    pub(crate) fn key(self, error: &TlsError) -> String {
        format!("{}.{}", self.name(), error.file.key())
    }
}

/// The places of the keys that name files, by path.
pub(crate) type Places = BTreeMap<String, Place>;

/// Checks the files. Returns the errors, and warnings of one line each.
pub(super) fn check(desired: &Desired, origins: &Origins, dir: &Path) -> (Vec<ConfigError>, Vec<String>) {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for table in TlsTable::ALL {
        let Some(spec) = table.spec(desired) else { continue };
        let files = TlsFiles::new(spec, dir);
        for error in files.load().err().into_iter().flatten() {
            let key = table.key(&error);
            let at = Location { source: origins.source(&key.split('.').collect::<Vec<_>>()), key };
            errors.push(ConfigError::UnusableFile { at, file: error.path, reason: error.reason, help: error.help });
        }
        if files.is_key_exposed() {
            warnings.push(format!(
                "{}.key: every user of this machine may read `{}`; `chmod o-r` ends that",
                table.name(),
                spec.key
            ));
        }
    }
    for error in ca_errors(&desired.outgoing, dir) {
        let key = format!("{CA}[{}]", error.index);
        let at = Location { source: origins.element(CA, error.index), key };
        let help =
            "it has to have certificates in PEM form; relative paths start from the folder of this file".to_owned();
        errors.push(ConfigError::UnusableFile { at, file: error.file, reason: error.reason, help });
    }
    for spec in desired.agents.values() {
        for grant in &spec.allow.files {
            let Err(fault) = folders::open(grant, dir) else { continue };
            let at = origins.folder(spec.name.as_str(), grant);
            let help = "make the folder, or name another; relative paths start from the folder of this file".to_owned();
            errors.push(ConfigError::UnusableFile { at, file: fault.path, reason: fault.reason, help });
        }
    }
    for (name, found) in &desired.secrets.named {
        let SecretSource::File(path) = found else { continue };
        // Not the group: services are often given a secret by a group of their own.
        let is_exposed = |found: Metadata| found.permissions().mode() & 0o004 != 0;
        if std::fs::metadata(dir.join(path)).is_ok_and(is_exposed) {
            warnings.push(format!(
                "secrets.{name}.file: every user of this machine may read `{path}`; `chmod o-r` ends that"
            ));
        }
    }
    for error in secrets::read(desired, dir).errors {
        let at = Location { source: origins.source(&error.path), key: error.path.join(".") };
        let (reason, help) = (error.reason, error.help.to_owned());
        errors.push(match error.name.is_empty() {
            false => ConfigError::UnusableSecret { at, name: error.name, reason, help },
            true => {
                ConfigError::UnusableFile { at, file: desired.secrets.folder.clone().unwrap_or_default(), reason, help }
            }
        });
    }
    errors.sort_by(|one, other| one.at().source.cmp(&other.at().source));
    (errors, warnings)
}

/// Returns the places of all keys that name files.
pub(super) fn places(desired: &Desired, origins: &Origins, text: &ConfigErrors) -> Places {
    let tables = TlsTable::ALL.into_iter().filter(|table| table.spec(desired).is_some());
    let of_tls = tables.flat_map(|table| {
        let key = |key: &str| table.name().split('.').chain([key]).map(str::to_owned).collect();
        ["cert", "key", "client-ca"].map(key)
    });
    let of_secrets = desired.secrets.named.iter().map(|(name, found)| {
        let key = match found {
            SecretSource::Env(_) => "env",
            SecretSource::File(_) => "file",
            SecretSource::Command(_) => "command",
        };
        ["secrets", name, key].map(str::to_owned).to_vec()
    });
    let of_folder = desired.secrets.folder.iter().map(|_| ["secrets", "folder"].map(str::to_owned).to_vec());
    let of_issuers = std::iter::once(CA.split('.').map(str::to_owned).collect());
    let paths = of_tls.chain(of_secrets).chain(of_folder).chain(of_issuers);
    let found = paths.map(|path: Vec<String>| (path.join("."), origins.source(&path)));
    let found = found.chain(origins.of_agents(desired));
    found.map(|(key, source)| (key, text.place(&source))).collect()
}

/// The key of the files with issuers that calls trust.
const CA: &str = "outgoing.ca";
