//! The engine: running components. No type of wasmtime leaves this folder.
//!
//! ```text
//! file -> inspect (kind, imports, bounds) -> compile (a child process) -> artefact cache -> Program
//! Program + settings -> Pool -> Instance -> call -> reply, failure or Fault
//! ```
//! Everything that a guest asks of the host beyond its own store (other agents, state, logs) goes through [`Outside`]:
//! this folder knows neither mailboxes nor HTTP listeners nor the database. Retries, routing and policy are absent.

mod add;
mod again;
mod answered;
mod artefact;
mod backtrace;
mod bindings;
mod bodiless;
mod caller;
mod compile;
mod denied;
mod effects;
mod engine;
mod evict;
mod fault;
mod guest;
mod http;
mod inspect;
mod instance;
mod lease;
mod limits;
mod link;
mod message;
mod migrate;
mod places;
mod pool;
mod program;
mod response;
mod spares;
mod state;
mod stdio;
mod symbols;
mod tap;
#[cfg(test)]
pub(crate) mod tests;
mod timer;
mod trail;
mod turns;
mod views;
mod warm;
mod words;

pub(crate) use add::sum;
pub(crate) use again::{Again, Answers, Conflict, Reserving, Run, Ticket};
pub(crate) use bindings::types as wit;
pub(crate) use caller::BodyError;
pub(crate) use compile::compile_child;
pub(crate) use denied::Denied;
pub(crate) use effects::{Commits, Committer, Effects, Expiry, NotCommitted, Value, is_as_seen};
pub(crate) use engine::{Runtime, RuntimeOptions, machine_instances};
pub(crate) use fault::Fault;
pub(crate) use guest::{Identity, LogLevel, Outside, Read, Seen, Work};
pub(crate) use http::{Ended, HttpCall, HttpEnd, HttpFailure, Unanswered};
pub(crate) use inspect::{Finding, Kind, MAX_COMPONENT, Summary, is_cut, summarise};
pub(crate) use instance::NotSaved;
pub(crate) use lease::{Kept, Lease};
pub(crate) use message::{
    Answer, Attempt, Dispatch, Envelope, Inbox, Outcome, Refusal, ReservedPlace, Sent, Waiter, new_id,
};
pub(crate) use pool::{NoInstance, Pool};
pub(crate) use program::{Program, ProgramError, digest};
pub(crate) use response::{ResponseBody, ResponseError};
pub(crate) use state::MAX_VALUE;
pub(crate) use tap::Tap;
pub(crate) use timer::{Cancel, TimerName, is_id};
pub(crate) use trail::Trail;
pub(crate) use words::{act, performative, priority, rank};

/// The engine and its version.
pub(crate) const ENGINE: (&str, &str) = ("wasmtime", env!("WASMTIME_VERSION"));
