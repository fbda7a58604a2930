//! The end of a chain of messages that caused one another (`limits.hops`).
//!
//! Whatever a message causes has one cause more than it: what its handler sends, the reply, the `failure` or
//! `not-understood` that the host says in an agent's place. What has more causes than it may is not delivered; it becomes
//! a dead letter in the commit of the handler that caused it, which stands, with a [notice](super::notice) to its sender if
//! that wants one. An agent that asks and waits is refused instead, and an answer to one that waits always goes through: it ends a chain and makes none longer.
//!
//! What comes by the clock begins a chain of its own: schedules, timers of at least a second to oneself, and what the host
//! says when a conversation has timed out. So does what comes from outside, a dead letter that is redelivered included.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::RevisionId;
use parking_lot::Mutex;
use serde_json::json;

use super::{Agent, Outcomes, Revision};
use crate::clock;
use crate::context::HostContext;
use crate::logs::Line;
use crate::store::{TOO_MANY_HOPS, said};
use crate::wasm::{Envelope, Inbox, act};

/// The shortest time between two lines about chains of one agent that ended. Each end has a dead letter of its own.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// The times at which ends of each agent's chains were told of last, with the number of those since.
#[derive(Default)]
pub(crate) struct Ends(Mutex<HashMap<Arc<str>, (Instant, u64)>>);

impl Ends {
    /// Returns the number of ends that were not told since the last one, if this one is to be told.
    fn tells(&self, agent: &Arc<str>, now: Instant) -> Option<u64> {
        let mut ends = self.0.lock();
        match ends.get_mut(agent) {
            Some((at, untold)) if now.saturating_duration_since(*at) < TOLD_EVERY => {
                *untold += 1;
                None
            }
            Some(told) => Some(std::mem::replace(told, (now, 0)).1),
            None => {
                ends.insert(Arc::clone(agent), (now, 0));
                Some(0)
            }
        }
    }
}

/// The sender of a message that ends a chain, for its log.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    revision: Arc<RevisionId>,
    /// The bound of causes.
    limit: u32,
}

impl Ending {
    /// Makes one of an agent that runs as this revision.
    pub(super) fn new(revision: &Arc<RevisionId>, limit: u32) -> Self {
        Self { revision: Arc::clone(revision), limit }
    }

    /// Makes one of a revision, with the bound that it has.
    pub(super) fn of(revision: &Revision) -> Self {
        Self::new(&revision.id, revision.spec.limits.hops)
    }

    /// The bound of causes.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Writes into the agent's log and the host's that a chain has ended, and tells the event; not more often than once
    /// in a while.
    pub(super) fn tell(&self, context: &HostContext, envelope: &Envelope, is_dead: bool) {
        let agent = self.revision.agent.shared();
        let Some(untold) = context.ends.tells(&agent, Instant::now()) else { return };
        let (message, limit) = (&envelope.message, self.limit);
        let what = if is_dead { "is a dead letter, too-many-hops" } else { "was refused, too-many-hops" };
        let mut text = format!(
            "message {} to {} has more than {limit} causes (limits.hops) and {what}; conversation {}",
            message.id, message.receiver, message.conversation_id
        );
        if untold > 0 {
            text.push_str(&format!("; {untold} more since the last such line"));
        }
        tracing::warn!(agent = %agent, "{text}");
        let line = Line {
            at: clock::now_ms(),
            agent: Arc::clone(&agent),
            revision: self.revision.number,
            level: "warn",
            context: "caxton".to_owned(),
            text,
        };
        context.logs.note(line);
        let data = json!({
            "id": message.id, "receiver": message.receiver, "conversation": message.conversation_id,
            "performative": act(message.performative).to_string(), "limit": limit, "dead_letter": is_dead,
            "untold": untold,
        });
        context.events.tell(Some(&agent), "message.too-many-hops", data);
    }
}

/// The inbox of messages that end a chain, which delivers them to nobody. One is put there when its dead letter is safe.
pub(super) struct End {
    receiver: Arc<Agent>,
    ending: Ending,
}

impl End {
    pub(super) fn inbox(receiver: &Arc<Agent>, ending: Ending) -> Arc<dyn Inbox> {
        Arc::new(Self { receiver: Arc::clone(receiver), ending })
    }
}

impl Inbox for End {
    fn put(&self, envelope: Box<Envelope>) -> bool {
        let (receiver, context) = (&self.receiver, &self.receiver.context);
        // It was taken and given up: what was accepted is still the sum of what became of it.
        receiver.stats.count(Outcomes::Accepted);
        receiver.stats.count(Outcomes::Failed);
        let labels = [("agent", receiver.name.to_string()), ("reason", TOO_MANY_HOPS.to_owned())];
        metrics::counter!("caxton_dead_letters_total", &labels).increment(1);
        // Nobody waits for it, or for an answer to it: its part of the conversation is over.
        context.store.conversations.told(&envelope.message.conversation_id, &said(&envelope));
        self.ending.tell(context, &envelope, true);
        false
    }

    fn work(self: Arc<Self>) {}

    fn reserve_beyond(&self) {}

    /// Does nothing: no place was kept.
    fn release(&self) {}

    fn other(&self, agent: &str) -> Option<Arc<dyn Inbox>> {
        self.receiver.other(agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_now_and_then_with_how_many_there_were() {
        let (ends, began) = (Ends::default(), Instant::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for (agent, after, expected) in [
            (&a, 0, Some(0)),
            (&a, 1, None),
            (&b, 1, Some(0)),
            (&a, 999, None),
            (&a, 1_000, Some(2)),
            (&a, 1_500, None),
            (&a, 2_001, Some(1)),
        ] {
            assert_eq!(ends.tells(agent, began + Duration::from_millis(after)), expected, "{agent} after {after} ms");
        }
    }
}
