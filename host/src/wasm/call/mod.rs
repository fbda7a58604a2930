//! Calls of guests: the instance, the store's data, and the host functions.
//!
//! ```text
//! Instance -> export of the guest -> host function (messaging, state, effects, wasi) -> Effects, or GuestHost
//! ```
//! Sends and writes of a guest are collected in [`Effects`](crate::message::Effects) and not carried out: the caller
//! commits or drops them. Reads see the collected writes first.

mod backtrace;
pub(super) mod ctx;
pub(super) mod denials;
mod effects;
pub(in crate::wasm) mod exports;
pub(super) mod fault;
mod guest_config;
mod host_memory;
pub(super) mod instance;
pub(super) mod linker;
mod messaging;
mod migration;
mod new_ctx;
pub(super) mod of_message;
pub(super) mod outbound;
pub(super) mod random;
mod requests;
mod resources;
pub(super) mod snapshot;
pub(super) mod state;
mod stdio;
pub(super) mod supply;
pub(super) mod symbols;
mod timer;
mod wasi;
