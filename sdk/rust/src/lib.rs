//! Write a Caxton agent in Rust.
//!
//! An agent is a type with one function that takes a message and may answer it:
//!
//! ```
//! use caxton_sdk::prelude::*;
//!
//! struct Hello;
//!
//! impl Agent for Hello {
//!     fn handle(message: Message) -> Handled {
//!         let name: String = message.json()?;
//!         Ok(Some(Reply::json(&format!("Hello, {name}!"))?))
//!     }
//! }
//!
//! caxton_sdk::agent!(Hello);
//! # fn main() {}
//! ```
//!
//! Built as a `cdylib` for `wasm32-wasip2`, this is a component that a Caxton host runs.
//!
//! - [`Agent`] keeps nothing in memory between messages; the host runs as many instances of it as it needs.
//!   [`StatefulAgent`] keeps its own memory, is saved and restored, and has one live instance.
//! - [`HttpAgent`] answers HTTP itself, with the same state, messages, configuration and log.
//! - What a handler writes to [`state`] and sends with [`Draft::send`] takes effect when it returns `Ok`, and
//!   not at all when it returns a [`Failure`], traps or runs out of time. [`Draft::request`] is a call: it
//!   happens at once and is not undone.
//! - The records themselves, field by field, are those of the contract and documented in [`bindings`].
//!
//! On any other target than wasm an agent compiles, so that its pure parts can be tested where they are
//! written; a call of the host then panics.

#![warn(missing_docs)]

// What the macros of wit-bindgen write names this crate as its users do.
extern crate self as caxton_sdk;

mod agent;
pub mod bindings;
mod call;
pub mod config;
mod draft;
pub mod effects;
mod failure;
mod http;
pub mod log;
mod message;
pub mod messaging;
mod query;
mod reply;
mod reuse;
pub mod snapshot;
pub mod state;

#[doc(hidden)]
pub use agent::{Memory, Stateful, Stateless, is_agent};
#[doc(hidden)]
pub use http::{Web, is_http_agent};
#[doc(hidden)]
pub use reuse::bytes_of;
#[doc(hidden)]
#[cfg(target_family = "wasm")]
pub use wasip2;
#[doc(hidden)]
pub use wit_bindgen;

pub use agent::{Agent, Handled, StatefulAgent};
pub use bindings::caxton::agent::types::{
    Cause, Delivery, Draft, Failure, Message, Performative, Priority, Reply, RequestError, SendError, StateError,
};
pub use call::HttpCall;
pub use failure::OrFail;
pub use http::{HttpAgent, Request, Response};

/// What most agents use.
pub mod prelude {
    pub use crate::{
        Agent, Draft, Failure, Handled, HttpAgent, Message, OrFail, Performative, Reply, Request, Response,
        StatefulAgent, config, effects, log, messaging, state,
    };
}

/// Compiles the examples of the documentation pages.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/recipes.md")]
pub struct Recipes;

/// The media type of JSON.
pub const JSON: &str = "application/json";
/// The media type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";
