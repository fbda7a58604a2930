//! Details of a fault for the author of the guest.

use std::fmt;
use std::sync::Arc;

/// The details of a fault. Cheap to clone; empty if nothing is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trail(Option<Arc<Traces>>);

#[derive(Debug, Default)]
struct Traces {
    backtrace: String,
    words: String,
    refused: Option<u64>,
}

impl Trail {
    /// Creates the details from the frames of the guest's stack, its last lines on stderr, and the memory limit
    /// `refused` if it was refused memory beyond it.
    pub(super) fn new(backtrace: String, words: String, refused: Option<u64>) -> Self {
        // Most faults of the host have none; an empty value needs no allocation.
        if backtrace.is_empty() && words.is_empty() && refused.is_none() {
            return Self::default();
        }
        Self(Some(Arc::new(Traces { backtrace, words, refused })))
    }

    /// Returns the frames, innermost first, one a line; empty if unknown.
    pub(crate) fn backtrace(&self) -> &str {
        self.0.as_ref().map_or("", |traces| &traces.backtrace)
    }

    /// Returns the last lines that the guest wrote to stderr in this call; empty if there are none.
    pub(crate) fn words(&self) -> &str {
        self.0.as_ref().map_or("", |traces| &traces.words)
    }
}

/// Appended to the message of a fault: memory that was refused may be its cause, whatever the guest made of it.
impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref().and_then(|traces| traces.refused) {
            Some(limit) => write!(f, "{}", Refused(limit)),
            None => Ok(()),
        }
    }
}

/// A note that a guest was refused memory above this limit in bytes.
pub(super) struct Refused(pub(super) u64);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " (memory above limits.memory, {} bytes, was refused before)", self.0)
    }
}
