//! The limits that a listener sets for its clients.

use std::time::Duration;

use super::files::FileReserve;

/// The limits of a listener and of each of its connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Connections open at once. Idle ones make way for more; what is beyond that waits in the kernel's backlog.
    pub(crate) max_connections: u32,
    /// The largest request head, in bytes.
    pub(crate) max_head_bytes: u64,
    /// The time that a client has to send the head of a request.
    pub(crate) head_timeout: Duration,
    /// The time for which a client may accept no bytes of a response.
    pub(crate) stall_timeout: Duration,
    /// The time after which a connection without a request is closed.
    pub(crate) idle_timeout: Duration,
    /// The open files that connections of the listener leave to others.
    pub(crate) reserve: FileReserve,
}
