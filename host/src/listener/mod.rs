//! Connections of clients: accepted, watched, and ended.
//!
//! ```text
//! accept -> socket (notes what comes and goes) -> hyper -> a service of its own for each connection
//!                      '-- pulse: one task looks at all of them and cuts those that are of no use
//! ```
//! Every listener of the host is served here, so that all bear the same from clients. An end of input ends no
//! call: a client may close its side as soon as its request is sent. A reset or a failed write does. A stop waits
//! for requests whose head has come, and for nothing else. No timer is set for a request.

mod pulse;
mod serve;
mod socket;
mod visited;

pub(crate) use pulse::{Pulse, Visit};
pub(crate) use serve::{Bounds, serve};
pub(crate) use visited::visited;
