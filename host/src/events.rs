//! What happens in the host, kept in the store and followed by people and programs.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast;

use crate::clock;
use crate::store::{Event, Store};

/// Where events are told.
pub(crate) struct Events {
    store: Arc<Store>,
}

impl Events {
    /// Events that are kept in `store`.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Tells that something happened. `data` is an object.
    pub(crate) fn tell(&self, agent: Option<&str>, kind: &str, data: Value) {
        let event = Event { id: 0, at: clock::now_ms(), agent: agent.map(str::to_owned), kind: kind.to_owned(), data };
        self.store.keep_event(event);
    }

    /// All events that are committed from now on, with their ids.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.store.follow_events()
    }
}
