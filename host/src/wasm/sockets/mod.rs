//! TCP for guests: `wasi:sockets` with connections to the places that `allow.tcp` grants, and nothing else.
//!
//! The interfaces are implemented here and not by the engine's crate, whose sockets connect by themselves: here the host
//! makes the connection, within its bounds, and closes it with the message. Guests listen on nothing and send no datagrams.

pub(in crate::wasm) mod known_names;
mod names;
mod streams;
mod tcp;

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::SocketError;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, Network};
use wasmtime_wasi::p2::bindings::sockets::{ip_name_lookup, tcp as tcp_interface, tcp_create_socket};
use wasmtime_wasi::sockets::WasiSocketsView;

use crate::message::{CallContext, CommitMode, TcpError};
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::outbound::DeniedAccess;

impl Ctx {
    /// Returns the context of the call, if the guest may connect in it. `what` is what it does otherwise.
    fn connecting(&self, kind: DeniedAccess, what: &str) -> Result<&CallContext, ErrorCode> {
        if self.who.spec.allow.tcp.is_empty() {
            self.deny(kind, || {
                format!("{what}, which was denied: `allow.tcp` lists the places that it may connect to, and has none")
            });
            return Err(ErrorCode::AccessDenied);
        }
        // A migration may be repeated, and is rehearsed.
        let handles = |work: &&CallContext| !matches!(work.commit_mode, CommitMode::InSteps(_));
        self.work.as_ref().filter(handles).ok_or_else(|| {
            self.deny(DeniedAccess::Connecting, || {
                format!("{what}, which was denied: an agent connects while it handles a message or a request, and not while \
                         it starts, checks itself, saves or converts its state")
            });
            ErrorCode::AccessDenied
        })
    }
}

/// Returns the code of the standard for an error.
fn code(error: &TcpError) -> ErrorCode {
    match error {
        TcpError::Denied => ErrorCode::AccessDenied,
        TcpError::Unresolvable(_) => ErrorCode::NameUnresolvable,
        TcpError::Refused => ErrorCode::ConnectionRefused,
        TcpError::Timeout | TcpError::TimeOver => ErrorCode::Timeout,
        TcpError::Unreachable(_) => ErrorCode::RemoteUnreachable,
        TcpError::TooMany => ErrorCode::NewSocketLimit,
    }
}

impl network::Host for Ctx {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets(), error)
    }
}

impl network::HostNetwork for Ctx {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets(), network)
    }
}

/// Replaces the interfaces for TCP and names. Called after the originals are defined.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    // The originals are defined already, and defining them again is an error otherwise.
    linker.allow_shadowing(true);
    tcp_interface::add_to_linker::<_, HasSelf<_>>(linker, |ctx: &mut Ctx| ctx)?;
    tcp_create_socket::add_to_linker::<_, HasSelf<_>>(linker, |ctx: &mut Ctx| ctx)?;
    ip_name_lookup::add_to_linker::<_, HasSelf<_>>(linker, |ctx: &mut Ctx| ctx)?;
    linker.allow_shadowing(false);
    Ok(())
}
