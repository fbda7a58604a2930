//! What is known of a fault beside its kind, for the author of the guest.

use std::fmt;
use std::sync::Arc;

/// What is known of a fault beside its kind. Cheap to copy; empty where nothing is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trail(Option<Arc<Traces>>);

/// What a guest left behind.
#[derive(Debug, Default)]
struct Traces {
    backtrace: String,
    words: String,
    refused: Option<u64>,
}

impl Trail {
    /// Of a guest with these frames on its stack and these last lines on stderr, which was refused memory above
    /// `refused` bytes, if it was.
    pub(super) fn new(backtrace: String, words: String, refused: Option<u64>) -> Self {
        if backtrace.is_empty() && words.is_empty() && refused.is_none() {
            return Self::default();
        }
        Self(Some(Arc::new(Traces { backtrace, words, refused })))
    }

    /// Where in the guest it was, innermost first, a frame a line; empty when unknown.
    pub(crate) fn backtrace(&self) -> &str {
        self.0.as_ref().map_or("", |traces| &traces.backtrace)
    }

    /// The last lines that the guest wrote to stderr in this call; empty if there are none.
    pub(crate) fn words(&self) -> &str {
        self.0.as_ref().map_or("", |traces| &traces.words)
    }
}

/// Told after what went wrong: memory that was refused may be why, whatever the guest made of it.
impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref().and_then(|traces| traces.refused) {
            Some(limit) => write!(f, "{}", Refused(limit)),
            None => Ok(()),
        }
    }
}

/// That a guest was refused memory above a bound in bytes.
pub(super) struct Refused(pub(super) u64);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " (memory above limits.memory, {} bytes, was refused before)", self.0)
    }
}
