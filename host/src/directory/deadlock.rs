//! Deadlocks: agents that wait for each other's answers.

use std::sync::Arc;

use caxton_control::deadlock::StuckRequests;

use super::HostDirectory;
use crate::agent::{Agent, conversation_hash};

/// The looks at a changing graph before it is left to the next request: each costs the asker some time.
const LOOKS: usize = 16;

impl HostDirectory {
    /// Returns the cycle of agents if the request of `from` to `to` would never be handled, because all that it has to
    /// wait for waits for an answer itself. The request is among the outstanding ones.
    pub(super) fn find_deadlock(&self, from: &Agent, to: &Agent, conversation: &str) -> Option<Vec<String>> {
        // The common case costs one lock: an agent that waits for nothing deadlocks with nobody.
        if !to.is_asking() {
            return None;
        }
        let (conversation, name) = (conversation_hash(conversation), to.name().shared());
        let routes = self.routes.load();
        let look = || {
            StuckRequests::find(&name, conversation, |name: &Arc<str>| {
                routes.including_retiring(name).map(|agent| agent.waits())
            })
        };
        let mut before = None;
        for _ in 0..LOOKS {
            let found = look();
            if !found.is_stuck(&name, conversation) {
                return None;
            }
            // They go on while they are looked at, one after the other: what two looks find stood at one moment.
            if before.as_ref() == Some(&found) {
                let cycle = found.cycle(&from.name().shared(), &name);
                return Some(cycle.iter().map(ToString::to_string).collect());
            }
            before = Some(found);
        }
        None
    }
}
