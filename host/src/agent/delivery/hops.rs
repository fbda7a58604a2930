//! The end of a chain of messages that caused one another (`limits.hops`).
//!
//! Every message that a handling causes has one hop more than the handled one: those its handler sends, the reply,
//! and the `failure` or `not-understood` that the host sends in an agent's place. A message beyond the bound is not
//! delivered. It becomes a dead letter in the commit of the handler that caused it, which stands, with a
//! [notice](super::notice) to its sender if that wants one. A request whose sender waits is refused instead. The answer
//! to a sender that waits always goes through, because it ends a chain.
//!
//! Messages by the clock begin a chain of their own: schedules, timers of at least a second to oneself, and the host's
//! message about a conversation that has timed out. So do messages from outside and redelivered dead letters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::RevisionId;
use serde_json::json;

use crate::agent::delivery::budget::charge;
use crate::agent::mailbox::timers::TimerInbox;
use crate::agent::{AdmitError, Agent, Outcomes, Revision};
use crate::clock;
use crate::context::HostContext;
use crate::conversation::speech_act;
use crate::logs::Line;
use crate::message::{CallContext, Deliver, Envelope, Identity, Outgoing, Refusal};
use crate::store::TOO_MANY_HOPS;

/// The shortest time between two reports about chains of one agent that ended. Each end has a dead letter of its own,
/// so nothing is lost by fewer lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The sender of a message that ends a chain, for its log.
#[derive(Debug, Clone)]
pub(in crate::agent) struct ChainEnd {
    revision: Arc<RevisionId>,
    /// The bound of hops.
    limit: u32,
}

impl ChainEnd {
    /// Creates the chain end of an agent that runs as this revision.
    pub(in crate::agent) fn new(revision: &Arc<RevisionId>, limit: u32) -> Self {
        Self { revision: Arc::clone(revision), limit }
    }

    /// Creates the chain end of a revision, with its bound.
    pub(in crate::agent) fn of(revision: &Revision) -> Self {
        Self::new(&revision.id, revision.spec.limits.hops)
    }

    /// Returns the bound of hops.
    pub(in crate::agent) fn limit(&self) -> u32 {
        self.limit
    }

    /// Logs that a chain has ended, in the agent's log and the host's, and emits the event; at most once in
    /// [`REPORT_INTERVAL`].
    pub(in crate::agent) fn report(&self, context: &HostContext, envelope: &Envelope, is_dead: bool) {
        let agent = self.revision.agent.shared();
        // Bounded, because a loop of two agents ends chains as fast as they handle messages.
        let Some(untold) = context.chain_ends.admit(&agent, Instant::now(), REPORT_INTERVAL) else { return };
        let (message, limit) = (&envelope.message, self.limit);
        let what = if is_dead { "is a dead letter, too-many-hops" } else { "was refused, too-many-hops" };
        let mut text = format!(
            "message {} to {} has more than {limit} hops (limits.hops) and {what}; conversation {}",
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
            "performative": message.performative.to_string(), "limit": limit, "dead_letter": is_dead,
            "untold": untold,
        });
        context.events.emit(Some(&agent), "message.too-many-hops", data);
    }
}

/// The mailbox of messages that end a chain, which delivers none. A message is put there when its dead letter
/// is durable.
pub(in crate::agent) struct ChainEndInbox {
    receiver: Arc<Agent>,
    ending: ChainEnd,
}

impl ChainEndInbox {
    pub(in crate::agent) fn inbox(receiver: &Arc<Agent>, ending: ChainEnd) -> Arc<dyn Deliver> {
        Arc::new(Self { receiver: Arc::clone(receiver), ending })
    }
}

impl Deliver for ChainEndInbox {
    fn put(&self, envelope: Box<Envelope>) -> bool {
        let (receiver, context) = (&self.receiver, &self.receiver.context);
        // Counted as accepted and failed, so that the accepted remain the sum of all outcomes.
        receiver.stats.count(Outcomes::Accepted);
        receiver.stats.count(Outcomes::Failed);
        let labels = [("agent", receiver.name.to_string()), ("reason", TOO_MANY_HOPS.to_owned())];
        metrics::counter!("caxton_dead_letters_total", &labels).increment(1);
        // No answer to it can come, so that its part of the conversation is over.
        context.conversations.record_failure(&envelope.message.conversation_id, &speech_act(&envelope));
        self.ending.report(context, &envelope, true);
        false
    }

    fn work(self: Arc<Self>) {}

    fn reserve_beyond(&self) {}

    /// Does nothing: no place was kept.
    fn release(&self) {}

    fn other(&self, agent: &str) -> Option<Arc<dyn Deliver>> {
        self.receiver.other(agent)
    }
}

/// Returns the chain end of a guest.
fn ending(who: &Identity) -> ChainEnd {
    ChainEnd::new(&who.revision, who.spec.limits.hops)
}

/// Refuses a request with too many hops. Its sender waits and gets the error.
pub(crate) fn check_hops(context: &HostContext, who: &Identity, envelope: &Envelope) -> Result<(), AdmitError> {
    let limit = who.spec.limits.hops;
    if envelope.hops <= limit {
        return Ok(());
    }
    ending(who).report(context, envelope, false);
    Err(AdmitError::TooManyHops { limit })
}

impl Agent {
    /// Reserves a place for a message that a guest sends to this agent; the end of a chain needs none.
    pub(crate) fn admit(
        self: &Arc<Self>,
        who: &Identity,
        work: &CallContext,
        envelope: Box<Envelope>,
    ) -> Result<Outgoing, AdmitError> {
        let (ending, limit) = (ending(who), who.spec.limits.hops);
        // Of the tree that is being handled: a message that begins one of its own is its root.
        let charge = charge(work.tree.as_ref(), &who.revision.agent, envelope.due)?;
        // Still sent, as a dead letter: the handler's other effects stand.
        if envelope.hops > limit {
            return Ok(Outgoing::ending(ChainEndInbox::inbox(self, ending), envelope, limit).charged(charge));
        }
        let begins = envelope.hops == 0;
        let inbox = if envelope.waits {
            // A timer has no place in the mailbox until it is due.
            self.reserve_timer(&envelope)?;
            TimerInbox::inbox(self)
        } else {
            self.reserve_place(Some(&envelope.message.conversation_id))?;
            Arc::clone(self) as Arc<dyn Deliver>
        };
        let sent = Outgoing::new(inbox, envelope).charged(charge);
        if !begins {
            return Ok(sent);
        }
        // Only the timer begins a chain. A refusal is delivered at once, and so continues the sender's.
        Ok(sent.refused_as(Refusal {
            hops: work.hops.saturating_add(1),
            limit,
            end: ChainEndInbox::inbox(self, ending),
        }))
    }
}
