//! Messages from outside: checked, queued or answered.

use caxton_control::mailbox::Priority;
use caxton_control::names::BudgetName;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::Performative;
use tokio::sync::oneshot;

use crate::agent::delivery::worker::CallerWorker;
use crate::agent::{AdmitError, Agent, Question, draft};
use crate::bounds;
use crate::budgets::{Tree, TreeLink, TreeRoot};
use crate::clock;
use crate::memory_budget::{MemoryKind, Reservation};
use crate::message::{Answer, Deliver, Envelope, Fault, Message, Outcome, Outgoing, Waiter, new_id};
use crate::store::{Commit, CommitError, CommitRequest, Committed, IdempotencyKey};
use crate::telemetry::trace::Trace;

/// A message from outside: over HTTP, or from the management API.
#[derive(Debug)]
pub(crate) struct Submission {
    /// The source, such as `http:POST /tickets`.
    pub(crate) sender: String,
    pub(crate) performative: Performative,
    /// The content.
    pub(crate) content: Vec<u8>,
    /// The memory of the content, if that is counted by itself.
    pub(crate) held: Option<Reservation>,
    /// The media type of the content.
    pub(crate) content_type: String,
    /// The vocabulary of the content.
    pub(crate) ontology: Option<String>,
    /// The protocol it is part of.
    pub(crate) protocol: Option<String>,
    /// The conversation it belongs to; none begins one.
    pub(crate) conversation: Option<String>,
    /// The time for which the sender waits.
    pub(crate) timeout: Option<Duration>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) trace: Option<Trace>,
    /// The budget of all that follows; none means that of the agent.
    pub(crate) budget: Option<BudgetName>,
}

/// A client's own name for a message, so that sending twice means one message (the `Idempotency-Key` header).
#[derive(Debug)]
pub(crate) struct Key {
    /// The key as the client sent it.
    pub(crate) key: String,
    /// A hash of the rest of the request, which tells a repeated request from another with the same key.
    pub(crate) fingerprint: Vec<u8>,
}

impl Key {
    /// Returns the key that a request has in `Idempotency-Key`. Keys of a caller that is known are its own; callers that
    /// are not share one space.
    ///
    /// # Errors
    /// The reason why it is refused.
    pub(crate) fn of(
        headers: &http::HeaderMap,
        submission: &Submission,
        caller: Option<&str>,
    ) -> Result<Option<Self>, String> {
        use sha2::{Digest, Sha256};

        let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
        let key = value.to_str().unwrap_or_default();
        if key.is_empty() || key.len() > bounds::ID {
            let most = bounds::ID;
            return Err(format!("the header idempotency-key has to have 1 to {most} printable ASCII characters"));
        }
        // A cryptographic hash: a client must not be able to make two requests that count as one.
        let mut hash = Sha256::new();
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        let (conversation, protocol) = (optional(&submission.conversation), optional(&submission.protocol));
        for part in [submission.sender.as_str(), &submission.content_type, &conversation, &protocol] {
            // With lengths, so that parts cannot be shifted into each other.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update([submission.performative as u8]);
        // Last and without its length: nothing follows into which it could be shifted.
        hash.update(&submission.content);
        // Neither part has a line feed, so that no two pairs are one key, and none is the key of an unknown caller.
        let key = caller.map_or_else(|| key.to_owned(), |caller| format!("{caller}\n{key}"));
        Ok(Some(Self { key, fingerprint: hash.finalize().to_vec() }))
    }
}

/// A message that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) conversation: String,
    /// The tree that it began, if that has a budget.
    pub(crate) tree: Option<Tree>,
}

impl Agent {
    /// Queues a message from outside; returns when it is durable. Its outcome is found in the
    /// [receipts](crate::agent::receipts::Receipts::find).
    pub(crate) async fn enqueue(
        self: &Arc<Self>,
        submission: Submission,
        key: Option<Key>,
    ) -> Result<Accepted, AdmitError> {
        let keeps = self.context.store.keeps_messages();
        let (accepted, mut envelope) = self.accept(submission)?;
        if !keeps {
            let receipts = &self.shared.receipts;
            envelope.waiter =
                Some(receipts.open(&accepted.id, &accepted.conversation, self.name.shared(), clock::now_ms()));
        }
        let mut sent = Outgoing::new(Arc::clone(self) as Arc<dyn Deliver>, envelope);
        // Nothing has to be durable, so the caller does not wait for a commit.
        if !keeps && key.is_none() {
            self.context.conversations.admit_sent(&mut sent).map_err(AdmitError::NotUnderstood)?;
            sent.deliver();
            return Ok(accepted);
        }
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |committed: Committed| {
            if committed.result.is_ok() {
                committed.sends.into_iter().for_each(Outgoing::deliver);
            }
            // The client may have left; the message is accepted all the same.
            let _ = sender.send(committed.result);
        });
        let mut commit = Commit::new(self.name.shared());
        commit.key = key.map(|Key { key, fingerprint }| IdempotencyKey {
            key,
            fingerprint,
            id: accepted.id.clone(),
            conversation: accepted.conversation.clone(),
            at: clock::steady_ms(),
        });
        self.context.store.submit(CommitRequest::new(commit, vec![sent], done));
        match receiver.await {
            Ok(Ok(())) => Ok(accepted),
            // A repeated key is a success with the first message's id: the client must not see that it sent twice.
            Ok(Err(CommitError::Repeated { id, conversation })) => Ok(Accepted { id, conversation, tree: None }),
            Ok(Err(CommitError::KeyReused)) => Err(AdmitError::KeyReused),
            Ok(Err(CommitError::Illegal(why))) => Err(AdmitError::NotUnderstood(why)),
            Ok(Err(error)) => Err(AdmitError::NotKept(error.to_string())),
            Err(_) => Err(AdmitError::NotKept("the host is stopping".to_owned())),
        }
    }

    /// Sends a message from outside and waits for its answer.
    pub(crate) async fn ask(self: &Arc<Self>, submission: Submission) -> Result<(Accepted, Answer), AdmitError> {
        // Only calls: a message may wait until the breaker closes.
        self.check_breaker()?;
        let timeout = submission.timeout;
        // A call that is part of nothing larger leaves no record.
        let part = submission.protocol.is_some() || submission.conversation.is_some();
        let (waiter, answer) = oneshot::channel();
        let (accepted, mut envelope) = self.accept(submission)?;
        let question = part.then(|| Question::ask(&self.context, &envelope)).transpose().map_err(|refused| {
            // The place was reserved by `accept`, and no message will take it.
            self.release();
            AdmitError::NotUnderstood(refused.to_string())
        })?;
        envelope.waiter = Some(Waiter::Call(waiter));
        let helping = self.put(envelope).then(|| CallerWorker::new(self));
        let answer = async {
            match helping {
                Some(helping) => helping.until(answer).await,
                None => answer.await,
            }
        };
        // A timer is only set when there is something to wait for.
        let outcome = match timeout {
            None => Ok(answer.await),
            Some(patience) => {
                tokio::time::timeout(patience, answer).await.map_err(|_| Fault::CallerTimeout { limit: patience })
            }
        };
        let mut answer = match outcome {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer { revision: None, outcome: Outcome::Cancelled("the host is stopping") },
            Err(fault) => Answer { revision: None, outcome: Outcome::Fault(fault) },
        };
        if let Some(question) = question {
            let reply = if let Outcome::Reply(reply) = &answer.outcome { Some(&**reply) } else { None };
            if let Err(why) = question.answer(&self.context, reply) {
                answer.outcome = Outcome::BadReply(why);
            }
        }
        Ok((accepted, answer))
    }

    /// Checks a message from outside and reserves a place for it.
    fn accept(self: &Arc<Self>, submission: Submission) -> Result<(Accepted, Box<Envelope>), AdmitError> {
        let limit = self.message_limit();
        if submission.content.len() as u64 > limit {
            return Err(AdmitError::TooLarge { limit });
        }
        // All checks before the place: a message that is refused must not take one.
        draft::check_words(&submission.content_type, submission.ontology.as_deref(), submission.protocol.as_deref())?;
        draft::check_ids([submission.conversation.as_deref()])?;
        draft::check_arrived(&submission.headers)?;
        self.reserve_place(submission.conversation.as_deref())?;
        let id = new_id();
        // A message outside of a conversation begins one of its own.
        let conversation = submission.conversation.unwrap_or_else(|| id.clone());
        let timeout = submission.timeout;
        let now = clock::now_ms();
        let tree = self.begin_tree(submission.budget.as_ref(), &id, || TreeRoot::outside(&conversation));
        let accepted = Accepted { id: id.clone(), conversation: conversation.clone(), tree: tree.clone() };
        let message = Message {
            id,
            performative: submission.performative,
            sender: submission.sender,
            receiver: self.name.as_str().to_owned(),
            content: submission.content,
            content_type: submission.content_type,
            ontology: submission.ontology,
            protocol: submission.protocol,
            conversation_id: conversation,
            reply_with: None,
            in_reply_to: None,
            reply_by: timeout.map(|timeout| now.saturating_add(clock::millis(timeout))),
            priority: Priority::Normal,
            sent_at: now,
            attempt: 1,
            headers: submission.headers,
        };
        let arrived = Instant::now();
        let envelope = Envelope {
            deadline: timeout.map(|timeout| arrived + timeout),
            trace: submission.trace,
            tree: tree.map(TreeLink::Live),
            accepted: Some(arrived),
            held: submission.held.map(|held| held.into_kind(MemoryKind::Messages)),
            ..Envelope::new(message)
        };
        Ok((accepted, Box::new(envelope)))
    }

    /// Returns the size of the largest message that the agent accepts: that of its running revision.
    pub(crate) fn message_limit(&self) -> u64 {
        let traffic = self.traffic.load();
        let running = traffic.as_ref().map(|traffic| traffic.stable().spec.limits.message_bytes);
        // Before the first revision is ready messages wait, and the settings as declared bound them.
        running.unwrap_or_else(|| self.spec.load().limits.message_bytes)
    }
}
