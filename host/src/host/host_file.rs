//! The addresses of a host, and the files by which scripts and commands find them.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file in the data folder through which commands find the running host.
pub(crate) const HOST_FILE: &str = "host.json";

/// The addresses of a host, as written to the ports file.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Ports {
    pub(super) http: SocketAddr,
    /// The management API.
    pub(super) admin: SocketAddr,
    /// Probes and metrics only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) probes: Option<SocketAddr>,
    /// The schemes of the first two, for the log.
    #[serde(skip)]
    pub(super) schemes: Schemes,
}

/// The schemes of URLs at the listeners.
#[derive(Debug, Clone, Default)]
pub(super) struct Schemes {
    pub(super) http: &'static str,
    pub(super) admin: &'static str,
}

/// Returns the content of [`HOST_FILE`]. `admin_certificate` is the fingerprint of the management API's certificate.
pub(super) fn host_file(ports: &Ports, admin_certificate: Option<&str>) -> String {
    // The process id lets a command name the host that does not answer.
    let mut host = serde_json::json!({ "http": ports.http, "admin": ports.admin, "pid": std::process::id() });
    if let Some(probes) = ports.probes {
        host["probes"] = probes.to_string().into();
    }
    // A command on this machine trusts this certificate alone, whatever names it has and whoever issued it.
    if let Some(fingerprint) = admin_certificate {
        host["admin_certificate"] = fingerprint.into();
    }
    host.to_string()
}

/// Writes a file that only its owner can read. It is renamed into place, so that readers never see a part of it.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    // Before the rename: after a power cut the name must not lead to an empty file.
    file.sync_all()?;
    std::fs::rename(temporary, path)
}
