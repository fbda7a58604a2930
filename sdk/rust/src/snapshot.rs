//! Saving and restoring the memory of a [`StatefulAgent`](crate::StatefulAgent) as JSON.
//!
//! Give new fields `#[serde(default)]`, and a new revision restores what an earlier one saved.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// For [`StatefulAgent::save`](crate::StatefulAgent::save).
///
/// # Errors
/// The value has no form in JSON.
pub fn to_json<T: Serialize>(agent: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(agent).map_err(|error| error.to_string())
}

/// For [`StatefulAgent::restore`](crate::StatefulAgent::restore).
///
/// # Errors
/// The bytes are no such JSON.
pub fn from_json<T: DeserializeOwned>(saved: &[u8]) -> Result<T, String> {
    serde_json::from_slice(saved).map_err(|error| format!("what was saved cannot be read: {error}"))
}
