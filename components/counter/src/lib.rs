//! Counts in its state: `{"by": 3}` adds 3, an empty content adds 1, and the answer is `{"count": SUM}`.
//!
//! `counter-js` and `counter-python` give the same answers to the same messages.

use caxton_sdk::prelude::*;
use serde_json::{Value, json};

/// The integers that every language can read from JSON.
const LARGEST: i64 = (1 << 53) - 1;

struct Counter;

impl Agent for Counter {
    fn handle(message: Message) -> Handled {
        let by = read_step(&message.content)
            .ok_or_else(|| Failure::rejected("the content must be empty or {\"by\": INTEGER}"))?;
        let count = state::increment("count", by)?;
        if count.abs() > LARGEST {
            // The failure takes the increment back.
            return Err(Failure::rejected("the sum would be too large"));
        }
        Ok(Some(Reply::json(&json!({ "count": count }))?))
    }
}

/// Returns the number to add; `None` if the content is no such number.
fn read_step(content: &[u8]) -> Option<i64> {
    if content.is_empty() {
        return Some(1);
    }
    let Ok(Value::Object(step)) = serde_json::from_slice(content) else { return None };
    if step.keys().any(|key| key != "by") {
        return None;
    }
    let by = step.get("by").map_or(Some(1.0), Value::as_f64)?;
    let is_whole = by.fract() == 0.0 && by.abs() <= LARGEST as f64;
    is_whole.then_some(by as i64)
}

caxton_sdk::agent!(Counter);
