//! The last messages that an agent handled, kept where its changes are to be rehearsed with them.

use std::collections::VecDeque;

use caxton_control::{AgentSpec, Desired};

use crate::agent::Agent;
use crate::agent::shadow::encode_answer;
use crate::message::{Envelope, Message, Reply};
use crate::store::Store;

/// The most bytes that are kept of one agent's messages and answers.
const MAX_BYTES: usize = 64 << 20;

/// The messages that the store keeps, the oldest first; `None` until it was read.
#[derive(Debug, Default)]
pub(in crate::agent) struct RecentMessages(Option<KeptMessages>);

#[derive(Debug)]
struct KeptMessages {
    next: u64,
    /// Bytes of each.
    sizes: VecDeque<usize>,
    bytes: usize,
}

impl RecentMessages {
    /// Adds a message. Returns its number, and the number of the first that is still kept.
    fn push(&mut self, load: impl FnOnce() -> Vec<(u64, usize)>, bytes: usize, limit: usize) -> (u64, u64) {
        let kept = self.0.get_or_insert_with(|| {
            let known = load();
            KeptMessages {
                next: known.last().map_or(1, |(seq, _)| seq + 1),
                bytes: known.iter().map(|(_, bytes)| bytes).sum(),
                sizes: known.into_iter().map(|(_, bytes)| bytes).collect(),
            }
        });
        let seq = kept.next;
        kept.next += 1;
        kept.sizes.push_back(bytes);
        kept.bytes += bytes;
        // The newest goes as well if it is larger than the bound alone.
        while kept.sizes.len() > limit || kept.bytes > MAX_BYTES {
            let Some(gone) = kept.sizes.pop_front() else { break };
            kept.bytes -= gone;
        }
        (seq, kept.next - kept.sizes.len() as u64)
    }
}

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

    /// Keeps a message that was handled well with its answer, if changes of this agent are rehearsed.
    pub(in crate::agent) fn keep_recent(&self, message: &Message, hops: u32, answer: Option<Vec<u8>>) {
        let limit = rehearsed(&self.spec.load());
        if limit == 0 {
            return;
        }
        // Rebuilt from the message: a rehearsal needs nothing of its delivery but the hops.
        let envelope = Envelope { hops, ..Envelope::new(message.clone()) };
        let bytes = message.content.len() + answer.as_ref().map_or(0, Vec::len);
        let mut recent = self.recent.lock();
        // Read once for each start of the host; afterwards the sizes are known here.
        let load = || self.context.store.recent().sizes(self.name.as_str()).unwrap_or_default();
        let (seq, first) = recent.push(load, bytes, limit as usize);
        // Under the lock: their numbers come to the store in order.
        self.context.store.recent().keep(seq, first, Box::new(envelope), answer);
    }

    /// Deletes the kept messages.
    pub(in crate::agent) fn forget_recent(&self) {
        *self.recent.lock() = RecentMessages(None);
        self.context.store.recent().forget(self.name.shared());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_within_their_bounds() {
        let mut recent = RecentMessages::default();
        let known = || vec![(7, 10), (8, 10)];
        assert_eq!(recent.push(known, 10, 3), (9, 7));
        assert_eq!(recent.push(Vec::new, 10, 3), (10, 8));
        assert_eq!(recent.push(Vec::new, 10, 1), (11, 11), "a lower limit");
        assert_eq!(recent.push(Vec::new, MAX_BYTES, 9), (12, 12), "too many bytes");
        assert_eq!(RecentMessages::default().push(Vec::new, 1, 9), (1, 1));
    }
}
