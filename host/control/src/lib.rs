//! The decisions of a Caxton host, apart from their execution.
//!
//! Nothing in here reads a clock, a file or a random number, starts a task or knows wasmtime: time and chance are
//! arguments, and every function returns a value that the host (`caxton`) acts on.
//!
//! ```text
//! caxton.toml --> config::Node --check--> Desired --.
//!                                                    plan --> actions, and the reasons for waiting
//! observed state ----------------------> Actual ----'
//! ```

pub mod access;
pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod call_target;
pub mod config;
pub mod conversation;
pub mod cors;
pub mod cron;
pub mod deadlock;
pub mod desired;
pub mod diff;
pub mod fair_queue;
pub mod files;
pub mod folder;
pub mod format;
pub mod grant;
pub mod hosts;
pub mod inspection;
pub mod journal;
pub mod lifecycle;
mod limits;
mod listeners;
pub mod mailbox;
pub mod memory;
pub mod memory_queue;
pub mod meter;
pub mod names;
pub mod outgoing;
pub mod performative;
pub mod place;
pub mod plan;
pub mod policy;
pub mod protocol;
pub mod reach;
pub mod reservations;
pub mod revision_settings;
pub mod rollout;
pub mod route;
pub mod schedule;
pub mod secret;
pub mod snapshot;
pub mod supervision;
pub mod tcp_place;
pub mod template;
pub mod units;

pub use desired::{AgentSpec, Desired};
pub use names::{AgentName, Capability, Digest, Receiver, RevisionId};
pub use performative::Performative;
