//! The binding of the sockets that listeners accept on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::tls::ListenerTls;

/// The error of a socket that cannot be bound, with the ways to choose another address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The port is in use.
    #[error(
        "{setting}: the port of {address} is in use by another program; stop that one, or choose another with `{flag} {}:0` or in the file",
        address.ip()
    )]
    InUse { setting: &'static str, flag: &'static str, address: SocketAddr },
    /// The system refuses for another reason.
    // No `source`: the system's error stands in the middle of the text, before the way out.
    #[error("{setting}: listening on {address}: {error}; choose another with `{flag} ADDR` or in the file")]
    Refused { setting: &'static str, flag: &'static str, address: SocketAddr, error: io::Error },
}

/// A bound socket, which does not accept connections yet, with the TLS that is spoken on it.
pub(crate) struct BoundListener {
    pub(super) socket: TcpListener,
    /// TLS; `None` for plain HTTP.
    pub(super) tls: Option<Arc<ListenerTls>>,
}

impl BoundListener {
    /// Joins a socket with its TLS.
    pub(crate) fn new(socket: TcpListener, tls: Option<Arc<ListenerTls>>) -> Self {
        Self { socket, tls }
    }

    /// Returns a second listener on the same socket. Each connection comes to one of them.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let socket = std::net::TcpListener::from(self.socket.as_fd().try_clone_to_owned()?);
        Ok(Self { socket: TcpListener::from_std(socket)?, tls: self.tls.clone() })
    }

    /// Returns the address that the system has chosen or confirmed.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Returns `true` if the listener speaks TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// Binds the address of a setting, which `flag` overrides on the command line.
pub(crate) async fn bind(
    setting: &'static str,
    flag: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { setting, flag, address },
        _ => BindError::Refused { setting, flag, address, error },
    })
}
