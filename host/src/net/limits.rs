//! The limits that a listener sets for its clients.

use std::time::Duration;

/// The limits of a listener and of each of its connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Connections open at once. More wait in the kernel's backlog.
    pub(crate) max_connections: u32,
    /// The largest request head, in bytes.
    pub(crate) max_head_bytes: u64,
    /// The time that a client has to send the head of a request.
    pub(crate) head_timeout: Duration,
    /// The time for which a client may accept no bytes of a response.
    pub(crate) stall_timeout: Duration,
}
