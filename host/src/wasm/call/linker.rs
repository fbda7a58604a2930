//! The linker: the host functions that guests are linked against.
//!
//! Language runtimes import file systems and sockets even for programs that do not use them. So all of WASI 0.2 is
//! defined, and what an agent was not granted is denied when it is called.

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use crate::wasm::bindings::caxton::agent::{effects, messaging, state};
use crate::wasm::bindings::wasi::{config, logging};
use crate::wasm::call::ctx::Ctx;

/// The interfaces of the host, for messages about imports that it does not have.
pub(in crate::wasm) const OFFERED: &[&str] = &[
    "caxton:agent/types",
    "caxton:agent/messaging",
    "caxton:agent/state",
    "caxton:agent/effects",
    "wasi:config/store",
    "wasi:logging/logging",
    "wasi:cli",
    "wasi:clocks",
    "wasi:filesystem",
    "wasi:http/types",
    "wasi:http/outgoing-handler",
    "wasi:io",
    "wasi:random",
    "wasi:sockets",
];

/// Creates a linker with all host functions.
pub(in crate::wasm) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Ctx>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    // Only HTTP: the interfaces of WASI that both crates define would clash.
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // Each replaces a function of the line before.
    crate::wasm::http::bodyless::add_to_linker(&mut linker)?;
    crate::wasm::http::outgoing_linker::add_to_linker(&mut linker)?;
    crate::wasm::call::resources::add_to_linker(&mut linker)?;
    crate::wasm::bindings::types::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
    messaging::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
    state::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
    effects::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
    // After the generated functions, of which it replaces `commit`.
    crate::wasm::call::effects::add_to_linker(&mut linker)?;
    config::store::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
    logging::logging::add_to_linker::<_, HasSelf<_>>(&mut linker, |ctx: &mut Ctx| ctx)?;
    crate::wasm::compat::add_to_linker(&mut linker)?;
    // The rest replaces functions defined above.
    crate::wasm::files::add_to_linker(&mut linker)?;
    crate::wasm::sockets::add_to_linker(&mut linker)?;
    crate::wasm::call::supply::add_to_linker(&mut linker)?;
    crate::wasm::call::denials::add_to_linker(&mut linker)?;
    Ok(linker)
}
