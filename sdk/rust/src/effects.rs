//! Commits or discards the effects of an HTTP agent before it answers, and of a migration before it ends.
//!
//! Without these calls, the effects of a request commit when [`HttpAgent::handle`](crate::HttpAgent::handle) returns a
//! response with a status below 500, and are discarded otherwise. [`Migrate::migrate`](crate::Migrate::migrate) converts
//! a large state in steps with them. In the handler of a message both calls fail: its effects commit with its result.

use crate::Failure;
use crate::bindings::caxton::agent::effects;

/// Commits everything that this request or migration wrote and sent since it began or last committed, and waits until
/// that is durable. It stays then, whatever the response is. In a migration the limits of a handling count anew from here.
///
/// ```no_run
/// use caxton_sdk::prelude::*;
///
/// fn count() -> Result<i64, Failure> {
///     let count = state::increment("requests", 1)?;
///     // A request that fails later is counted as well.
///     effects::commit()?;
///     Ok(count)
/// }
/// ```
///
/// # Errors
/// Nothing was committed. State that was read may have changed meanwhile: read it again and retry.
pub fn commit() -> Result<(), Failure> {
    effects::commit().map_err(|why| Failure::unavailable(format!("the effects were not committed: {why}")))
}

/// Discards everything that this request or migration wrote and sent since it began or last committed.
///
/// # Errors
/// No request is being handled, and no state migrated.
pub fn discard() -> Result<(), Failure> {
    effects::discard().map_err(|why| Failure::fault(format!("the effects were not dropped: {why}")))
}
