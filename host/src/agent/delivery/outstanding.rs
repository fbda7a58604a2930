//! The requests that an agent's handlers wait for.

use std::sync::Arc;

use caxton_control::deadlock::PendingRequest;
use parking_lot::Mutex;

/// The requests for whose answers the handlers of an agent wait.
#[derive(Default)]
pub(in crate::agent) struct OutstandingRequests {
    state: Mutex<RequestTable>,
}

#[derive(Default)]
struct RequestTable {
    requests: Vec<PendingRequest<Arc<str>>>,
    /// The number of requests so far, which makes ids.
    count: u64,
}

/// A request that is outstanding until this is dropped.
pub(crate) struct OutstandingRequest {
    outstanding: Arc<OutstandingRequests>,
    id: u64,
}

impl Drop for OutstandingRequest {
    fn drop(&mut self) {
        let mut state = self.outstanding.state.lock();
        if let Some(at) = state.requests.iter().position(|request| request.id == self.id) {
            // Swapped, because their order means nothing.
            state.requests.swap_remove(at);
        }
    }
}

impl OutstandingRequests {
    /// Registers that a handler waits for the answer of `to` in a conversation. `handler` identifies the handler among
    /// those at work for its agent; `within` is the conversation of its message.
    pub(super) fn register(
        self: &Arc<Self>,
        handler: u64,
        within: u64,
        to: Arc<str>,
        conversation: u64,
    ) -> OutstandingRequest {
        let mut state = self.state.lock();
        state.count += 1;
        let id = state.count;
        state.requests.push(PendingRequest { id, handler, within, to, conversation });
        OutstandingRequest { outstanding: Arc::clone(self), id }
    }

    /// Returns a copy of the requests.
    pub(super) fn list(&self) -> Vec<PendingRequest<Arc<str>>> {
        self.state.lock().requests.clone()
    }

    /// Returns `true` if no handler waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().requests.is_empty()
    }
}
