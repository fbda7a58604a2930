//! The host functions of WASI 0.3, beside those of WASI 0.2: a component may import both.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::cli::WasiCliView;
use wasmtime_wasi::filesystem::WasiFilesystemView;
use wasmtime_wasi::p3::bindings::cli::environment::Host as _;
use wasmtime_wasi::p3::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup;
use wasmtime_wasi::p3::bindings::sockets::types::{ErrorCode, IpAddress, IpAddressFamily, TcpSocket, UdpSocket};
use wasmtime_wasi_http::p3::bindings::http::types::HostFields as _;
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use crate::bounds::quoted;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::denials::denied_socket;
use crate::wasm::call::outbound::DeniedAccess;
use crate::wasm::service::offered::VERSION;
use crate::wasm::service::{client, supply};

/// Adds the interfaces of WASI 0.3 to a linker of an engine with concurrency.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    // The originals are defined already, and defining them again is an error otherwise.
    linker.allow_shadowing(true);
    add_fields(linker)?;
    client::add_to_linker(linker)?;
    supply::add_to_linker(linker)?;
    add_denials(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Replaces the copying of fields by one with a bound.
fn add_fields(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    linker.instance(&format!("wasi:http/types@{VERSION}"))?.func_wrap(
        "[method]fields.clone",
        |mut store: StoreContextMut<'_, Ctx>, (fields,): (Resource<FieldMap>,)| -> wasmtime::Result<_> {
            let ctx = store.data_mut();
            ctx.check_copy(&fields)?;
            Ok((ctx.http().clone(fields)?,))
        },
    )
}

/// Replaces functions by ones that log denials.
fn add_denials(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    linker.instance(&format!("wasi:cli/environment@{VERSION}"))?.func_wrap(
        "get-environment",
        |mut store: StoreContextMut<'_, Ctx>, (): ()| {
            let seen = store.data_mut().cli().get_environment()?;
            store.data().log_environment(&seen);
            Ok((seen,))
        },
    )?;
    linker.instance(&format!("wasi:filesystem/preopens@{VERSION}"))?.func_wrap(
        "get-directories",
        |mut store: StoreContextMut<'_, Ctx>, (): ()| {
            let folders = store.data_mut().filesystem().get_directories()?;
            if folders.is_empty() {
                store.data().deny(DeniedAccess::Files, || {
                    "it asked for files and sees none: folders are granted to components of WASI 0.2 alone".to_owned()
                });
            }
            Ok((folders,))
        },
    )?;
    linker.instance(&format!("wasi:sockets/ip-name-lookup@{VERSION}"))?.func_wrap_concurrent(
        "resolve-addresses",
        |tasks, (name,): (String,)| {
            Box::pin(async move {
                tasks.with(|mut store| {
                    store.data_mut().deny(DeniedAccess::Name, || {
                        format!(
                            "it asked for the address of `{}`, which was denied: no setting of this version allows names \
                             to be resolved",
                            quoted(&name)
                        )
                    });
                });
                // Permanent, because a guest would try a temporary failure again.
                Ok((Err::<Vec<IpAddress>, _>(ip_name_lookup::ErrorCode::PermanentResolverFailure),))
            })
        },
    )?;
    let mut interface = linker.instance(&format!("wasi:sockets/types@{VERSION}"))?;
    interface.func_wrap("[static]tcp-socket.create", |store: StoreContextMut<'_, Ctx>, (_,): (IpAddressFamily,)| {
        store.data().deny(DeniedAccess::Tcp, || denied_socket("TCP"));
        Ok((Err::<Resource<TcpSocket>, _>(ErrorCode::AccessDenied),))
    })?;
    interface.func_wrap("[static]udp-socket.create", |store: StoreContextMut<'_, Ctx>, (_,): (IpAddressFamily,)| {
        store.data().deny(DeniedAccess::Udp, || denied_socket("UDP"));
        Ok((Err::<Resource<UdpSocket>, _>(ErrorCode::AccessDenied),))
    })
}
