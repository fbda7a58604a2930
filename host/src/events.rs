//! Events of the host: recorded in the store, and followed by the API.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast;

use crate::bounds;
use crate::clock;
use crate::store::{Event, Store};

/// The writer of events.
pub(crate) struct Events {
    store: Arc<Store>,
}

impl Events {
    /// Creates the writer of events to `store`.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Records an event. `data` is a JSON object, whose texts are made plain. Returns before it is durable.
    pub(crate) fn emit(&self, agent: Option<&str>, kind: &str, mut data: Value) {
        make_plain(&mut data);
        // The writer of the store replaces the id: ids are in the order of commits.
        let event = Event { id: 0, at: clock::now_ms(), agent: agent.map(str::to_owned), kind: kind.to_owned(), data };
        self.store.events().keep(event);
    }

    /// Subscribes to the events that are committed from now on, with their ids.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.store.events().follow()
    }
}

/// Escapes what would control a terminal, or turn around, the texts of an event: they quote guests, callers and files.
fn make_plain(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(plain) = bounds::plain(text) {
                *text = plain;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_plain),
        Value::Object(fields) => fields.values_mut().for_each(make_plain),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_events_are_plain() {
        let mut data = json!({ "why": "a\u{202e}b", "list": [{ "text": "\u{1b}[2J" }], "count": 1, "name": "grün" });
        make_plain(&mut data);
        let expected = json!({ "why": "a\\u{202e}b", "list": [{ "text": "\\u{1b}[2J" }], "count": 1, "name": "grün" });
        assert_eq!(data, expected);
    }
}
