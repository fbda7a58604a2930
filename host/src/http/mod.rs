//! The listener where agents are called.
//!
//! ```text
//! connection (`listener`) -> stack (a visit is counted)
//!   -> ingress: path and method -> agent
//!        message agent: head + body -> message -> mailbox -> answer -> reply
//!        HTTP agent:    the request itself, both bodies streamed
//! ```
//! `problem` has the one table of errors and status codes. There is no policy on agents here: what may be
//! sent and how much is decided where a message is admitted, whatever way it comes.

mod body;
mod cors;
mod head;
mod ingress;
mod listen;
mod message;
mod path;
mod problem;
mod reply;
mod stack;
mod status;
mod web;

pub(crate) use listen::serve;
