//! Calls over HTTP that agents make, through one client that all of them share, and their connections over TCP.
//!
//! ```text
//! GuestHost::call_http -> client: grant, headers of the place, a permit
//!     -> journal: answered from the record, or begun; ended before the guest sees the response
//!     -> connector: name -> addresses -> those that the place may have -> connection -> TLS
//!     -> request_body --> server --> response_body -> the guest
//! ```
//! Connections are pooled by authority and by the addresses that they may have been made to: a call that may reach public
//! addresses only never gets a connection that another agent was allowed to make to a private one. Redirects are not
//! followed and bodies not decompressed: both are the guest's business, and each hop of a redirect is a call of its own.

mod call_times;
mod calling_agent;
mod client;
mod connector;
mod dial;
mod failure;
mod journal;
mod pools;
mod proxy;
mod report;
mod request_body;
mod resolve;
mod response_body;
mod tcp;

pub(crate) use calling_agent::CallingAgent;
pub(crate) use client::OutgoingClient;
pub(crate) use report::{CallNote, CallProblem, NoteKind};
pub(crate) use tcp::{ConnectingAgent, OnTcpProblem, TcpProblem, is_reachable};
