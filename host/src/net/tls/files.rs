//! The files of a listener's TLS, and the configuration that is made of them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_control::desired::TlsSpec;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};

use super::{TlsInForce, fingerprint};

/// The largest file in bytes. The bundle with all roots of a system has a quarter of it.
const MAX_FILE: u64 = 1 << 20;
/// The protocols for ALPN, in the order of the host's preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A file of a listener's TLS, by its key in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsFile {
    /// The certificate, with those between it and its root.
    Cert,
    /// The private key of the certificate.
    Key,
    /// The certificates of those that issue certificates to clients.
    ClientCa,
}

impl TlsFile {
    /// Returns the key of the file in the table `tls`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Cert => "cert",
            Self::Key => "key",
            Self::ClientCa => "client-ca",
        }
    }
}

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {reason}")]
pub(crate) struct TlsError {
    pub(crate) file: TlsFile,
    /// The path as written in the declaration.
    pub(crate) path: String,
    /// The reason, which follows the path in a sentence.
    pub(crate) reason: String,
    /// The remedy.
    pub(crate) help: String,
}

/// The paths of a listener's files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlsFiles<'a> {
    spec: &'a TlsSpec,
    /// The folder that relative paths start from.
    dir: &'a Path,
}

impl<'a> TlsFiles<'a> {
    /// Names the files of `spec`, whose relative paths start from `dir`.
    pub(crate) fn new(spec: &'a TlsSpec, dir: &'a Path) -> Self {
        Self { spec, dir }
    }

    /// Returns the absolute paths of all files.
    pub(crate) fn paths(self) -> impl Iterator<Item = PathBuf> {
        let written = [Some(&self.spec.cert), Some(&self.spec.key), self.spec.client_ca.as_ref()];
        written.into_iter().flatten().map(move |path| self.dir.join(path))
    }

    /// Returns `true` if every user of this machine may read the private key.
    pub(crate) fn is_key_exposed(self) -> bool {
        let found = std::fs::metadata(self.dir.join(&self.spec.key));
        // Not the group: services are often given a key by a group of their own.
        found.is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
    }

    /// Reads all files and builds the configuration of a listener. Returns all errors at once.
    pub(crate) fn load(self) -> Result<TlsInForce, Vec<TlsError>> {
        self.read().and_then(TlsMaterial::into_config)
    }

    /// Reads all files. Returns all errors at once.
    pub(crate) fn read(self) -> Result<TlsMaterial, Vec<TlsError>> {
        let read = |file: TlsFile, path: &str| read(file, path, self.dir);
        let cert = read(TlsFile::Cert, &self.spec.cert);
        let key = read(TlsFile::Key, &self.spec.key);
        let client_ca = self.spec.client_ca.as_ref().map(|path| read(TlsFile::ClientCa, path)).transpose();
        match (cert, key, client_ca) {
            (Ok(cert), Ok(key), Ok(client_ca)) => Ok(TlsMaterial { spec: self.spec.clone(), cert, key, client_ca }),
            (cert, key, client_ca) => Err([cert.err(), key.err(), client_ca.err()].into_iter().flatten().collect()),
        }
    }
}

/// The contents of a listener's files.
pub(crate) struct TlsMaterial {
    spec: TlsSpec,
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl TlsMaterial {
    /// Returns the SHA-256 of the contents.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for content in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            // With their lengths, so that bytes cannot move from one file to the next unnoticed.
            hash.update(content.map_or(u64::MAX, |content| content.len() as u64).to_le_bytes());
            hash.update(content.map_or(&[][..], Vec::as_slice));
        }
        hash.finalize().into()
    }

    /// Builds the configuration of a listener. Returns all errors at once.
    pub(crate) fn into_config(self) -> Result<TlsInForce, Vec<TlsError>> {
        let provider = Arc::new(ring::default_provider());
        let chain = self.chain();
        let key = self.private_key();
        let clients = self.client_verifier(&provider);
        let (chain, key, clients) = match (chain, key, clients) {
            (Ok(chain), Ok(key), Ok(clients)) => (chain, key, clients),
            (chain, key, clients) => {
                return Err([chain.err(), key.err(), clients.err()].into_iter().flatten().collect());
            }
        };
        let fingerprint = chain.first().map(|own| fingerprint(own)).unwrap_or_default();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| vec![self.pair_error(&error)])?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has cipher suites for both versions of TLS");
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        // Tickets hold the state of a session, so that none is kept here for each client. Their keys belong to this
        // configuration: a client whose issuer is no longer trusted cannot resume.
        if let Ok(ticketer) = ring::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Ok(TlsInForce { config: Arc::new(config), digest: self.digest(), fingerprint })
    }

    /// Parses the certificate and those that follow it.
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        self.certificates(TlsFile::Cert, &self.cert)
    }

    fn certificates(&self, file: TlsFile, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
        match all {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) if PrivateKeyDer::from_pem_slice(content).is_ok() => {
                Err(self.error(file, "has a private key, and no certificate", "the certificate belongs here, and its key into `key`"))
            }
            Ok(_) => Err(self.error(
                file,
                "has no certificate",
                "the file begins with `-----BEGIN CERTIFICATE-----`; `openssl x509 -inform der -in FILE` makes it of the \
                 binary form",
            )),
            Err(error) => Err(self.error(file, format!("is not in PEM form: {error}"), "put the whole file there again")),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let error = match PrivateKeyDer::from_pem_slice(&self.key) {
            Ok(key) => return Ok(key),
            Err(error) => error,
        };
        let has = |kind: &str| String::from_utf8_lossy(&self.key).contains(&format!("-----BEGIN {kind}-----"));
        let encrypted =
            has("ENCRYPTED PRIVATE KEY") || String::from_utf8_lossy(&self.key).contains("Proc-Type: 4,ENCRYPTED");
        Err(if encrypted {
            let help = "the host has nobody to ask for the passphrase; `openssl pkey -in FILE -out FILE` removes it";
            self.error(TlsFile::Key, "is protected by a passphrase", help)
        } else if has("CERTIFICATE") {
            self.error(
                TlsFile::Key,
                "has a certificate, and no private key",
                "the key belongs here, and the certificate into `cert`",
            )
        } else if matches!(error, rustls::pki_types::pem::Error::NoItemsFound) {
            self.error(
                TlsFile::Key,
                "has no private key",
                "the file has `-----BEGIN PRIVATE KEY-----`, for RSA and EC keys also `RSA` or `EC` in it",
            )
        } else {
            self.error(TlsFile::Key, format!("is not in PEM form: {error}"), "put the whole file there again")
        })
    }

    /// Builds the verifier of client certificates; `None` if clients need none.
    fn client_verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let Some(content) = &self.client_ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(TlsFile::ClientCa, content)? {
            roots.add(certificate).map_err(|error| {
                let reason = format!("has a certificate that cannot be used: {error}");
                self.error(TlsFile::ClientCa, reason, "the certificate of an issuer belongs here")
            })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider)).build();
        verifier.map(Some).map_err(|error| {
            self.error(
                TlsFile::ClientCa,
                format!("cannot be used: {error}"),
                "the certificate of an issuer belongs here",
            )
        })
    }

    /// Creates the error of a certificate and a key that cannot be used together.
    fn pair_error(&self, error: &rustls::Error) -> TlsError {
        match error {
            rustls::Error::InconsistentKeys(_) => self.error(
                TlsFile::Key,
                format!("is not the key of the certificate in `{}`", self.spec.cert),
                "a renewal replaces both; put the two that were made together there",
            ),
            rustls::Error::InvalidCertificate(why) => self.error(
                TlsFile::Cert,
                format!("has a certificate that cannot be used: {why:?}"),
                "put the whole file there again",
            ),
            _ => self.error(
                TlsFile::Key,
                format!("has a key that cannot be used: {error}"),
                "RSA from 2,048 bits, ECDSA on P-256, P-384 or P-521, and Ed25519 can be used",
            ),
        }
    }

    fn error(&self, file: TlsFile, reason: impl Into<String>, help: &str) -> TlsError {
        let path = match file {
            TlsFile::Cert => &self.spec.cert,
            TlsFile::Key => &self.spec.key,
            TlsFile::ClientCa => self.spec.client_ca.as_ref().unwrap_or(&self.spec.cert),
        };
        TlsError { file, path: path.clone(), reason: reason.into(), help: help.to_owned() }
    }
}

/// Reads a file of at most [`MAX_FILE`] bytes.
fn read(file: TlsFile, written: &str, dir: &Path) -> Result<Vec<u8>, TlsError> {
    let wrong =
        |reason: String, help: &str| Err(TlsError { file, path: written.to_owned(), reason, help: help.to_owned() });
    let mut content = Vec::new();
    // One byte more, to tell a larger file from one of exactly this size.
    let mut read = || {
        let path = dir.join(written);
        // Asked before it is opened: opening a pipe would wait for its writer.
        if !std::fs::metadata(&path)?.is_file() {
            return Err(ErrorKind::InvalidInput.into());
        }
        File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)
    };
    match read() {
        Ok(_) if content.len() as u64 > MAX_FILE => {
            wrong(format!("is larger than {MAX_FILE} bytes"), "a file in PEM form belongs here")
        }
        Ok(_) => Ok(content),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            wrong("is not there".to_owned(), "relative paths start from the folder of this file")
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            wrong("may not be read by the user of the host".to_owned(), "let this user or its group read the file")
        }
        Err(error) if error.kind() == ErrorKind::InvalidInput => {
            wrong("is not a file".to_owned(), "a file in PEM form belongs here")
        }
        Err(error) => wrong(format!("cannot be read: {error}"), "a file in PEM form belongs here"),
    }
}
