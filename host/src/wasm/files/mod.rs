//! The folders that guests see: what of `wasi:filesystem` differs from the engine's own.
//!
//! The engine keeps paths within their folder (cap-std). Here are the rest of the bounds: a file of another kind than a
//! regular one is not opened, since a pipe would hold a thread of the host for as long as nobody is at its other end; a
//! folder is listed in parts, since it may have a million entries; and nothing is changed outside of a message, or by a copy
//! of one.

mod access;
mod changes;
pub(in crate::wasm) mod folders;
mod listing;
mod open;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{self, ErrorCode, HostDescriptor};

use self::access::converted;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::denials::WASI;

/// Replaces functions of `wasi:filesystem`. Called after the originals are defined.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    // The originals are defined already, and defining them again is an error otherwise.
    linker.allow_shadowing(true);
    let name = format!("wasi:filesystem/types@{WASI}");
    open::add_to_linker(linker, &name)?;
    listing::add_to_linker(linker, &name)?;
    changes::add_to_linker(linker, &name)?;
    let mut interface = linker.instance(&name)?;
    interface.func_wrap(
        "[method]descriptor.read-via-stream",
        |mut store: StoreContextMut<'_, Ctx>, (file, offset): (Resource<Descriptor>, types::Filesize)| {
            let ctx = store.data_mut();
            if !ctx.admits_file() {
                return Ok((Err(ErrorCode::Quota),));
            }
            Ok((converted(ctx.filesystem().read_via_stream(file, offset))?,))
        },
    )?;
    interface.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut store: StoreContextMut<'_, Ctx>, (file, offset): (Resource<Descriptor>, types::Filesize)| {
            let ctx = store.data_mut();
            if !ctx.admits_file() {
                return Ok((Err(ErrorCode::Quota),));
            }
            Ok((converted(ctx.filesystem().write_via_stream(file, offset))?,))
        },
    )?;
    interface.func_wrap(
        "[method]descriptor.append-via-stream",
        |mut store: StoreContextMut<'_, Ctx>, (file,): (Resource<Descriptor>,)| {
            let ctx = store.data_mut();
            if !ctx.admits_file() {
                return Ok((Err(ErrorCode::Quota),));
            }
            Ok((converted(ctx.filesystem().append_via_stream(file))?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
