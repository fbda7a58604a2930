//! What an agent's handlers wait for, so that agents that wait for each other for ever are told so at once.

use std::sync::Arc;

use caxton_control::deadlock::{Asks, Standing, Stuck};
use parking_lot::Mutex;

use super::{Agent, CONVERSATIONS};
use crate::context::HostContext;

/// Looks at what keeps changing before it is left to whoever asks next: each of them costs the asker some time.
const LOOKS: usize = 16;

/// The questions that the handlers of one agent wait for the answers to.
#[derive(Default)]
pub(super) struct Asking {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asks: Vec<Asks<Arc<str>>>,
    /// All that there ever were.
    count: u64,
}

/// A question, until somebody stops waiting for its answer.
pub(crate) struct Asked {
    asker: Arc<Agent>,
    id: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.asker.asking.state.lock();
        if let Some(at) = state.asks.iter().position(|asks| asks.id == self.id) {
            state.asks.swap_remove(at);
        }
    }
}

impl Agent {
    /// Takes note that a handler waits for the answer of `to` in a conversation. `handler` tells it from the others that
    /// are at work for this agent, and `within` is the conversation of its message.
    pub(crate) fn asks(self: &Arc<Self>, handler: u64, within: &str, to: &Self, conversation: &str) -> Asked {
        let (within, conversation) = (CONVERSATIONS.hash_one(within), CONVERSATIONS.hash_one(conversation));
        let mut state = self.asking.state.lock();
        state.count += 1;
        let id = state.count;
        state.asks.push(Asks { id, handler, within, to: to.name.shared(), conversation });
        Asked { asker: Arc::clone(self), id }
    }

    /// What keeps its messages waiting, and so whoever asks it something.
    fn standing(&self) -> Standing<Arc<str>> {
        Standing {
            // An agent without a revision will have one.
            turns: self.traffic.load().as_ref().map_or(u32::MAX, |traffic| traffic.max()),
            order: self.spec.load().mailbox.order,
            asks: self.asking.state.lock().asks.clone(),
        }
    }

    /// Whether any of its handlers waits for an answer.
    fn is_asking(&self) -> bool {
        !self.asking.state.lock().asks.is_empty()
    }
}

impl HostContext {
    /// Whether what `from` asked `to` in a conversation would never be handled, because all that it has to wait for waits
    /// for an answer itself; and then who waits for whom. The question is among those that were noted.
    pub(crate) fn find_deadlock(&self, from: &Agent, to: &Agent, conversation: &str) -> Option<Vec<String>> {
        if !to.is_asking() {
            return None;
        }
        let (conversation, name) = (CONVERSATIONS.hash_one(conversation), to.name.shared());
        let routes = self.routes.load();
        let look =
            || Stuck::find(&name, conversation, |name: &Arc<str>| routes.present(name).map(|agent| agent.standing()));
        let mut before = None;
        for _ in 0..LOOKS {
            let found = look();
            if !found.keep_waiting(&name, conversation) {
                return None;
            }
            // They go on while they are looked at, one after the other: what two looks find stood at one moment.
            if before.as_ref() == Some(&found) {
                let cycle = found.cycle(&from.name.shared(), &name);
                return Some(cycle.iter().map(ToString::to_string).collect());
            }
            before = Some(found);
        }
        None
    }
}
