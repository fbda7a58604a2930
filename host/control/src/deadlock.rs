//! Detects deadlocks: agents that wait for each other's answers.
//!
//! A handler that waits for an answer holds two resources until it comes: one of its agent's turns (an agent has as
//! many as instances), and its lane (the conversation, or the whole agent, depending on `mailbox.order`). A request is
//! stuck if it can only be handled after handlers whose own requests are stuck. The origin of the requests does not
//! matter, only the resources held.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::MailboxOrder;

/// A request whose answer a handler waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRequest<N> {
    /// The request's id, unique among all requests of the agent.
    pub id: u64,
    /// The handler's id, unique in its agent. A handler with several requests waits for all answers.
    pub handler: u64,
    /// The conversation of the message that the handler handles.
    pub within: u64,
    /// The agent that was asked.
    pub to: N,
    /// The conversation of the request.
    pub conversation: u64,
}

/// The resources of an agent and the requests that hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentWaits<N> {
    /// The number of messages that it can handle at once.
    pub capacity: u32,
    /// The order in which it handles messages.
    pub order: MailboxOrder,
    /// The unanswered requests of its handlers.
    pub requests: Vec<PendingRequest<N>>,
}

impl<N> AgentWaits<N> {
    /// Returns `true` if a message of this conversation has to wait for answers that the agent's handlers wait for.
    pub fn blocks(&self, conversation: u64) -> bool {
        let has_lane = |asks: &PendingRequest<N>| match self.order {
            MailboxOrder::Agent => true,
            MailboxOrder::Conversation => asks.within == conversation,
            MailboxOrder::None => false,
        };
        if self.requests.iter().any(has_lane) {
            return true;
        }
        // A handler has at least one request, so fewer requests than turns leave a turn free. This spares counting
        // handlers.
        if self.requests.is_empty() || self.requests.len() < self.capacity as usize {
            return false;
        }
        let handlers: BTreeSet<u64> = self.requests.iter().map(|asks| asks.handler).collect();
        handlers.len() >= self.capacity as usize
    }
}

/// The stuck requests, by the agent whose handlers wait for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StuckRequests<N> {
    agents: BTreeMap<N, AgentWaits<N>>,
}

impl<N: Ord + Clone> StuckRequests<N> {
    /// Finds the stuck requests that keep a message for `to` in `conversation` from being handled. `look` returns the
    /// present state of an agent, or `None` if there is none of this name.
    ///
    /// Agents may be looked at one after another while they run: a request that two looks find was there the whole time
    /// between them.
    pub fn find(to: &N, conversation: u64, look: impl FnMut(&N) -> Option<AgentWaits<N>>) -> Self {
        // At first all requests count as stuck; what can go on is taken away.
        let mut stuck = Self { agents: reach(to, conversation, look) };
        // To a fixed point: a freed handler may free others.
        while stuck.release_free() {}
        stuck
    }

    /// Removes the handlers whose requests can all be handled; others may be able to continue after them. Returns
    /// `false` if there are none.
    fn release_free(&mut self) -> bool {
        let mut free = Vec::new();
        for (name, agent) in &self.agents {
            let waits = |asks: &&PendingRequest<N>| self.is_stuck(&asks.to, asks.conversation);
            let stuck: BTreeSet<u64> = agent.requests.iter().filter(waits).map(|asks| asks.handler).collect();
            if agent.requests.iter().any(|asks| !stuck.contains(&asks.handler)) {
                free.push((name.clone(), stuck));
            }
        }
        // Applied after the search, so that the order of agents does not matter within a round.
        for (name, stuck) in &free {
            if let Some(agent) = self.agents.get_mut(name) {
                agent.requests.retain(|asks| stuck.contains(&asks.handler));
            }
        }
        self.agents.retain(|_, agent| !agent.requests.is_empty());
        !free.is_empty()
    }

    /// Returns `true` if a message for `to` in `conversation` would never be handled.
    pub fn is_stuck(&self, to: &N, conversation: u64) -> bool {
        self.agents.get(to).is_some_and(|agent| agent.blocks(conversation))
    }

    /// Returns the cycle of agents for an error message: from `to`, which `from` asked, over the agents that wait for
    /// each other to `from` and `to` again. If `from` is not among the agents waited for, `to` twice.
    pub fn cycle(&self, from: &N, to: &N) -> Vec<N> {
        // The path begins with the agent that the new request is for, as the reader of the error knows it.
        let mut path = vec![to.clone()];
        self.search(from, to, &mut BTreeSet::from([to]), &mut path);
        path.push(to.clone());
        path
    }

    /// Searches depth-first along the stuck requests from `at` for `wanted`. Returns `false` and leaves the path
    /// unchanged if it is not found.
    fn search<'a>(&'a self, wanted: &N, at: &N, seen: &mut BTreeSet<&'a N>, path: &mut Vec<N>) -> bool
    where
        N: 'a,
    {
        if at == wanted {
            return true;
        }
        let Some(agent) = self.agents.get(at) else { return false };
        for asks in &agent.requests {
            // Each agent once, since the search would not end in a cycle without `wanted`.
            if self.is_stuck(&asks.to, asks.conversation) && seen.insert(&asks.to) {
                path.push(asks.to.clone());
                if self.search(wanted, &asks.to, seen, path) {
                    return true;
                }
                path.pop();
            }
        }
        false
    }
}

/// Collects the agents that keep `to` waiting in a conversation, those that these wait for, and so on.
fn reach<N: Ord + Clone>(
    to: &N,
    conversation: u64,
    mut look: impl FnMut(&N) -> Option<AgentWaits<N>>,
) -> BTreeMap<N, AgentWaits<N>> {
    let mut agents = BTreeMap::new();
    // Without recursion: a chain of agents may be as long as there are agents.
    let mut left = vec![(to.clone(), conversation)];
    let mut seen: BTreeSet<(N, u64)> = left.iter().cloned().collect();
    while let Some((name, conversation)) = left.pop() {
        // Each agent is looked at once, so that one search sees one state of it.
        if !agents.contains_key(&name) {
            let Some(agent) = look(&name) else { continue };
            agents.insert(name.clone(), agent);
        }
        let agent: &AgentWaits<N> = &agents[&name];
        if agent.blocks(conversation) {
            let beyond = agent.requests.iter().map(|asks| (asks.to.clone(), asks.conversation));
            left.extend(beyond.filter(|next| seen.insert(next.clone())));
        }
    }
    agents
}
