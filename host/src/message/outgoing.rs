//! The admitted messages on their way to a mailbox.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::Performative;
use caxton_control::mailbox::Priority;

use super::contract::Message;
use super::deliver::Deliver;
use super::envelope::Envelope;
use super::id::new_id;
use crate::budgets::MessageCharge;

/// A message that is to be sent, without anything live: what a commit asks the store to keep.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// The message.
    pub(crate) envelope: Box<Envelope>,
    /// Set if the host sends it in place of an agent.
    pub(crate) is_sent_by_host: bool,
    /// The bound of hops if the message exceeds it: then it is stored as a dead letter and not delivered.
    pub(crate) exceeded_limit: Option<u32>,
    /// The sequence number that the store gave it.
    pub(crate) seq: Option<u64>,
}

/// A place in a mailbox that is reserved for one message. Dropping it releases the place.
pub(crate) struct ReservedPlace {
    /// `None` once the message was put there.
    inbox: Option<Arc<dyn Deliver>>,
    /// The hops of the answer if the message is refused, where they differ from those of the message.
    refusal: Option<Box<Refusal>>,
    /// The message as it is held from the budget of its tree, if that has one.
    charge: Option<Box<MessageCharge>>,
}

impl ReservedPlace {
    /// Counts the message in the budget of its tree.
    pub(crate) fn keep_charge(&self) {
        if let Some(charge) = &self.charge {
            charge.keep();
        }
    }

    /// Takes that back, for a commit that is not written.
    pub(crate) fn take_back_charge(&self) {
        if let Some(charge) = &self.charge {
            charge.take_back();
        }
    }

    /// Replaces the message by a `not-understood` to its sender with this reason. Returns `false` and changes nothing
    /// if the sender has no mailbox.
    pub(crate) fn refuse(&mut self, dispatch: &mut Dispatch, why: &str) -> bool {
        let sender = &dispatch.envelope.message.sender;
        let Some(origin) = self.inbox.as_ref().and_then(|inbox| inbox.other(sender)) else { return false };
        // The answer goes to another mailbox, so the place in this one is free at once.
        if let Some(inbox) = self.inbox.take() {
            inbox.release();
        }
        *dispatch.envelope = not_understood(&dispatch.envelope, why);
        if let Some(refusal) = self.refusal.take() {
            let Refusal { hops, limit, end } = *refusal;
            dispatch.envelope.hops = hops;
            // The answer would be one hop too many: it becomes a dead letter like any message.
            if hops > limit {
                (dispatch.exceeded_limit, self.inbox) = (Some(limit), Some(end));
                return true;
            }
        }
        // The sender has to get it even if its mailbox is full, or it would wait for an answer for ever.
        origin.reserve_beyond();
        self.inbox = Some(origin);
        true
    }
}

/// Returns the answer to a message that is not legal in its conversation.
fn not_understood(refused: &Envelope, why: &str) -> Envelope {
    let question = &refused.message;
    let message = Message {
        id: new_id(),
        performative: Performative::NotUnderstood,
        sender: question.receiver.clone(),
        receiver: question.sender.clone(),
        content: why.as_bytes().to_vec(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        ontology: None,
        protocol: question.protocol.clone(),
        conversation_id: question.conversation_id.clone(),
        reply_with: None,
        in_reply_to: Some(question.reply_with.as_ref().unwrap_or(&question.id).clone()),
        reply_by: None,
        priority: Priority::Normal,
        sent_at: question.sent_at,
        attempt: 1,
        headers: Vec::new(),
    };
    let (hops, trace, tree) = (refused.hops, refused.trace.clone(), refused.tree.clone());
    Envelope { hops, trace, tree, ..Envelope::new(message) }
}

impl Drop for ReservedPlace {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox.take() {
            inbox.release();
        }
    }
}

/// An admitted message with its reserved place. Dropping it releases the place.
pub(crate) struct Outgoing {
    dispatch: Dispatch,
    place: ReservedPlace,
}

/// The hops of the `not-understood` that answers a refused message.
pub(crate) struct Refusal {
    /// The length of the chain of messages.
    pub(crate) hops: u32,
    /// The bound of that length.
    pub(crate) limit: u32,
    /// The mailbox that records the message if it exceeds the bound.
    pub(crate) end: Arc<dyn Deliver>,
}

impl Outgoing {
    /// Wraps a message for which `inbox` has reserved a place.
    pub(crate) fn new(inbox: Arc<dyn Deliver>, envelope: Box<Envelope>) -> Self {
        let dispatch = Dispatch { envelope, is_sent_by_host: false, exceeded_limit: None, seq: None };
        Self { dispatch, place: ReservedPlace { inbox: Some(inbox), refusal: None, charge: None } }
    }

    /// Wraps a message that exceeds the bound of hops. `end` is called when its dead letter is durable.
    pub(crate) fn ending(end: Arc<dyn Deliver>, envelope: Box<Envelope>, limit: u32) -> Self {
        let mut sent = Self::new(end, envelope);
        sent.dispatch.exceeded_limit = Some(limit);
        sent
    }

    /// Separates the message from its place, for the time in which the store has it.
    pub(crate) fn split(self) -> (Dispatch, ReservedPlace) {
        (self.dispatch, self.place)
    }

    /// Puts a message together with its place again.
    pub(crate) fn join(dispatch: Dispatch, place: ReservedPlace) -> Self {
        Self { dispatch, place }
    }

    /// Returns both parts, for a message that may be refused.
    pub(crate) fn parts_mut(&mut self) -> (&mut Dispatch, &mut ReservedPlace) {
        (&mut self.dispatch, &mut self.place)
    }

    /// Sets the hops of the answer to a refusal.
    pub(crate) fn refused_as(mut self, refusal: Refusal) -> Self {
        self.place.refusal = Some(Box::new(refusal));
        self
    }

    /// Holds the message from the budget of its tree until it is sent.
    pub(crate) fn charged(mut self, charge: Option<Box<MessageCharge>>) -> Self {
        self.place.charge = charge;
        self
    }

    /// Returns the bound of hops that the message exceeds, if it does.
    pub(crate) fn exceeded_limit(&self) -> Option<u32> {
        self.dispatch.exceeded_limit
    }

    /// Marks the message as sent by the host in place of an agent.
    pub(crate) fn mark_sent_by_host(mut self) -> Self {
        self.dispatch.is_sent_by_host = true;
        self
    }

    /// Delivers the message.
    pub(crate) fn deliver(self) {
        if let Some(inbox) = self.put(Instant::now()) {
            inbox.work();
        }
    }

    /// Puts the message into its mailbox, where it waits from `now` on. Returns the mailbox if a worker has to be
    /// started for it.
    pub(crate) fn put(mut self, now: Instant) -> Option<Arc<dyn Deliver>> {
        // Kept already if a commit has sent it.
        self.place.keep_charge();
        let inbox = self.place.inbox.take()?;
        let mut envelope = self.dispatch.envelope;
        // The wait of a message starts when it becomes deliverable, not when it was admitted.
        envelope.accepted = Some(now);
        inbox.put(envelope).then_some(inbox)
    }

    /// Returns the envelope.
    pub(crate) fn envelope(&self) -> &Envelope {
        &self.dispatch.envelope
    }

    /// Returns the message id.
    pub(crate) fn id(&self) -> &str {
        &self.envelope().message.id
    }
}
