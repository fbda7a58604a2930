//! The times at which agents look at their mailboxes again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The agents to wake, by time.
pub(crate) struct Wakeups<A> {
    due: Mutex<Due<A>>,
    /// A notification that the first time has become an earlier one.
    sooner: Notify,
}

struct Due<A> {
    /// The agents by time, and by a number that makes keys of one time different.
    agents: BTreeMap<(u64, u64), Weak<A>>,
    count: u64,
}

impl<A> Default for Wakeups<A> {
    fn default() -> Self {
        Self { due: Mutex::new(Due { agents: BTreeMap::new(), count: 0 }), sooner: Notify::new() }
    }
}

impl<A> Wakeups<A> {
    /// Registers an agent to be woken at a time of the steady clock.
    pub(crate) fn wake(&self, at: u64, agent: &Weak<A>) {
        let first = {
            let mut due = self.due.lock();
            let first = due.agents.first_key_value().is_none_or(|((first, _), _)| at < *first);
            // Agents share times, and a map has one value for a key.
            due.count += 1;
            let count = due.count;
            // Earlier entries of the agent stay: a wake-up in vain costs less than a search.
            due.agents.insert((at, count), Weak::clone(agent));
            first
        };
        // The task sleeps until the first time; a later one does not change that.
        if first {
            self.sooner.notify_one();
        }
    }

    /// Removes the agents that are due. Returns them, and the time of the next.
    pub(crate) fn take_due(&self, now: u64) -> (Vec<Arc<A>>, Option<u64>) {
        let mut due = self.due.lock();
        let later = due.agents.split_off(&(now.saturating_add(1), 0));
        let ready = std::mem::replace(&mut due.agents, later);
        let next = due.agents.first_key_value().map(|((at, _), _)| *at);
        // Weak: a removed agent is not kept alive by its wake-up.
        (ready.into_values().filter_map(|agent| agent.upgrade()).collect(), next)
    }

    /// Waits until the first time becomes an earlier one.
    pub(crate) async fn until_sooner(&self) {
        self.sooner.notified().await;
    }
}
