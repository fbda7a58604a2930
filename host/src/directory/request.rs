//! Requests of guests: a message whose sender waits for the answer inside its handler.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::HostDirectory;
use crate::agent::{AdmitError, Agent, Directory, Question, check_hops, describe};
use crate::clock;
use crate::wasm::{Answer, Envelope, Fault, Identity, Inbox, Outcome, Waiter, Work, new_id, wit};

impl HostDirectory {
    /// Sends a request of a guest and waits for the answer.
    pub(super) async fn ask_agent(
        &self,
        who: &Identity,
        work: &Work,
        draft: wit::Draft,
        timeout: Duration,
    ) -> Result<wit::Message, wit::RequestError> {
        let refused = |error: AdmitError| wit::RequestError::NotSent(error.into());
        let deadline = (Instant::now() + timeout).min(work.deadline);
        if !matches!(draft.delivery, wit::Delivery::Now) {
            let why = "a request is delivered at once: `delivery` has to be `now`".to_owned();
            return Err(wit::RequestError::NotSent(wit::SendError::Invalid(why)));
        }
        let (agent, mut envelope) = self.address_draft(who, work, draft).map_err(refused)?;
        // In the order of their cost: the graph of waits last.
        check_hops(&self.context, who, &envelope).map_err(refused)?;
        agent.check_breaker().map_err(refused)?;
        // Who asks keeps others waiting, unless its agent is gone already.
        let asker = self.agent(who.name());
        let handler = std::ptr::from_ref(work).addr() as u64;
        let noted = asker.as_ref().map(|asker| {
            asker.register_request(handler, &work.conversation, &agent, &envelope.message.conversation_id)
        });
        if let Some(asker) = &asker
            && let Some(cycle) = self.find_deadlock(asker, &agent, &envelope.message.conversation_id)
        {
            return Err(wit::RequestError::Deadlock(cycle));
        }
        let question = match Question::ask(&self.context, &envelope) {
            Ok(question) => question,
            // The way in which the protocols themselves say it.
            Err(refused) => return Ok(not_understood(envelope.message, &refused.to_string())),
        };
        // The receiver may use keys that are reserved for the asker, who waits for it.
        envelope.within.clone_from(&work.run.within);
        let answer = self.wait_for(&agent, envelope, deadline).await;
        drop(noted);
        match question.answer(&self.context, answer.as_ref().ok()) {
            Ok(()) => answer,
            Err(why) => Err(wit::RequestError::Failed(why)),
        }
    }

    /// Delivers a request and waits for its answer.
    async fn wait_for(
        &self,
        agent: &Arc<Agent>,
        mut envelope: Box<Envelope>,
        deadline: Instant,
    ) -> Result<wit::Message, wit::RequestError> {
        let refused = |error: AdmitError| wit::RequestError::NotSent(error.into());
        let now = Instant::now();
        let patience = deadline.saturating_duration_since(now);
        let by = clock::now_ms().saturating_add(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        envelope.message.reply_by.get_or_insert(by);
        (envelope.deadline, envelope.accepted) = (Some(deadline), Some(now));
        let (waiter, answer) = oneshot::channel();
        envelope.waiter = Some(Waiter::Call(waiter));
        agent.reserve_place(Some(&envelope.message.conversation_id)).map_err(refused)?;
        if agent.put(envelope) {
            agent.work_for_caller();
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Err(_) => Err(wit::RequestError::TimedOut),
            Ok(Err(_)) => Err(wit::RequestError::Failed("the agent ended".to_owned())),
            Ok(Ok(Answer { outcome, .. })) => match outcome {
                Outcome::Reply(reply) => Ok(*reply),
                Outcome::Done => Err(wit::RequestError::NoReply),
                Outcome::Fault(Fault::Time { .. } | Fault::Patience { .. }) if Instant::now() >= deadline => {
                    Err(wit::RequestError::TimedOut)
                }
                Outcome::Gave(_)
                | Outcome::Fault(_)
                | Outcome::BadReply(_)
                | Outcome::Refused(_)
                | Outcome::Conflict(_)
                | Outcome::NotCommitted(_)
                | Outcome::Gone(_) => Err(wit::RequestError::Failed(describe(&outcome))),
            },
        }
    }
}

/// Returns the answer to a request that is illegal in its conversation.
fn not_understood(question: wit::Message, why: &str) -> wit::Message {
    wit::Message {
        id: new_id(),
        performative: wit::Performative::NotUnderstood,
        in_reply_to: Some(question.reply_with.clone().unwrap_or_else(|| question.id.clone())),
        sender: question.receiver,
        receiver: question.sender,
        content: why.as_bytes().to_vec(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        reply_with: None,
        ..question
    }
}
