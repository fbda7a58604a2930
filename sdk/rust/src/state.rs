//! The agent's own keys and values, stored by the host.
//!
//! Writes are effects: they are committed when the handler returns `Ok`; reads in the same handler see them before.
//! State survives the end of an instance, a revision and the host.
//!
//! Two messages of one agent may be handled at the same time. If a handler has read a key that another one has written
//! by the time it ends, it runs again, with its keys reserved; a request that it repeats with the same content gets the
//! answer of the earlier run. [`add`] counts without reading, so it never causes another run:
//!
//! ```no_run
//! # fn sold(item: &str) -> Result<(), caxton_sdk::Failure> {
//! caxton_sdk::state::add(&format!("sold/{item}"), 1)?;
//! # Ok(())
//! # }
//! ```

use std::time::Duration;
use std::vec::IntoIter;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::bindings::caxton::agent::state::{add, get, increment, remove, set};

use crate::bindings::caxton::agent::state as raw;
use crate::messaging::whole_millis;
use crate::{Failure, StateError};

/// The number of keys per page, the most that the contract allows.
const PAGE: u32 = 1_000;

/// Returns the value of a key, parsed as JSON; `None` if the key is missing.
///
/// # Errors
/// State cannot be reached, or the value is not JSON of this type.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Failure> {
    let Some(bytes) = get(key)? else { return Ok(None) };
    // A fault: an agent wrote this value, and the message is not to blame.
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Failure::fault(format!("the value of {key} in state is not as expected: {error}")))
}

/// Sets a key to a value, written as JSON.
///
/// # Errors
/// State refuses the value, or it cannot be written as JSON.
pub fn set_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Failure> {
    Ok(set(key, &serde_json::to_vec(value)?)?)
}

/// Sets a key to a value with a time to live: after it the key counts as missing, and soon leaves the disk too. [`set`]
/// ends the time to live, [`increment`] keeps it.
///
/// ```no_run
/// # fn remember(token: &str, user: &str) -> Result<(), caxton_sdk::Failure> {
/// use std::time::Duration;
///
/// caxton_sdk::state::set_for(&format!("session/{token}"), user.as_bytes(), Duration::from_secs(3_600))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// State refuses the value.
pub fn set_for(key: &str, value: &[u8], time: Duration) -> Result<(), StateError> {
    raw::set_for(key, value, whole_millis(time))
}

/// Sets a key to a value with a time to live, written as JSON; see [`set_for`].
///
/// # Errors
/// State refuses the value, or it cannot be written as JSON.
pub fn set_json_for<T: Serialize + ?Sized>(key: &str, value: &T, time: Duration) -> Result<(), Failure> {
    Ok(set_for(key, &serde_json::to_vec(value)?, time)?)
}

/// Adds to a number with a time to live and returns the sum: a counter for a window of time. The time to live starts
/// with the first addition; an existing key keeps its own.
///
/// # Errors
/// State refuses the value, or the present one is not a number.
pub fn increment_for(key: &str, by: i64, time: Duration) -> Result<i64, StateError> {
    // Read first, since `increment` would create the key without a time to live.
    if get(key)?.is_some() {
        return increment(key, by);
    }
    set_for(key, by.to_string().as_bytes(), time)?;
    Ok(by)
}

/// Changes a value stored as JSON, starting from the default if there is none, and returns the result of `change`. The
/// key keeps the new value without a time to live.
///
/// ```no_run
/// # fn seen(name: String) -> Result<usize, caxton_sdk::Failure> {
/// caxton_sdk::state::update("names", |names: &mut Vec<String>| {
///     names.push(name);
///     names.len()
/// })
/// # }
/// ```
///
/// # Errors
/// State cannot be reached or refuses the value, or the present one is not JSON of this type.
pub fn update<T, R>(key: &str, change: impl FnOnce(&mut T) -> R) -> Result<R, Failure>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut value = get_json(key)?.unwrap_or_default();
    let result = change(&mut value);
    set_json(key, &value)?;
    Ok(result)
}

/// Returns the keys with a prefix, in byte order, fetched page by page.
pub fn keys(prefix: impl Into<String>) -> Keys {
    Keys { prefix: prefix.into(), page: Vec::new().into_iter(), next: Next::First }
}

/// The iterator returned by [`keys`]. Ends after an error.
pub struct Keys {
    prefix: String,
    page: IntoIter<String>,
    next: Next,
}

// An enum and no option of a cursor, which could not tell the first page from the end.
enum Next {
    First,
    After(String),
    Nothing,
}

impl Iterator for Keys {
    type Item = Result<String, StateError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.page.next() {
                return Some(Ok(key));
            }
            // `Nothing` stays behind after an error, so that the iterator ends.
            let cursor = match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::First => None,
                Next::After(cursor) => Some(cursor),
                Next::Nothing => return None,
            };
            match raw::list_keys(&self.prefix, cursor.as_deref(), PAGE) {
                Ok(page) => {
                    self.page = page.keys.into_iter();
                    self.next = page.cursor.map_or(Next::Nothing, Next::After);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
