//! The agent's own keys and values, kept by the host.
//!
//! Writes are effects: they last when handling ends with `Ok`, and reads see them before. A revision, an
//! instance and a host may end without any of this being lost.
//!
//! Two messages of one agent may be handled at the same time. If a handler has read a key that another has written by the
//! time it ends, it runs again, with the keys that it touched reserved for it; a request that it makes again with the same
//! content is answered from the run before. [`add`] counts without reading, and so never makes a handler run again:
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

/// How many keys one page brings; the contract allows 1,000.
const PAGE: u32 = 1_000;

/// The value of a key, read as JSON; none when there is none.
///
/// # Errors
/// State cannot be reached, or the value is no such JSON.
pub fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Failure> {
    let Some(bytes) = get(key)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Failure::fault(format!("the value of {key} in state is not as expected: {error}")))
}

/// Gives a key a value, written as JSON.
///
/// # Errors
/// State does not take it, or the value has no form in JSON.
pub fn set_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Failure> {
    Ok(set(key, &serde_json::to_vec(value)?)?)
}

/// Gives a key a value for so long: from then on it is as if the key were not there, and soon after it leaves the disk too.
/// [`set`] ends that, [`increment`] leaves it as it is.
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
/// State does not take it.
pub fn set_for(key: &str, value: &[u8], time: Duration) -> Result<(), StateError> {
    raw::set_for(key, value, whole_millis(time))
}

/// Gives a key a value for so long, written as JSON; see [`set_for`].
///
/// # Errors
/// State does not take it, or the value has no form in JSON.
pub fn set_json_for<T: Serialize + ?Sized>(key: &str, value: &T, time: Duration) -> Result<(), Failure> {
    Ok(set_for(key, &serde_json::to_vec(value)?, time)?)
}

/// Adds to a number that is kept for so long from its beginning, and returns the sum: a count for each window of time. A
/// key that is there keeps its time.
///
/// # Errors
/// State does not take it, or what is there is no number.
pub fn increment_for(key: &str, by: i64, time: Duration) -> Result<i64, StateError> {
    if get(key)?.is_some() {
        return increment(key, by);
    }
    set_for(key, by.to_string().as_bytes(), time)?;
    Ok(by)
}

/// Changes a value kept as JSON, beginning with the default when there is none, and returns what `change`
/// returns. It stays, also where it had a time to live.
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
/// State cannot be reached or does not take the value, or what is there is no such JSON.
pub fn update<T, R>(key: &str, change: impl FnOnce(&mut T) -> R) -> Result<R, Failure>
where
    T: DeserializeOwned + Serialize + Default,
{
    let mut value = get_json(key)?.unwrap_or_default();
    let result = change(&mut value);
    set_json(key, &value)?;
    Ok(result)
}

/// The keys that begin with a prefix, in byte order, fetched page by page.
pub fn keys(prefix: impl Into<String>) -> Keys {
    Keys { prefix: prefix.into(), page: Vec::new().into_iter(), next: Next::First }
}

/// See [`keys`]. Ends after an error.
pub struct Keys {
    prefix: String,
    page: IntoIter<String>,
    next: Next,
}

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
