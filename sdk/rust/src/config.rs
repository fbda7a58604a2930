//! The `config` table of this agent's declaration.

use std::fmt::Display;
use std::str::FromStr;

use crate::Failure;
use crate::bindings::wasi::config::store;

/// Returns the value of a key as text; `None` if the key is missing.
///
/// # Errors
/// The host cannot read the configuration at the moment.
pub fn get(key: &str) -> Result<Option<String>, Failure> {
    store::get(key).map_err(failure)
}

/// Returns the value of a key, parsed as a number or another type; `None` if the key is missing.
///
/// # Errors
/// The value cannot be parsed, or the host cannot read the configuration at the moment.
pub fn parse<T>(key: &str) -> Result<Option<T>, Failure>
where
    T: FromStr<Err: Display>,
{
    let Some(text) = get(key)? else { return Ok(None) };
    // A fault and not `rejected`: the declaration is wrong, and not the message.
    text.parse().map(Some).map_err(|error| Failure::fault(format!("config.{key} is {text:?}: {error}")))
}

/// Returns all keys and values.
///
/// # Errors
/// The host cannot read the configuration at the moment.
pub fn all() -> Result<Vec<(String, String)>, Failure> {
    store::get_all().map_err(failure)
}

fn failure(error: store::Error) -> Failure {
    let (store::Error::Upstream(reason) | store::Error::Io(reason)) = error;
    // Both kinds may pass, so another attempt is worth it.
    Failure::unavailable(format!("the configuration cannot be read: {reason}"))
}
