//! What the declaration of this agent says in its `config`.

use std::fmt::Display;
use std::str::FromStr;

use crate::Failure;
use crate::bindings::wasi::config::store;

/// The value of a key as text; none when there is none.
///
/// # Errors
/// The host cannot read its configuration at the moment.
pub fn get(key: &str) -> Result<Option<String>, Failure> {
    store::get(key).map_err(failure)
}

/// The value of a key as a number or anything else that has a form as text; none when there is none.
///
/// # Errors
/// The value is no such thing, or the host cannot read its configuration at the moment.
pub fn parse<T>(key: &str) -> Result<Option<T>, Failure>
where
    T: FromStr<Err: Display>,
{
    let Some(text) = get(key)? else { return Ok(None) };
    text.parse().map(Some).map_err(|error| Failure::fault(format!("config.{key} is {text:?}: {error}")))
}

/// All keys and values.
///
/// # Errors
/// The host cannot read its configuration at the moment.
pub fn all() -> Result<Vec<(String, String)>, Failure> {
    store::get_all().map_err(failure)
}

fn failure(error: store::Error) -> Failure {
    let (store::Error::Upstream(reason) | store::Error::Io(reason)) = error;
    Failure::unavailable(format!("the configuration cannot be read: {reason}"))
}
