//! Connections of clients: accepting, supervising and closing them.
//!
//! ```text
//! accept -> socket (reports reads and writes) -> hyper -> a service of its own for each connection
//!                      '-- pulse: one task checks all connections and closes the stalled and idle ones
//! ```
//! Every listener of the host is served here, so that all have the same bounds. An end of input cancels no call: a
//! client may close its sending side once its request is sent. A reset or a failed write does. A stop waits for
//! requests whose head has arrived, and for nothing else. No timer is set for a single request: that would cost more
//! than the request on a busy listener.

mod pulse;
mod serve;
mod socket;
mod visited;

pub(crate) use pulse::{Pulse, Visit};
pub(crate) use serve::{Bounds, serve};
pub(crate) use visited::visited;
