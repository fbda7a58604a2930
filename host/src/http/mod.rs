//! The HTTP listener where agents are called.
//!
//! ```text
//! net -> layers (counts the request as under way) -> ingress: path and method -> agent
//!   message_agent: head + body -> Submission -> ask (wait for the reply) | enqueue (202)
//!   http_agent:    the request itself, both bodies streamed
//! ```
//! All error codes and their status are in `crate::problem`. There is no policy on agents here: which messages are
//! allowed and how large they may be is decided where a message is admitted, for every source of messages alike.

mod body;
mod body_memory;
mod budget;
mod call;
mod callers;
mod connection;
mod cors;
mod http_agent;
mod ingress;
mod layers;
mod listener;
mod message_agent;
mod message_status;
mod path;
mod problem;
mod rates;
mod reply;
mod request_head;

pub(crate) use listener::serve;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use path::plain_path;
