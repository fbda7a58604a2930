//! TLS at a listener: its files, its configuration, and the handshake of a connection.
//!
//! ```text
//! files: read cert, key, client-ca -> material -> rustls::ServerConfig --.
//!                                                                        v
//! listener: accept -> handshake (bounded as the first head is) <- ListenerTls: the configuration in force
//! ```
//! A replaced certificate is a new configuration for later connections; open ones keep the one that they began with.

mod files;
mod handshake;
mod issuers;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use sha2::{Digest, Sha256};

pub(crate) use files::{TlsError, TlsFiles, TlsMaterial};
pub(super) use handshake::accept;
pub(crate) use issuers::{CaError, ca_errors, ca_files, calls_config, read_ca};

/// The TLS of a listener, which new connections read and a reload replaces.
pub(crate) struct ListenerTls(ArcSwap<TlsInForce>);

/// The certificate and the configuration in force.
pub(crate) struct TlsInForce {
    pub(super) config: Arc<ServerConfig>,
    /// The SHA-256 of the contents of all files, by which a change is noticed.
    pub(crate) digest: [u8; 32],
    /// The SHA-256 of the listener's own certificate, in hexadecimal digits.
    pub(crate) fingerprint: String,
}

impl ListenerTls {
    /// Creates the TLS of a listener.
    pub(crate) fn new(first: TlsInForce) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(first)))
    }

    /// Returns the configuration in force.
    pub(crate) fn current(&self) -> Arc<TlsInForce> {
        self.0.load_full()
    }

    /// Replaces the configuration for new connections.
    pub(crate) fn replace(&self, next: TlsInForce) {
        self.0.store(Arc::new(next));
    }
}

/// Returns the SHA-256 of a certificate in DER form, in hexadecimal digits.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect()
}
