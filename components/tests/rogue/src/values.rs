//! Actions on state.

use std::time::Duration;

use caxton_sdk::StateError;
use caxton_sdk::bindings::caxton::agent::state::list_keys;
use caxton_sdk::prelude::*;
use serde_json::{Value, json};

pub(crate) fn get(key: &str) -> Value {
    match state::get(key) {
        Ok(value) => json!({ "value": value.map(|value| String::from_utf8_lossy(&value).into_owned()) }),
        Err(error) => describe(&error),
    }
}

pub(crate) fn remove(key: &str) -> Value {
    state::remove(key).map_or_else(|error| describe(&error), |()| json!({}))
}

pub(crate) fn increment(key: &str, by: i64) -> Value {
    state::increment(key, by).map_or_else(|error| describe(&error), |sum| json!({ "sum": sum }))
}

pub(crate) fn add(key: &str, by: i64) -> Value {
    state::add(key, by).map_or_else(|error| describe(&error), |()| json!({}))
}

pub(crate) fn record(text: String, conversation: &str) -> Result<Value, Failure> {
    state::update(&format!("record/{conversation}"), |texts: &mut Vec<String>| {
        texts.push(text);
        json!({ "texts": texts })
    })
}

pub(crate) fn set(key: &str, value: &[u8], count: Option<u32>) -> Value {
    let Some(count) = count else {
        return state::set(key, value).map_or_else(|error| describe(&error), |()| json!({ "written": 1 }));
    };
    for number in 0..count {
        if let Err(error) = state::set(&format!("{key}{number:04}"), value) {
            let mut outcome = describe(&error);
            outcome["written"] = json!(number);
            return outcome;
        }
    }
    json!({ "written": count })
}

pub(crate) fn set_for(key: &str, value: &str, time: Duration) -> Value {
    state::set_for(key, value.as_bytes(), time).map_or_else(|error| describe(&error), |()| json!({ "written": 1 }))
}

pub(crate) fn keys(prefix: &str, limit: u32, pages: u32) -> Value {
    let (mut keys, mut cursor, mut fetched) = (Vec::new(), None::<String>, 0);
    while fetched < pages {
        match list_keys(prefix, cursor.as_deref(), limit) {
            Ok(page) => {
                fetched += 1;
                keys.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            Err(error) => return describe(&error),
        }
    }
    json!({ "keys": keys, "pages": fetched, "more": cursor.is_some() })
}

fn describe(error: &StateError) -> Value {
    match error {
        StateError::Quota(limit) => json!({ "error": "quota", "detail": limit }),
        StateError::InvalidKey(limit) => json!({ "error": "invalid-key", "detail": limit }),
        StateError::TooLarge(limit) => json!({ "error": "too-large", "detail": limit }),
        StateError::TooManyWrites(limit) => json!({ "error": "too-many-writes", "detail": limit }),
        StateError::NotANumber => json!({ "error": "not-a-number" }),
        StateError::Unavailable(reason) => json!({ "error": "unavailable", "detail": reason }),
    }
}
