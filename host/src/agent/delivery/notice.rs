//! The notices to agents of messages that were given up (`mailbox.on-dead = "tell"`): a `failure` from `host:dead` with
//! the content of the message, and its other fields in headers.
//!
//! A notice has one hop more than its message, so that an agent that resends every message that is given up reaches
//! the bound of hops. The notice of that end is past every bound: all that its handler sends becomes a dead letter
//! without a notice. A `failure` and a redelivered message have no notice, so that one that cannot be handled causes no
//! other.

use caxton_control::Performative;
use std::sync::Arc;

use caxton_control::desired::OnDead;

use crate::agent::Agent;
use crate::agent::delivery::reply::cut;
use crate::budgets::TreeLink;
use crate::clock;
use crate::message::{Deliver, Envelope, Message, Outcome, Outgoing, new_id};
use crate::store::{Commit, CommitRequest, Committed, TOO_MANY_HOPS, beyond};

/// The sender of notices.
const SENDER: &str = "host:dead";
/// The longest text of an error in a notice, in bytes.
const MAX_ERROR: usize = 1_000;
/// The hops of the notice that a chain has ended: more than any `limits.hops` allows.
const PAST_ALL_BOUNDS: u32 = u32::MAX;

/// A message that was given up, with the reason.
struct GivenUp<'a> {
    message: &'a Message,
    /// The hops of the notice.
    hops: u32,
    /// The tree of the message, which the notice is part of.
    tree: Option<&'a TreeLink>,
    attempts: usize,
    /// A stable code.
    reason: &'a str,
    /// The text for a person.
    error: &'a str,
}

impl Agent {
    /// Returns the messages that are sent because one in this mailbox is given up: the `failure` to the sender of a
    /// question, and the notices to the agents that want them. Those are this one, unless it is removed, and the sender
    /// of a message that is no question.
    pub(in crate::agent) fn notices(&self, envelope: &Envelope, reason: &str, error: &str) -> Vec<Outgoing> {
        let answer = self.failure_for(envelope, error);
        let message = &envelope.message;
        // The sender of a question gets the `failure`, and an agent that writes to itself gets the notice below.
        let is_told = answer.is_some() || message.sender == self.name.as_str();
        let mut sends: Vec<Outgoing> = answer.into_iter().collect();
        // A caller gets the error itself. Notices of the others could cause each other for ever.
        if envelope.is_call() || envelope.revived || message.performative == Performative::Failure {
            return sends;
        }
        let (hops, attempts) = (envelope.hops.saturating_add(1), envelope.failed.len());
        let dead = GivenUp { message, hops, tree: envelope.tree.as_ref(), attempts, reason, error };
        // A removed agent has no mailbox any more.
        if reason != "agent-removed" {
            sends.extend(self.me.upgrade().and_then(|agent| notice(&agent, &dead)));
        }
        if !is_told {
            let sender = self.directory.agent(&message.sender);
            sends.extend(sender.and_then(|sender| notice(&sender, &dead)));
        }
        sends
    }

    /// Returns the notice to this agent that its answer to a message has no receiver.
    pub(in crate::agent) fn notice_in_vain(&self, answer: &Message, question: &Envelope) -> Option<Outgoing> {
        self.notice_of_answer(answer, question.hops, question.tree.as_ref())
    }

    fn notice_of_answer(&self, answer: &Message, hops: u32, tree: Option<&TreeLink>) -> Option<Outgoing> {
        let (reason, error) = ("answer-in-vain", "nobody waits for the answer any more");
        let hops = hops.saturating_add(1);
        notice(&self.me.upgrade()?, &GivenUp { message: answer, hops, tree, attempts: 0, reason, error })
    }

    /// Returns the notices to this agent of the messages among those it sends that end a chain of messages. What a notice
    /// of such an end caused has none.
    pub(in crate::agent) fn notices_of_ends(&self, sends: &[Outgoing]) -> Vec<Outgoing> {
        let notice_of = |sent: &Outgoing| {
            let (limit, Envelope { message, hops, tree, .. }) = (sent.exceeded_limit()?, sent.envelope());
            if *hops == PAST_ALL_BOUNDS || message.performative == Performative::Failure {
                return None;
            }
            let error = beyond(limit);
            let (hops, tree, reason) = (PAST_ALL_BOUNDS, tree.as_ref(), TOO_MANY_HOPS);
            let dead = GivenUp { message, hops, tree, attempts: 0, reason, error: &error };
            notice(&self.me.upgrade()?, &dead)
        };
        sends.iter().filter_map(notice_of).collect()
    }

    /// Sends this agent a notice that its answer reached no receiver.
    pub(in crate::agent) fn send_notice_in_vain(&self, outcome: &Outcome, hops: u32, tree: Option<&TreeLink>) {
        let Outcome::Reply(answer) = outcome else { return };
        let Some(sent) = self.notice_of_answer(answer, hops, tree) else { return };
        let done = Box::new(|committed: Committed| {
            if committed.result.is_ok() {
                committed.sends.into_iter().for_each(Outgoing::deliver);
            }
        });
        let commit = Commit::new(self.name.shared());
        self.context.store.submit(CommitRequest::new(commit, vec![sent], done));
    }
}

/// Returns an agent's notice of a message, with the place that is kept for it; none if it wants no notices.
fn notice(agent: &Arc<Agent>, dead: &GivenUp<'_>) -> Option<Outgoing> {
    let spec = agent.spec();
    let GivenUp { message, hops, tree, .. } = *dead;
    let ends = hops > spec.limits.hops && hops < PAST_ALL_BOUNDS;
    if spec.mailbox.on_dead != OnDead::Tell || agent.is_http() || ends {
        return None;
    }
    // A header is one line.
    let text: String = dead.error.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let header = |name: &str, value: &str| (format!("dead-{name}"), value.to_owned());
    let notice = Message {
        id: new_id(),
        performative: Performative::Failure,
        sender: SENDER.to_owned(),
        receiver: agent.name.as_str().to_owned(),
        content: message.content.clone(),
        content_type: message.content_type.clone(),
        ontology: message.ontology.clone(),
        protocol: None,
        conversation_id: message.conversation_id.clone(),
        reply_with: None,
        in_reply_to: Some(message.reply_with.clone().unwrap_or_else(|| message.id.clone())),
        reply_by: None,
        priority: message.priority,
        sent_at: clock::now_ms(),
        attempt: 1,
        headers: vec![
            header("id", &message.id),
            header("reason", dead.reason),
            header("error", cut(&text, MAX_ERROR as u64)),
            header("sender", &message.sender),
            header("receiver", &message.receiver),
            header("performative", &message.performative.to_string()),
            header("attempts", &dead.attempts.to_string()),
        ],
    };
    // It has to hear it, so there is always a place.
    agent.reserve_beyond();
    let envelope = Box::new(Envelope { hops, tree: tree.cloned(), ..Envelope::new(notice) });
    Some(Outgoing::new(Arc::clone(agent) as Arc<dyn Deliver>, envelope).mark_sent_by_host())
}
