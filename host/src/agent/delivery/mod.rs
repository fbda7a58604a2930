//! The way of a message or call through an agent.
//!
//! ```text
//! submission (from outside) --.
//! hops (from a guest) --------+--> mailbox --> worker --> handler --> state::commit --> reply, effects
//!                                                            |-- conflict: the handler runs again
//!                                                            '-- failure: another attempt, or a dead letter (notice)
//! http (an HTTP agent) ----------------------> handler's call, without a mailbox
//! ```

pub(super) mod budget;
pub(super) mod conflict;
pub(super) mod conversation_starts;
pub(super) mod failure;
pub(super) mod handler;
pub(super) mod handling;
pub(super) mod hops;
pub(super) mod http;
mod http_entry;
mod journal;
mod notice;
pub(super) mod outstanding;
pub(super) mod question;
mod replay_body;
pub(super) mod reply;
mod sends;
mod shortage;
pub(super) mod submission;
mod time_budget;
mod wait_graph;
pub(super) mod worker;
