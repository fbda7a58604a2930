//! The addresses of a host, and the files by which scripts and commands find them.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::lacks_room;

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

impl Ports {
    /// Logs where the host listens.
    pub(super) fn log(&self) {
        let probes = self.probes.map_or_else(String::new, |probes| format!("   probes: http://{probes}"));
        let Self { http, admin, schemes, .. } = self;
        tracing::info!("calls: {}://{http}   management: {}://{admin}{probes}", schemes.http, schemes.admin);
    }
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

/// The interval at which a write is tried again on a full disk. A probe of an orchestrator comes about as often.
pub(super) const ROOM_RETRY: Duration = Duration::from_secs(1);

/// Writes [`HOST_FILE`]. On a full disk this goes on in the background until there is room or the host stops: a host that
/// runs there answers, and its commands have `--admin`.
///
/// # Errors
/// It cannot be written for another reason.
pub(super) fn write_host_file(
    path: PathBuf,
    text: impl Fn() -> String + Send + 'static,
    stop: CancellationToken,
) -> std::io::Result<()> {
    match write_private(&path, &text()) {
        Err(error) if lacks_room(&error) => {
            tracing::error!(
                "{} cannot be written ({error}): commands find this host with `--admin` only, until there is room on the disk",
                path.display()
            );
        }
        written => return written,
    }
    tokio::spawn(async move {
        while tokio::time::timeout(ROOM_RETRY, stop.cancelled()).await.is_err() {
            // Only for want of room, which may come at any time.
            if write_private(&path, &text()).is_ok() {
                return;
            }
        }
    });
    Ok(())
}

/// Writes a file that only its owner can read. It is renamed into place, so that readers never see a part of it.
pub(super) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    // Left by a host that was killed. Removed and made anew: a name that is there could be a link to another file.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    // Before the rename: after a power cut the name must not lead to an empty file.
    file.sync_all()?;
    std::fs::rename(temporary, path)
}
