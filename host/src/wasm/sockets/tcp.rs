//! Sockets of guests: from their making to a connection.

use std::net::{IpAddr, Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{Host, HostTcpSocket, ShutdownType, TcpSocket};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, Pollable, SocketError, SocketResult, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::code;
use super::streams::{SocketReader, SocketWriter};
use crate::message::{GuestConnect, TcpConnection, TcpError};
use crate::outgoing::is_reachable;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::outbound::DeniedAccess;

/// The sockets that a guest may have at once.
const MAX_SOCKETS: usize = 128;
/// The bytes that the host holds for each: what a server does not take, and the buffers of the system beside it.
const BYTES: u64 = 64 << 10;

/// A socket of a guest.
pub(super) struct GuestSocket {
    family: IpAddressFamily,
    state: SocketState,
}

enum SocketState {
    New,
    /// The host makes the connection.
    Connecting(AbortOnDropJoinHandle<Result<Arc<TcpConnection>, TcpError>>),
    /// The connection was made, or not, and the guest has not asked yet.
    Settled(Result<Arc<TcpConnection>, TcpError>),
    Connected(Arc<TcpConnection>),
    Failed,
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestSocket {
    async fn ready(&mut self) {
        if let SocketState::Connecting(task) = &mut self.state {
            self.state = SocketState::Settled(task.await);
        }
    }
}

/// Returns the entry of the table for a handle, which the generated bindings know by another type.
fn own(handle: &Resource<TcpSocket>) -> Resource<GuestSocket> {
    Resource::new_borrow(handle.rep())
}

impl Ctx {
    fn connection(&self, handle: &Resource<TcpSocket>) -> SocketResult<Arc<TcpConnection>> {
        match &self.table.get(&own(handle))?.state {
            SocketState::Connected(connection) => Ok(Arc::clone(connection)),
            SocketState::New | SocketState::Connecting(_) | SocketState::Settled(_) | SocketState::Failed => {
                Err(ErrorCode::InvalidState.into())
            }
        }
    }

    /// Reads or sets an option of a socket that is connected.
    fn option<T>(
        &self,
        handle: &Resource<TcpSocket>,
        use_it: impl FnOnce(Arc<TcpStream>) -> rustix::io::Result<T>,
    ) -> SocketResult<T> {
        let stream = self.connection(handle)?.stream().ok_or(ErrorCode::InvalidState)?;
        use_it(stream).map_err(|error| SocketError::from(std::io::Error::from(error)))
    }
}

impl tcp_create_socket::Host for Ctx {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        self.connecting(DeniedAccess::Tcp, "it asked for a TCP socket")?;
        let count = self.table.iter_mut().filter(|entry| entry.is::<GuestSocket>()).count() + 1;
        if count > MAX_SOCKETS {
            return Err(ErrorCode::NewSocketLimit.into());
        }
        let held = count as u64 * BYTES;
        // Within a call it only grows, as for other resources.
        if held > self.resources.bytes() {
            self.resources.hold(held);
        }
        let handle = self.table.push(GuestSocket { family, state: SocketState::New })?;
        Ok(Resource::new_own(handle.rep()))
    }
}

impl Host for Ctx {}

impl HostTcpSocket for Ctx {
    async fn start_bind(
        &mut self,
        handle: Resource<TcpSocket>,
        _: Resource<Network>,
        _: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&own(&handle))?;
        // Connections begin at an address that the system chooses.
        Err(ErrorCode::AccessDenied.into())
    }

    fn finish_bind(&mut self, _: Resource<TcpSocket>) -> SocketResult<()> {
        Err(ErrorCode::NotInProgress.into())
    }

    fn start_connect(
        &mut self,
        handle: Resource<TcpSocket>,
        network: Resource<Network>,
        address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let address = SocketAddr::from(address);
        let socket = self.table.get(&own(&handle))?;
        match socket.state {
            SocketState::New => {}
            SocketState::Connecting(_) | SocketState::Settled(_) => return Err(ErrorCode::ConcurrencyConflict.into()),
            SocketState::Connected(_) | SocketState::Failed => return Err(ErrorCode::InvalidState.into()),
        }
        let is_of_family = match (socket.family, address.ip()) {
            (IpAddressFamily::Ipv4, IpAddr::V4(_)) => true,
            // A mapped one is of the other family, and would be decided on as such.
            (IpAddressFamily::Ipv6, IpAddr::V6(ip)) => ip.to_ipv4_mapped().is_none(),
            (IpAddressFamily::Ipv4, IpAddr::V6(_)) | (IpAddressFamily::Ipv6, IpAddr::V4(_)) => false,
        };
        if !is_of_family || !is_reachable(address) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let work = self.connecting(DeniedAccess::Tcp, &format!("it connected to `{address}`"))?.clone();
        let call = GuestConnect { address, names: self.reach.names.of(address.ip()), scope: self.outbound.scope() };
        let host = work.host.clone().unwrap_or_else(|| Arc::clone(&self.host));
        let connecting = host.connect(&self.who, &work, call);
        // A task, so that it goes on while the guest waits for something else.
        self.table.get_mut(&own(&handle))?.state = SocketState::Connecting(spawn(connecting));
        Ok(())
    }

    fn finish_connect(
        &mut self,
        handle: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.table.get_mut(&own(&handle))?;
        if let SocketState::Connecting(task) = &mut socket.state {
            let polled = Pin::new(task).poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(made) = polled else { return Err(ErrorCode::WouldBlock.into()) };
            socket.state = SocketState::Settled(made);
        }
        let connection = match std::mem::replace(&mut socket.state, SocketState::Failed) {
            SocketState::Settled(Ok(connection)) => connection,
            SocketState::Settled(Err(error)) => return Err(code(&error).into()),
            other => {
                socket.state = other;
                return Err(ErrorCode::NotInProgress.into());
            }
        };
        socket.state = SocketState::Connected(Arc::clone(&connection));
        let input: DynInputStream = Box::new(SocketReader { connection: Arc::clone(&connection), is_over: false });
        let output: DynOutputStream = Box::new(SocketWriter::new(connection));
        let input = self.table.push_child(input, &own(&handle))?;
        let output = self.table.push_child(output, &own(&handle))?;
        Ok((input, output))
    }

    async fn start_listen(&mut self, handle: Resource<TcpSocket>) -> SocketResult<()> {
        self.table.get(&own(&handle))?;
        Err(ErrorCode::AccessDenied.into())
    }

    fn finish_listen(&mut self, _: Resource<TcpSocket>) -> SocketResult<()> {
        Err(ErrorCode::NotInProgress.into())
    }

    fn accept(
        &mut self,
        _: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        // None listens.
        Err(ErrorCode::InvalidState.into())
    }

    fn local_address(&mut self, handle: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.connection(&handle)?.local.into())
    }

    fn remote_address(&mut self, handle: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(self.connection(&handle)?.peer.into())
    }

    fn is_listening(&mut self, _: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(false)
    }

    fn address_family(&mut self, handle: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&own(&handle))?.family)
    }

    fn set_listen_backlog_size(&mut self, _: Resource<TcpSocket>, _: u64) -> SocketResult<()> {
        Err(ErrorCode::NotSupported.into())
    }

    fn keep_alive_enabled(&mut self, handle: Resource<TcpSocket>) -> SocketResult<bool> {
        self.option(&handle, sockopt::socket_keepalive)
    }

    fn set_keep_alive_enabled(&mut self, handle: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        self.option(&handle, |stream| sockopt::set_socket_keepalive(stream, value))
    }

    fn keep_alive_idle_time(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u64> {
        self.option(&handle, |stream| sockopt::tcp_keepidle(stream).map(nanoseconds))
    }

    fn set_keep_alive_idle_time(&mut self, handle: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.option(&handle, |stream| sockopt::set_tcp_keepidle(stream, seconds(value)))
    }

    fn keep_alive_interval(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u64> {
        self.option(&handle, |stream| sockopt::tcp_keepintvl(stream).map(nanoseconds))
    }

    fn set_keep_alive_interval(&mut self, handle: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.option(&handle, |stream| sockopt::set_tcp_keepintvl(stream, seconds(value)))
    }

    fn keep_alive_count(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u32> {
        self.option(&handle, sockopt::tcp_keepcnt)
    }

    fn set_keep_alive_count(&mut self, handle: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        self.option(&handle, |stream| sockopt::set_tcp_keepcnt(stream, value.clamp(1, 127)))
    }

    fn hop_limit(&mut self, _: Resource<TcpSocket>) -> SocketResult<u8> {
        Err(ErrorCode::NotSupported.into())
    }

    fn set_hop_limit(&mut self, _: Resource<TcpSocket>, _: u8) -> SocketResult<()> {
        Err(ErrorCode::NotSupported.into())
    }

    fn receive_buffer_size(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u64> {
        self.option(&handle, |stream| sockopt::socket_recv_buffer_size(stream).map(|bytes| bytes as u64))
    }

    fn set_receive_buffer_size(&mut self, _: Resource<TcpSocket>, _: u64) -> SocketResult<()> {
        // They are memory of the host.
        Err(ErrorCode::NotSupported.into())
    }

    fn send_buffer_size(&mut self, handle: Resource<TcpSocket>) -> SocketResult<u64> {
        self.option(&handle, |stream| sockopt::socket_send_buffer_size(stream).map(|bytes| bytes as u64))
    }

    fn set_send_buffer_size(&mut self, _: Resource<TcpSocket>, _: u64) -> SocketResult<()> {
        Err(ErrorCode::NotSupported.into())
    }

    fn subscribe(&mut self, handle: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(&mut self.table, own(&handle))
    }

    fn shutdown(&mut self, handle: Resource<TcpSocket>, how: ShutdownType) -> SocketResult<()> {
        let how = match how {
            ShutdownType::Receive => Shutdown::Read,
            ShutdownType::Send => Shutdown::Write,
            ShutdownType::Both => Shutdown::Both,
        };
        Ok(self.connection(&handle)?.shutdown(how)?)
    }

    fn drop(&mut self, handle: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<GuestSocket>::new_own(handle.rep()))?;
        Ok(())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a time within what the system takes, which counts in seconds.
fn seconds(nanoseconds: u64) -> Duration {
    Duration::from_nanos(nanoseconds).clamp(Duration::from_secs(1), Duration::from_secs(32_767))
}
