//! Whether a message may be sent, and to whom: everything that is checked before a place is kept for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::Performative;
use caxton_control::grant::Address;
use tokio::sync::oneshot;

use super::draft::{self, MAX_ID};
use super::hops::{End, Ending};
use super::timer::Waiting;
use super::worker::Helping;
use super::{AdmitError, Agent};
use crate::clock;
use crate::context::HostContext;
use crate::directory::routes::Routes;
use crate::store::{Commit, CommitError, Committed, IdempotencyKey};
use crate::telemetry::trace::Trace;
use crate::wasm::{
    Answer, Envelope, Fault, Identity, Inbox, Outcome, Refusal, Sent, Waiter, Work, new_id, performative, wit,
};

/// A message from outside: over HTTP, from the management API.
#[derive(Debug)]
pub(crate) struct Submission {
    /// Where it comes from, such as `http:POST /tickets`.
    pub(crate) sender: String,
    /// What it means to do.
    pub(crate) performative: Performative,
    /// The content.
    pub(crate) content: Vec<u8>,
    /// Its media type.
    pub(crate) content_type: String,
    /// The vocabulary of the content.
    pub(crate) ontology: Option<String>,
    /// The protocol it is part of.
    pub(crate) protocol: Option<String>,
    /// The conversation it belongs to; none begins one.
    pub(crate) conversation: Option<String>,
    /// How long the sender waits.
    pub(crate) patience: Option<Duration>,
    /// Further pairs of name and value.
    pub(crate) headers: Vec<(String, String)>,
    /// Its trace.
    pub(crate) trace: Option<Trace>,
}

/// A client's own name for a message, so that sending twice means one message (the `Idempotency-Key` header).
#[derive(Debug)]
pub(crate) struct Key {
    /// As the client gave it.
    pub(crate) key: String,
    /// A hash of what else the request says, which tells a repeated one from another.
    pub(crate) fingerprint: Vec<u8>,
}

impl Key {
    /// The key that a request names in `Idempotency-Key`, if it does.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of(headers: &http::HeaderMap, arrival: &Submission) -> Result<Option<Self>, String> {
        use sha2::{Digest, Sha256};

        let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
        let key = value.to_str().unwrap_or_default();
        if key.is_empty() || key.len() > MAX_ID {
            return Err(format!("the header idempotency-key has to have 1 to {MAX_ID} printable ASCII characters"));
        }
        let mut hash = Sha256::new();
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let (conversation, protocol) = (optional(&arrival.conversation), optional(&arrival.protocol));
        for part in [arrival.sender.as_str(), &arrival.content_type, &conversation, &protocol] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update([arrival.performative as u8]);
        hash.update(&arrival.content);
        Ok(Some(Self { key: key.to_owned(), fingerprint: hash.finalize().to_vec() }))
    }
}

/// A message that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Its id.
    pub(crate) id: String,
    /// Its conversation.
    pub(crate) conversation: String,
}

impl Agent {
    /// Takes a message from outside, and returns when it is safe. What becomes of it is told by
    /// [`receipt`](crate::agent::receipts::Receipts::find).
    pub(crate) async fn enqueue(
        self: &Arc<Self>,
        arrival: Submission,
        key: Option<Key>,
    ) -> Result<Accepted, AdmitError> {
        let keeps = self.context.store.keeps_messages();
        let (accepted, mut envelope) = self.accept(arrival)?;
        if !keeps {
            let receipts = &self.context.receipts;
            envelope.waiter = Some(receipts.open(&accepted, self.name.shared(), clock::now_ms()));
        }
        let mut sent = Sent::new(Arc::clone(self) as Arc<dyn Inbox>, envelope);
        if !keeps && key.is_none() {
            self.context.store.conversations.judge_sent(&mut sent).map_err(AdmitError::NotUnderstood)?;
            sent.deliver();
            return Ok(accepted);
        }
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |committed: Committed| {
            if committed.result.is_ok() {
                committed.sends.into_iter().for_each(Sent::deliver);
            }
            // Who asked may have left; the message is accepted all the same.
            let _ = sender.send(committed.result);
        });
        let mut commit = Commit::new(self.name.shared(), done);
        commit.key = key.map(|Key { key, fingerprint }| IdempotencyKey {
            key,
            fingerprint,
            id: accepted.id.clone(),
            conversation: accepted.conversation.clone(),
            at: clock::steady_ms(),
        });
        commit.sends = vec![sent];
        self.context.store.submit(commit);
        match receiver.await {
            Ok(Ok(())) => Ok(accepted),
            Ok(Err(CommitError::Repeated { id, conversation })) => Ok(Accepted { id, conversation }),
            Ok(Err(CommitError::KeyReused)) => Err(AdmitError::KeyReused),
            Ok(Err(CommitError::Illegal(why))) => Err(AdmitError::NotUnderstood(why)),
            Ok(Err(error)) => Err(AdmitError::NotKept(error.to_string())),
            Err(_) => Err(AdmitError::NotKept("the host is stopping".to_owned())),
        }
    }

    /// Takes a message from outside and waits for its answer.
    pub(crate) async fn ask(self: &Arc<Self>, arrival: Submission) -> Result<(Accepted, Answer), AdmitError> {
        self.check_breaker()?;
        let patience = arrival.patience;
        // A call that is part of nothing larger leaves no record.
        let part = arrival.protocol.is_some() || arrival.conversation.is_some();
        let (waiter, answer) = oneshot::channel();
        let (accepted, mut envelope) = self.accept(arrival)?;
        let question = part.then(|| self.context.ask_in_conversation(&envelope)).transpose().map_err(|refused| {
            self.release();
            AdmitError::NotUnderstood(refused.to_string())
        })?;
        envelope.waiter = Some(Waiter::Call(waiter));
        let helping = self.put(envelope).then(|| Helping::new(self));
        let answer = async {
            match helping {
                Some(helping) => helping.until(answer).await,
                None => answer.await,
            }
        };
        // A timer is only set when there is something to wait for.
        let outcome = match patience {
            None => Ok(answer.await),
            Some(patience) => {
                tokio::time::timeout(patience, answer).await.map_err(|_| Fault::Patience { limit: patience })
            }
        };
        let mut answer = match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer { revision: None, outcome: Outcome::Gone("the host is stopping") },
            Err(fault) => Answer { revision: None, outcome: Outcome::Fault(fault) },
        };
        if let Some(question) = question {
            let reply = if let Outcome::Reply(reply) = &answer.outcome { Some(&**reply) } else { None };
            if let Err(why) = self.context.answer_in_conversation(&question, reply) {
                answer.outcome = Outcome::BadReply(why);
            }
        }
        Ok((accepted, answer))
    }

    /// Makes an envelope of a message from outside, for which a place is kept.
    fn accept(self: &Arc<Self>, arrival: Submission) -> Result<(Accepted, Box<Envelope>), AdmitError> {
        let limit = self.message_limit();
        if arrival.content.len() as u64 > limit {
            return Err(AdmitError::TooLarge { limit });
        }
        draft::check_words(&arrival.content_type, arrival.ontology.as_deref(), arrival.protocol.as_deref())?;
        draft::check_ids([arrival.conversation.as_deref()])?;
        draft::check_arrived(&arrival.headers)?;
        self.reserve_place(arrival.conversation.as_deref())?;
        let id = new_id();
        let conversation = arrival.conversation.unwrap_or_else(|| id.clone());
        let patience = arrival.patience;
        let now = clock::now_ms();
        let accepted = Accepted { id: id.clone(), conversation: conversation.clone() };
        let message = wit::Message {
            id,
            performative: performative(arrival.performative),
            sender: arrival.sender,
            receiver: self.name.as_str().to_owned(),
            content: arrival.content,
            content_type: arrival.content_type,
            ontology: arrival.ontology,
            protocol: arrival.protocol,
            conversation_id: conversation,
            reply_with: None,
            in_reply_to: None,
            reply_by: patience
                .map(|patience| now.saturating_add(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX))),
            priority: wit::Priority::Normal,
            sent_at: now,
            attempt: 1,
            headers: arrival.headers,
        };
        let arrived = Instant::now();
        let envelope = Envelope {
            deadline: patience.map(|patience| arrived + patience),
            trace: arrival.trace,
            accepted: Some(arrived),
            ..Envelope::new(message)
        };
        Ok((accepted, Box::new(envelope)))
    }

    /// The largest message that the agent takes: that of its running revision.
    pub(super) fn message_limit(&self) -> u64 {
        let traffic = self.traffic.load();
        let running = traffic.as_ref().map(|traffic| traffic.stable().spec.limits.message_bytes);
        running.unwrap_or_else(|| self.spec.load().limits.message_bytes)
    }
}

/// Returns whose chain ends if a message of a guest is beyond the bound of causes.
fn ending(who: &Identity) -> Ending {
    Ending::new(&who.revision, who.spec.limits.hops)
}

impl HostContext {
    /// Checks a draft of an agent and keeps a place for it; the end of a chain needs none.
    pub(crate) fn admit(&self, who: &Identity, work: &Work, draft: wit::Draft) -> Result<Sent, AdmitError> {
        let (agent, envelope) = self.address(who, work, draft)?;
        let (ending, limit) = (ending(who), who.spec.limits.hops);
        if envelope.hops > limit {
            return Ok(Sent::ending(End::inbox(&agent, ending), envelope, limit));
        }
        let begins = envelope.hops == 0;
        let inbox = if envelope.waits {
            agent.reserve_timer(&envelope)?;
            Waiting::inbox(&agent)
        } else {
            agent.reserve_place(Some(&envelope.message.conversation_id))?;
            Arc::clone(&agent) as Arc<dyn Inbox>
        };
        let sent = Sent::new(inbox, envelope);
        if !begins {
            return Ok(sent);
        }
        // What it begins is a timer; an answer that comes at once is not.
        Ok(sent.refused_as(Refusal { hops: work.hops.saturating_add(1), limit, end: End::inbox(&agent, ending) }))
    }

    /// Refuses a question with too many causes, whose sender waits and so is told.
    pub(crate) fn check_hops(&self, who: &Identity, envelope: &Envelope) -> Result<(), AdmitError> {
        let limit = who.spec.limits.hops;
        if envelope.hops <= limit {
            return Ok(());
        }
        ending(who).tell(self, envelope, false);
        Err(AdmitError::TooManyHops { limit })
    }

    /// Checks a draft and finds its receiver; keeps no place yet.
    pub(crate) fn address(
        &self,
        who: &Identity,
        work: &Work,
        draft: wit::Draft,
    ) -> Result<(Arc<Agent>, Box<Envelope>), AdmitError> {
        let limits = &who.spec.limits;
        draft::check_draft(&draft, limits)?;
        let now = clock::now_ms();
        let periodic = draft::begins_chain(&draft.delivery, now);
        let is_timer = !matches!(draft.delivery, wit::Delivery::Now);
        let timer = draft::timer_name(&draft)?;
        let (due, due_at) = draft::due(draft.delivery)?;
        let id = new_id();
        let conversation = match draft.conversation_id {
            None => work.conversation.clone(),
            Some(own) if own.is_empty() => id.clone(),
            Some(named) => named,
        };
        let routes = self.routes.load();
        let agent = self.find_receiver(&routes, who, (&draft.receiver, is_timer), &conversation)?;
        let theirs = agent.message_limit();
        if draft.content.len() as u64 > theirs {
            return Err(AdmitError::TooLarge { limit: theirs });
        }
        let message = wit::Message {
            performative: draft.performative,
            sender: who.name().to_owned(),
            receiver: agent.name.as_str().to_owned(),
            content: draft.content,
            content_type: draft.content_type,
            ontology: draft.ontology,
            protocol: draft.protocol,
            conversation_id: conversation,
            reply_with: draft.reply_with,
            in_reply_to: draft.in_reply_to,
            reply_by: draft.reply_by,
            priority: draft.priority,
            sent_at: now,
            attempt: 1,
            headers: draft.headers,
            id,
        };
        let hops = if periodic && message.sender == message.receiver { 0 } else { work.hops.saturating_add(1) };
        let (waits, trace) = (due.is_some(), work.trace.clone());
        let envelope = Envelope { hops, due, due_at, waits, timer, trace, ..Envelope::new(message) };
        Ok((agent, Box::new(envelope)))
    }
}

impl HostContext {
    /// Whom a receiver's text means, if the sender may send there: no text means the sender itself. A timer to oneself needs
    /// no grant.
    fn find_receiver(
        &self,
        routes: &Routes,
        who: &Identity,
        (receiver, is_timer): (&str, bool),
        conversation: &str,
    ) -> Result<Arc<Agent>, AdmitError> {
        let allow = &who.spec.allow;
        let refuse = |name: &str| AdmitError::NotAllowed { sender: who.name().to_owned(), receiver: name.to_owned() };
        let name = match Address::of(receiver, who.name()) {
            Address::Agent(name) => name,
            Address::Capability(capability) if !allow.covers_capability(capability) => return Err(refuse(receiver)),
            Address::Capability(capability) => {
                let able = routes.with_capability(capability);
                // A conversation stays with the agent with which it began, even if another one would be picked now.
                let known =
                    |name: &str| able.iter().find(|agent| agent.name.as_str() == name && name != who.name()).cloned();
                let agent = match able {
                    [] | [_] => None,
                    _ => self.store.conversations.find(conversation, known),
                };
                return agent
                    .or_else(|| routes.pick(capability, conversation))
                    .ok_or_else(|| AdmitError::UnknownReceiver(receiver.to_owned()));
            }
        };
        let agent = routes.receiver(name, conversation);
        let spec = agent.map(|agent| agent.spec.load());
        let capabilities = spec.as_ref().map(|spec| &spec.capabilities);
        let is_own_timer = is_timer && name == who.name();
        if !is_own_timer && !allow.covers_agent(name, capabilities) {
            return Err(refuse(name));
        }
        agent.cloned().ok_or_else(|| AdmitError::UnknownReceiver(name.to_owned()))
    }
}
