//! Interfaces of other hosts, so that their components run unchanged.
//!
//! ```text
//! wasi:keyvalue, fermyon:spin/key-value -> bucket -> the agent's own state, in the commit of the call
//! wasmcloud:messaging/handler           <- the agent's mailbox; consumer -> send and request
//! wasi:config, fermyon:spin/variables   -> `config` of the agent
//! ```
//! Each function ends in one of the contract in `wit/`, so that limits, conflicts, copies and rehearsals are those of every
//! agent. Interfaces that the host has no counterpart for are absent: [`nearest`](offer::nearest) names what is offered in
//! their place.

mod buckets;
mod config;
mod keyvalue;
mod logging;
pub(in crate::wasm) mod messaging;
pub(in crate::wasm) mod offer;
pub(in crate::wasm) mod pending_reply;
mod spin;

use wasmtime::component::{Component, InstancePre, Linker};

use crate::wasm::call::ctx::Ctx;

/// Defines the functions of all of them.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    config::add_to_linker(linker)?;
    keyvalue::add_to_linker(linker)?;
    logging::add_to_linker(linker)?;
    messaging::add_to_linker(linker)?;
    spin::add_to_linker(linker)
}

/// Links a component to the functions of a linker.
///
/// # Errors
/// A type of its imports or exports is another than the host's.
pub(in crate::wasm) fn link(linker: &Linker<Ctx>, component: &Component) -> wasmtime::Result<InstancePre<Ctx>> {
    linker.instantiate_pre(component).or_else(|error| {
        // One interface has two forms under one name, so that a component may fit one only. The first error tells more.
        keyvalue::with_form_of_spin(linker)?.instantiate_pre(component).map_err(|_| error)
    })
}
