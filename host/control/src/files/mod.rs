//! Files that are followed: when a change is looked at, when a file is whole, and which builds follow from it.
//!
//! ```text
//! hints (the kernel's events) --Quiet--> look --Settle--> the file is taken up, or looked at again
//!                                          `--changed sources--> Builds --> a build, one after another
//! ```
//! Hints may be late, repeated or missing. What counts is what a look finds, so that nothing in here depends on their
//! number or order. Times are in milliseconds of a clock that only goes forward.

mod builds;
mod quiet;
mod settle;

pub use builds::{Builds, Changed, Refused};
pub use quiet::Quiet;
pub use settle::{Found, Settle, Verdict, Writer};
