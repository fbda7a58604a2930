//! The engine: running components. No type of wasmtime leaves this folder.
//!
//! ```text
//! file -> inspect (kind, imports, bounds) -> compile (a child process) -> artefact cache -> Program
//! Program + settings -> Pool -> Instance -> call -> reply, failure or Fault
//! ```
//! Everything that a guest asks of the host beyond its own store (other agents, state, logs) goes through
//! [`GuestHost`](crate::message::GuestHost): this folder knows neither mailboxes nor HTTP listeners nor the database.
//! Retries, routing and policy are absent.

mod bindings;
mod call;
mod compat;
mod compile;
mod convert;
mod digest;
mod files;
mod guest_threads;
mod http;
mod inspect;
mod inspect_imports;
mod limits;
mod pool;
mod scan;
mod service;
mod sockets;
#[cfg(test)]
pub(crate) mod tests;
mod validate;

pub(crate) use call::snapshot::NotSaved;
pub(crate) use call::state::MAX_VALUE;
pub(crate) use compile::child::compile_child;
pub(crate) use compile::engine::{ENGINE, machine_instances};
pub(crate) use compile::program::{Program, ProgramError};
pub(crate) use compile::runtime::{Runtime, RuntimeOptions};
pub(crate) use digest::digest;
pub(crate) use guest_threads::{GuestThreads, Movable, is_here as is_guest_thread};
pub(crate) use http::body_recorder::BodyRecorder;
pub(crate) use http::caller::BodyError;
pub(crate) use http::end::{Ended, HttpEnd};
pub(crate) use http::over_tls::OverTls;
pub(crate) use http::read_ahead::AheadBody;
pub(crate) use http::response::{ResponseBody, ResponseError};
pub(crate) use http::{HttpCall, HttpFailure, Unanswered};
pub(crate) use inspect::{Kind, MAX_COMPONENT, Summary, imports_and_exports, is_cut, outline};
pub(crate) use pool::Pool;
pub(crate) use pool::lease::{HeldLease, Lease, NoInstance, restarting};
pub(crate) use service::offered::{OFFERED_INTERFACES, OfferedInterface};
pub(crate) use validate::summarise;
