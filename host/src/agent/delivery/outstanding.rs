//! The requests that an agent's handlers wait for, by which deadlocks are found.

use std::sync::Arc;

use caxton_control::deadlock::{AgentWaits, PendingRequest};
use parking_lot::Mutex;

use crate::agent::{Agent, CONVERSATIONS};

/// The requests for whose answers the handlers of an agent wait.
#[derive(Default)]
pub(in crate::agent) struct OutstandingRequests {
    state: Mutex<RequestTable>,
}

#[derive(Default)]
struct RequestTable {
    asks: Vec<PendingRequest<Arc<str>>>,
    /// The number of requests so far, which makes ids.
    count: u64,
}

/// A request that is outstanding until this is dropped.
pub(crate) struct OutstandingRequest {
    asker: Arc<Agent>,
    id: u64,
}

impl Drop for OutstandingRequest {
    fn drop(&mut self) {
        let mut state = self.asker.outstanding.state.lock();
        if let Some(at) = state.asks.iter().position(|asks| asks.id == self.id) {
            // Swapped, because their order means nothing.
            state.asks.swap_remove(at);
        }
    }
}

impl Agent {
    /// Registers that a handler waits for the answer of `to` in a conversation. `handler` identifies the handler among
    /// those at work for this agent; `within` is the conversation of its message.
    pub(crate) fn register_request(
        self: &Arc<Self>,
        handler: u64,
        within: &str,
        to: &Self,
        conversation: &str,
    ) -> OutstandingRequest {
        let (within, conversation) = (CONVERSATIONS.hash_one(within), CONVERSATIONS.hash_one(conversation));
        let mut state = self.outstanding.state.lock();
        state.count += 1;
        let id = state.count;
        state.asks.push(PendingRequest { id, handler, within, to: to.name.shared(), conversation });
        OutstandingRequest { asker: Arc::clone(self), id }
    }

    /// Returns the agent's part in the graph of waits.
    pub(crate) fn standing(&self) -> AgentWaits<Arc<str>> {
        AgentWaits {
            // An agent without a revision will have one.
            capacity: self.traffic.load().as_ref().map_or(u32::MAX, |traffic| traffic.max()),
            order: self.spec.load().mailbox.order,
            // Copied, so that no two agents' locks are held at once while the graph is searched.
            requests: self.outstanding.state.lock().asks.clone(),
        }
    }

    /// Returns `true` if a handler of the agent waits for an answer.
    pub(crate) fn is_asking(&self) -> bool {
        !self.outstanding.state.lock().asks.is_empty()
    }
}
