//! Commits or discards the effects of an HTTP agent before it answers.
//!
//! Without a call of these the effects of a request commit when [`HttpAgent::handle`](crate::HttpAgent::handle) returns a
//! response with a status below 500, and are dropped otherwise. In the handler of a message both give an error: its effects
//! commit with its result.

use crate::Failure;
use crate::bindings::caxton::agent::effects;

/// Commits what this request wrote and sent since it began or last committed; returns when it is safe. It lasts then,
/// whatever the response is.
///
/// ```no_run
/// use caxton_sdk::prelude::*;
///
/// fn count() -> Result<i64, Failure> {
///     let count = state::increment("requests", 1)?;
///     // Also a request that fails after this is counted.
///     effects::commit()?;
///     Ok(count)
/// }
/// ```
///
/// # Errors
/// Nothing of it is kept. What was read may have changed meanwhile: read it again, and try once more.
pub fn commit() -> Result<(), Failure> {
    effects::commit().map_err(|why| Failure::unavailable(format!("the effects were not committed: {why}")))
}

/// Drops what this request wrote and sent since it began or last committed.
///
/// # Errors
/// No request is being handled.
pub fn discard() -> Result<(), Failure> {
    effects::discard().map_err(|why| Failure::fault(format!("the effects were not dropped: {why}")))
}
