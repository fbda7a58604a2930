//! Look-ups of names.

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::future::BoxFuture;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{Host, HostResolveAddressStream, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketError, SocketResult, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::code;
use crate::bounds::quoted;
use crate::message::{LookedUp, TcpError};
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::outbound::DeniedAccess;

/// A look-up of a guest.
pub(super) enum NameLookup {
    /// The host looks the name up.
    UnderWay(AbortOnDropJoinHandle<Result<LookedUp, TcpError>>),
    /// The guest is given the addresses, one after the other.
    Found(Arc<str>, std::vec::IntoIter<IpAddr>),
    /// A look-up that found none.
    Failed(ErrorCode),
}

impl NameLookup {
    fn settle(&mut self, found: Result<LookedUp, TcpError>) {
        *self = match found {
            Ok(found) => Self::Found(found.name.into(), found.addresses.into_iter()),
            Err(error) => Self::Failed(code(&error)),
        };
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for NameLookup {
    async fn ready(&mut self) {
        if let Self::UnderWay(task) = self {
            let found = task.await;
            self.settle(found);
        }
    }
}

/// Returns the entry of the table for a handle, which the generated bindings know by another type.
fn own(handle: &Resource<ResolveAddressStream>) -> Resource<NameLookup> {
    Resource::new_borrow(handle.rep())
}

impl Host for Ctx {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.table.get(&network)?;
        let asked = format!("it asked for the address of `{}`", quoted(&name));
        // Permanent, because a guest would try a temporary failure again.
        let work =
            self.connecting(DeniedAccess::Name, &asked).map_err(|_| ErrorCode::PermanentResolverFailure)?.clone();
        let scope = self.outbound.scope();
        let host = work.host.clone().unwrap_or_else(|| Arc::clone(&self.host));
        let looked_up: BoxFuture<'static, _> = host.look_up(&self.who, &work, name, scope);
        let handle = self.table.push(NameLookup::UnderWay(spawn(looked_up)))?;
        Ok(Resource::new_own(handle.rep()))
    }
}

impl HostResolveAddressStream for Ctx {
    fn resolve_next_address(&mut self, handle: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let lookup = self.table.get_mut(&own(&handle))?;
        if let NameLookup::UnderWay(task) = lookup {
            let polled = std::pin::Pin::new(task).poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(found) = polled else { return Err(ErrorCode::WouldBlock.into()) };
            lookup.settle(found);
        }
        match lookup {
            NameLookup::Found(name, addresses) => Ok(addresses.next().map(|address| {
                // Noted as it is given: what the guest has not seen it cannot connect to.
                self.reach.names.note(address, name);
                address.into()
            })),
            NameLookup::Failed(code) => Err(SocketError::from(*code)),
            NameLookup::UnderWay(_) => Err(ErrorCode::WouldBlock.into()),
        }
    }

    fn subscribe(&mut self, handle: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(&mut self.table, own(&handle))
    }

    fn drop(&mut self, handle: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<NameLookup>::new_own(handle.rep()))?;
        Ok(())
    }
}
