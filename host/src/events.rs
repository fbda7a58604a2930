//! What happens in the host, kept in the store and followed by people and programs.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast;

use crate::clock;
use crate::store::{Event, Store};

/// Events that a slow follower may be behind before it misses some.
const FOLLOW: usize = 1_024;

/// Where events are told.
pub(crate) struct Events {
    store: Arc<Store>,
    follow: broadcast::Sender<Arc<Event>>,
}

impl Events {
    /// Events that are kept in `store`.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, follow: broadcast::channel(FOLLOW).0 }
    }

    /// Tells that something happened. `data` is an object.
    pub(crate) fn tell(&self, agent: Option<&str>, kind: &str, data: Value) {
        let event = Event { id: 0, at: clock::now_ms(), agent: agent.map(str::to_owned), kind: kind.to_owned(), data };
        // Nobody may follow.
        let _ = self.follow.send(Arc::new(event.clone()));
        self.store.keep_event(event);
    }

    /// All events from now on; their ids are not known yet.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.follow.subscribe()
    }
}
