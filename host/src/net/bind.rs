//! The binding of the sockets that listeners accept on.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

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
