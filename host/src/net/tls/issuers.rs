//! The issuers of certificates that calls of agents trust: those of the system, and those in the files of `outgoing.ca`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_control::outgoing::OutgoingSpec;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The largest file in bytes. The bundle with all roots of a system has a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// A file of `outgoing.ca` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{file}` {reason}")]
pub(crate) struct CaError {
    /// The index of the file in the list.
    pub(crate) index: usize,
    /// The path as written in the declaration.
    pub(crate) file: String,
    /// The reason, which follows the path in a sentence.
    pub(crate) reason: String,
}

/// Returns the files that are read.
pub(crate) fn ca_files(spec: &OutgoingSpec, dir: &Path) -> impl Iterator<Item = PathBuf> {
    spec.ca.iter().map(|file| dir.join(file)).collect::<Vec<_>>().into_iter()
}

/// Returns the errors of the files.
pub(crate) fn ca_errors(spec: &OutgoingSpec, dir: &Path) -> Vec<CaError> {
    read_ca(spec, dir).err().unwrap_or_default()
}

/// Reads the files.
///
/// # Errors
/// All files that cannot be used.
pub(crate) fn read_ca(spec: &OutgoingSpec, dir: &Path) -> Result<Vec<CertificateDer<'static>>, Vec<CaError>> {
    let (mut certificates, mut errors) = (Vec::new(), Vec::new());
    for (index, file) in spec.ca.iter().enumerate() {
        match read_file(&dir.join(file)) {
            Ok(found) => certificates.extend(found),
            Err(reason) => errors.push(CaError { index, file: file.clone(), reason }),
        }
    }
    if errors.is_empty() { Ok(certificates) } else { Err(errors) }
}

fn read_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !found.is_file() {
        return Err("is not a file".to_owned());
    }
    if found.len() > MAX_FILE {
        return Err(format!("has {} bytes, more than {MAX_FILE}", found.len()));
    }
    let content = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    let certificates = certificates.map_err(|error| format!("has a part that is no PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("has no certificate in PEM form".to_owned());
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| format!("has a certificate that cannot be used: {error}"))?;
    }
    Ok(certificates)
}

/// Makes the configuration of connections. Reads the issuers of the system, which takes some milliseconds.
pub(crate) fn calls_config(own: &[CertificateDer<'static>]) -> ClientConfig {
    let system = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems have certificates that no verifier takes; the others still count.
    let (taken, _) = roots.add_parsable_certificates(system.certs);
    roots.add_parsable_certificates(own.iter().cloned());
    if taken == 0 {
        let why = system.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        tracing::warn!(
            "this system has no certificates of issuers{why}: calls over https trust those of outgoing.ca only"
        );
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has cipher suites for both versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
