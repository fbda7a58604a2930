//! The HTTP listener where agents are called.
//!
//! ```text
//! connection (`listener`) -> stack (counts the request as under way)
//!   -> ingress: path and method -> agent
//!        message agent: head + body -> message -> mailbox -> answer -> reply
//!        HTTP agent:    the request itself, both bodies streamed
//! ```
//! All error codes and their status are in `problem`. There is no policy on agents here: which messages are allowed and
//! how large they may be is decided where a message is admitted, for every source of messages alike.

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
