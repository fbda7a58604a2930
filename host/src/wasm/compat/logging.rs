//! `wasi:logging` without a version, as early components of wasmCloud import it.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use crate::wasm::bindings::wasi::logging::logging::{Host as _, Level};
use crate::wasm::call::ctx::Ctx;

/// Defines its function.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    type Line = (Level, String, String);
    linker.instance("wasi:logging/logging")?.func_wrap(
        "log",
        |mut store: StoreContextMut<'_, Ctx>, (level, context, message): Line| -> wasmtime::Result<()> {
            store.data_mut().log(level, context, message)
        },
    )
}
