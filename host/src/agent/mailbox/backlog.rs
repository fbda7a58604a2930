//! Messages that the store has at the start of the host.

use std::collections::{HashMap, HashSet};

use crate::agent::conversation_hash::CONVERSATIONS;
use crate::store::{Queued, Store};

/// The messages that waited when the host started, until their agents take them, and the mailboxes that an operator has
/// paused.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: HashMap<String, Vec<Queued>>,
    paused: HashSet<String>,
}

/// Reads the backlog from the store.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn backlog(store: &Store) -> Result<Backlog, String> {
    // Read at once for all agents: one scan instead of one for each of ten thousand.
    Ok(Backlog {
        waiting: store.queue().queued(&*CONVERSATIONS)?,
        paused: store.queue().paused()?.into_iter().collect(),
    })
}

impl Backlog {
    /// Takes the messages of an agent. Returns also `true` if an operator has paused its mailbox.
    pub(in crate::agent) fn take(&mut self, agent: &str) -> (Vec<Queued>, bool) {
        // The pause stays recorded, for an agent of this name that is declared again.
        (self.waiting.remove(agent).unwrap_or_default(), self.paused.contains(agent))
    }

    /// Records that an operator has paused or resumed the mailbox of an agent.
    pub(super) fn set_paused(&mut self, agent: &str, paused: bool) {
        if paused {
            self.paused.insert(agent.to_owned());
        } else {
            self.paused.remove(agent);
        }
    }

    /// Returns how many messages wait for each agent that has not taken them yet.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&str, u64)> {
        self.waiting.iter().map(|(name, waiting)| (name.as_str(), waiting.len() as u64))
    }

    /// Takes the messages of all agents but these.
    pub(crate) fn take_others(&mut self, known: impl Fn(&str) -> bool) -> Vec<(String, Vec<Queued>)> {
        // Collected first: the map cannot be changed while its keys are read.
        let others: Vec<String> = self.waiting.keys().filter(|name| !known(name)).cloned().collect();
        others.into_iter().filter_map(|name| self.waiting.remove_entry(&name)).collect()
    }
}
