//! Diagnostics of a fault for the author of the guest.

use std::fmt;
use std::sync::Arc;

/// The diagnostics of a fault. Cheap to clone; empty if nothing is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Diagnostics(Option<Arc<Details>>);

#[derive(Debug, Default)]
struct Details {
    backtrace: String,
    stderr: String,
    refused: Option<u64>,
}

impl Diagnostics {
    /// Creates the diagnostics from the frames of the guest's stack, its last lines on stderr, and the memory limit
    /// `refused` if it was refused memory beyond it.
    pub(crate) fn new(backtrace: String, stderr: String, refused: Option<u64>) -> Self {
        // Most faults of the host have none; an empty value needs no allocation.
        if backtrace.is_empty() && stderr.is_empty() && refused.is_none() {
            return Self::default();
        }
        // One word in each fault: faults are moved through every layer of a call.
        Self(Some(Arc::new(Details { backtrace, stderr, refused })))
    }

    /// Returns the frames, innermost first, one a line; empty if unknown.
    pub(crate) fn backtrace(&self) -> &str {
        self.0.as_ref().map_or("", |details| &details.backtrace)
    }

    /// Returns the last lines that the guest wrote to stderr in this call; empty if there are none.
    pub(crate) fn stderr(&self) -> &str {
        self.0.as_ref().map_or("", |details| &details.stderr)
    }
}

/// Completes the message of a fault: memory that was refused may be its cause, whatever the guest made of it.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref().and_then(|details| details.refused) {
            Some(limit) => write!(f, "{}", RefusedMemory(limit)),
            None => Ok(()),
        }
    }
}

/// A note that a guest was refused memory above this limit in bytes.
pub(crate) struct RefusedMemory(pub(crate) u64);

impl fmt::Display for RefusedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " (memory above limits.memory, {} bytes, was refused before)", self.0)
    }
}
