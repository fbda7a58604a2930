//! The decisions of file watching: when to examine files, when a file is complete, and which builds follow.
//!
//! ```text
//! hints (the kernel's events) --Debounce--> look --StabilityCheck--> the file is taken up, or looked at again
//!                                             `--changed sources--> BuildQueue --> a build, one after another
//! ```
//! Hints may be late, repeated or missing. A decision depends only on the state that a look finds, never on the number
//! or order of hints. Times are milliseconds of a monotonic clock.

mod build_queue;
mod debounce;
mod stability;

pub use build_queue::{BuildQueue, RefusedBuild, SourceChanges};
pub use debounce::Debounce;
pub use stability::{FileReadiness, FileState, FileWriter, StabilityCheck};
