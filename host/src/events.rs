//! Events of the host: recorded in the store, and followed by the API.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast;

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

    /// Records an event. `data` is a JSON object. Returns before it is durable.
    pub(crate) fn emit(&self, agent: Option<&str>, kind: &str, data: Value) {
        // The writer of the store replaces the id: ids are in the order of commits.
        let event = Event { id: 0, at: clock::now_ms(), agent: agent.map(str::to_owned), kind: kind.to_owned(), data };
        self.store.events().keep(event);
    }

    /// Subscribes to the events that are committed from now on, with their ids.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.store.events().follow()
    }
}
