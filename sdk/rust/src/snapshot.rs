//! Snapshots of a [`StatefulAgent`](crate::StatefulAgent) as JSON.
//!
//! With `#[serde(default)]` on new fields, a new revision can restore snapshots of an earlier one.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Saves an agent as JSON, for [`StatefulAgent::save`](crate::StatefulAgent::save).
///
/// # Errors
/// The value cannot be written as JSON.
pub fn to_json<T: Serialize>(agent: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(agent).map_err(|error| error.to_string())
}

/// Restores an agent from JSON, for [`StatefulAgent::restore`](crate::StatefulAgent::restore).
///
/// # Errors
/// The bytes are not JSON of this type.
pub fn from_json<T: DeserializeOwned>(saved: &[u8]) -> Result<T, String> {
    serde_json::from_slice(saved).map_err(|error| format!("what was saved cannot be read: {error}"))
}
