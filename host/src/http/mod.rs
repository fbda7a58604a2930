//! The listener where agents are called.
//!
//! ```text
//! accept -> connection (hyper, its pulse watched) -> stack (a visit is counted)
//!   -> ingress: path and method -> agent
//!        message agent: head + body -> message -> mailbox -> answer -> reply
//!        HTTP agent:    the request itself, both bodies streamed
//! ```
//! `problem` has the one table of errors and status codes. There is no policy on agents here: what may be
//! sent and how much is decided where a message is admitted, whatever way it comes. No timer is set for a
//! request: one task looks at all connections now and then (`pulse`).

mod body;
mod head;
mod ingress;
mod listen;
mod message;
mod path;
mod problem;
mod pulse;
mod reply;
mod socket;
mod stack;
mod status;
mod web;

pub(crate) use listen::serve;
