//! The last messages that an agent handled, kept where its changes are to be rehearsed with them.

use caxton_control::memory::MemoryPriority;
use caxton_control::{AgentSpec, Desired};

use crate::agent::Agent;
use crate::agent::shadow::encode_answer;
use crate::agent::state::recent::RecentMessages;
use crate::memory_budget::MemoryKind;
use crate::message::{Envelope, Message, Reply};
use crate::store::Store;

/// The largest message that is not counted by itself on its way to the store.
const SMALL: usize = 4 << 10;

/// Deletes messages that were kept for rehearsals which are not declared any more: of agents that are not declared, or
/// whose `rehearse` became 0 while no host ran.
pub(crate) fn forget_unwanted(store: &Store, desired: &Desired) {
    let agents = store.recent().agents().unwrap_or_else(|error| {
        tracing::error!(error, "which messages are kept for rehearsals cannot be read; they stay");
        Vec::new()
    });
    let wanted = |name: &String| desired.agents.get(name.as_str()).is_some_and(|spec| rehearsed(spec) > 0);
    for name in agents.into_iter().filter(|name| !wanted(name)) {
        tracing::debug!(agent = name, "the messages that were kept for rehearsals are let go");
        store.recent().forget(name.into());
    }
}

/// Returns the number of messages to keep.
fn rehearsed(spec: &AgentSpec) -> u32 {
    spec.rollout.rollback.rehearse
}

impl Agent {
    /// Encodes an answer to be kept with its message, if changes of this agent are rehearsed.
    pub(in crate::agent) fn answer_to_keep(&self, reply: Option<&Reply>) -> Option<Vec<u8>> {
        reply.filter(|_| rehearsed(&self.spec.load()) > 0).map(encode_answer)
    }

    /// Returns `true` if changes of this agent are rehearsed.
    pub(in crate::agent) fn is_rehearsed(&self) -> bool {
        rehearsed(&self.spec.load()) > 0
    }

    /// Keeps a message that was handled well, with its answer and those to its calls over HTTP, if changes of this agent
    /// are rehearsed.
    pub(in crate::agent) fn keep_recent(
        &self,
        message: &Message,
        hops: u32,
        (answer, calls): (Option<Vec<u8>>, Option<Vec<u8>>),
    ) {
        let limit = rehearsed(&self.spec.load());
        if limit == 0 {
            return;
        }
        // Rebuilt from the message: a rehearsal needs nothing of its delivery but the hops.
        let size = |kept: &Option<Vec<u8>>| kept.as_ref().map_or(0, Vec::len);
        let bytes = message.content.len() + size(&answer) + size(&calls);
        let memory = &self.context.memory;
        // A copy, which is the first to go without where memory is short.
        if !memory.is_below(MemoryPriority::Copies) {
            return;
        }
        // Until it is written.
        let held = (bytes > SMALL).then(|| memory.hold(MemoryKind::Messages, bytes as u64));
        let envelope = Envelope { hops, held, ..Envelope::new(message.clone()) };
        let mut recent = self.recent.lock();
        // Read once for each start of the host; afterwards the sizes are known here.
        let load = || self.context.store.recent().sizes(self.name.as_str()).unwrap_or_default();
        let place = recent.push(load, bytes, limit as usize);
        // Under the lock: their numbers come to the store in order.
        self.context.store.recent().keep(place, Box::new(envelope), answer, calls);
    }

    /// Returns the bytes of what is remembered of the agent to be faster, apart from instances and messages.
    pub(crate) fn cached_bytes(&self) -> u64 {
        let shadow = self.shadow.load().as_ref().map_or(0, |shadow| shadow.memory_bytes());
        shadow + self.recent.lock().memory_bytes()
    }

    /// Deletes the kept messages.
    pub(in crate::agent) fn forget_recent(&self) {
        *self.recent.lock() = RecentMessages::default();
        self.context.store.recent().forget(self.name.shared());
    }
}
