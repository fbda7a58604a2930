//! Requests of guests: a message whose sender waits for the answer inside its handler.

use caxton_control::Performative;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::HostDirectory;
use crate::agent::{AdmitError, Agent, Directory, Question, charge, check_hops, describe};
use crate::budgets::MessageCharge;
use crate::clock;
use crate::message::{
    Answer, CallContext, Deliver, Delivery, Draft, Envelope, Fault, Identity, Message, Outcome, RequestError,
    SendError, Waiter, new_id,
};

impl HostDirectory {
    /// Sends a request of a guest and waits for the answer.
    pub(super) async fn ask_agent(
        &self,
        who: &Identity,
        work: &CallContext,
        draft: Draft,
        timeout: Duration,
    ) -> Result<Message, RequestError> {
        let refused = |error: AdmitError| RequestError::NotSent(error.into());
        let deadline = (Instant::now() + timeout).min(work.deadline);
        if !matches!(draft.delivery, Delivery::Now) {
            let why = "a request is delivered at once: `delivery` has to be `now`".to_owned();
            return Err(RequestError::NotSent(SendError::Invalid(why)));
        }
        let (agent, mut envelope) = self.address_draft(who, work, draft).map_err(refused)?;
        // In the order of their cost: the graph of waits last.
        check_hops(&self.context, who, &envelope).map_err(refused)?;
        let charge = charge(work.tree.as_ref(), &who.revision.agent, None).map_err(refused)?;
        Self::begin_agents_tree(&agent, &mut envelope, None);
        agent.check_breaker().map_err(refused)?;
        // An agent that asks keeps others waiting, unless it is gone already.
        let asker = self.agent(who.name());
        // The context lives as long as its handler, so the address is unique among those that run.
        let handler = std::ptr::from_ref(work).addr() as u64;
        let noted = asker.as_ref().map(|asker| {
            asker.register_request(handler, &work.conversation, &agent, &envelope.message.conversation_id)
        });
        // After the registration: of two requests that close a cycle at once, the later one sees the earlier.
        if let Some(asker) = &asker
            && let Some(cycle) = self.find_deadlock(asker, &agent, &envelope.message.conversation_id)
        {
            return Err(RequestError::Deadlock(cycle));
        }
        let question = match Question::ask(&self.context, &envelope) {
            Ok(question) => question,
            // The way in which the protocols themselves say it.
            Err(refused) => return Ok(not_understood(envelope.message, &refused.to_string())),
        };
        // The receiver may use keys that are reserved for the asker, who waits for it.
        envelope.caller_tickets.clone_from(&work.run.own_tickets);
        let answer = self.wait_for(&agent, envelope, (deadline, charge)).await;
        // Before the answer is judged: from here on the agent keeps no other waiting.
        drop(noted);
        match question.answer(&self.context, answer.as_ref().ok()) {
            Ok(()) => answer,
            Err(why) => Err(RequestError::Failed(why)),
        }
    }

    /// Delivers a request and waits for its answer.
    async fn wait_for(
        &self,
        agent: &Arc<Agent>,
        mut envelope: Box<Envelope>,
        (deadline, charge): (Instant, Option<Box<MessageCharge>>),
    ) -> Result<Message, RequestError> {
        let refused = |error: AdmitError| RequestError::NotSent(error.into());
        let now = Instant::now();
        let patience = deadline.saturating_duration_since(now);
        let by = clock::now_ms().saturating_add(clock::millis(patience));
        envelope.message.reply_by.get_or_insert(by);
        (envelope.deadline, envelope.accepted) = (Some(deadline), Some(now));
        let (waiter, answer) = oneshot::channel();
        envelope.waiter = Some(Waiter::Call(waiter));
        // The bound of the mailbox holds for requests too; their callers are told at once.
        agent.reserve_place(Some(&envelope.message.conversation_id)).map_err(refused)?;
        charge.iter().for_each(|charge| charge.keep());
        if agent.put(envelope) {
            agent.work_for_caller();
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Err(_) => Err(RequestError::TimedOut),
            Ok(Err(_)) => Err(RequestError::Failed("the agent ended".to_owned())),
            Ok(Ok(Answer { outcome, .. })) => match outcome {
                Outcome::Reply(reply) => Ok(*reply),
                Outcome::Done => Err(RequestError::NoReply),
                // The receiver ran into the deadline of the caller, which is the caller's own timeout.
                Outcome::Fault(Fault::Time { .. } | Fault::CallerTimeout { .. }) if Instant::now() >= deadline => {
                    Err(RequestError::TimedOut)
                }
                Outcome::Failed(_)
                | Outcome::Fault(_)
                | Outcome::BadReply(_)
                | Outcome::Refused(_)
                | Outcome::Conflict(_)
                | Outcome::NotCommitted(_)
                | Outcome::Cancelled(_) => Err(RequestError::Failed(describe(&outcome))),
            },
        }
    }
}

/// Returns the answer to a request that is illegal in its conversation.
fn not_understood(question: Message, why: &str) -> Message {
    Message {
        id: new_id(),
        performative: Performative::NotUnderstood,
        in_reply_to: Some(question.reply_with.clone().unwrap_or_else(|| question.id.clone())),
        sender: question.receiver,
        receiver: question.sender,
        content: why.as_bytes().to_vec(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        reply_with: None,
        ..question
    }
}
