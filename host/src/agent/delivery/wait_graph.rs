//! The agent's part in the graph of waits, by which deadlocks are found.

use std::sync::Arc;

use caxton_control::deadlock::AgentWaits;

use crate::agent::delivery::outstanding::OutstandingRequest;
use crate::agent::{Agent, conversation_hash};

impl Agent {
    /// Registers that a handler waits for the answer of `to` in a conversation. `handler` identifies the handler among
    /// those at work for this agent; `within` is the conversation of its message.
    pub(crate) fn register_request(
        &self,
        handler: u64,
        within: &str,
        to: &Self,
        conversation: &str,
    ) -> OutstandingRequest {
        let (within, conversation) = (conversation_hash(within), conversation_hash(conversation));
        self.outstanding.register(handler, within, to.name.shared(), conversation)
    }

    /// Returns the agent's part in the graph of waits.
    pub(crate) fn waits(&self) -> AgentWaits<Arc<str>> {
        AgentWaits {
            // An agent without a revision will have one.
            capacity: self.traffic.load().as_ref().map_or(u32::MAX, |traffic| traffic.max()),
            order: self.spec.load().mailbox.order,
            // Copied, so that no two agents' locks are held at once while the graph is searched.
            requests: self.outstanding.list(),
        }
    }

    /// Returns `true` if a handler of the agent waits for an answer.
    pub(crate) fn is_asking(&self) -> bool {
        !self.outstanding.is_empty()
    }
}
