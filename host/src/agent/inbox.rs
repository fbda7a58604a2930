//! The mailbox as those who send see it: a place that is kept, and then filled.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use caxton_control::mailbox::Full;

use super::{AdmitError, Agent, CONVERSATIONS, Outcomes, Taking, worker};
use crate::clock;
use crate::wasm::{Envelope, Inbox, Sent, rank};

impl Inbox for Agent {
    fn put(&self, mut envelope: Box<Envelope>) -> bool {
        envelope.accepted.get_or_insert_with(Instant::now);
        let conversation = CONVERSATIONS.hash_one(&envelope.message.conversation_id);
        let (rank, due) = (rank(envelope.message.priority), envelope.due);
        let is_call = envelope.is_call();
        let slot = self.slot(envelope);
        let over_at = self.over_at(&slot);
        let start = {
            let mut inbox = self.inbox.lock();
            if inbox.leaving && self.is_kept(&slot) {
                self.forget(&slot);
                inbox.mailbox.release();
                return false;
            }
            self.watch(&mut inbox, over_at);
            let now = clock::steady_ms();
            inbox.mailbox.push(conversation, rank, due.map_or(now, |due| due.min(now)), slot);
            // Who waits for an answer works for it meanwhile.
            self.may_start(&mut inbox) || (is_call && self.may_start_another(&mut inbox))
        };
        self.stats.count(Outcomes::Accepted);
        start
    }

    fn work(self: Arc<Self>) {
        self.context.workers.clone().spawn(worker::work(self));
    }

    fn other(&self, agent: &str) -> Option<Arc<dyn Inbox>> {
        let routes = self.context.routes.load();
        let agent = routes.present(agent).filter(|agent| !agent.is_http())?;
        Some(Arc::clone(agent) as Arc<dyn Inbox>)
    }

    fn reserve_beyond(&self) {
        self.inbox.lock().mailbox.reserve_beyond();
    }

    fn release(&self) {
        let last = {
            let mut inbox = self.inbox.lock();
            inbox.mailbox.release();
            if inbox.crowded {
                self.fire_due(&mut inbox, clock::steady_ms(), false);
            }
            !matches!(inbox.taking, Taking::All) && inbox.mailbox.depth() == 0
        };
        if last {
            // The agent may end now, for which the reconciler waits.
            self.context.wake(self.name.shared());
        }
    }
}

impl Agent {
    /// Checks that it takes a message of a conversation; none stands for one that begins.
    pub(crate) fn check_open(&self, conversation: Option<&str>) -> Result<(), AdmitError> {
        let taking = self.inbox.lock().taking;
        match taking {
            Taking::All => Ok(()),
            Taking::Open(why) => {
                let name = self.name.as_str();
                let takes_part = |participant: &str| (participant == name).then_some(());
                let open = conversation.and_then(|name| self.context.store.conversations.find(name, takes_part));
                open.ok_or(AdmitError::Unavailable(why))
            }
            Taking::Nothing(why) => Err(AdmitError::Unavailable(why)),
        }
    }

    /// Keeps a place for one message of a conversation; none stands for one that begins.
    pub(crate) fn reserve_place(&self, conversation: Option<&str>) -> Result<(), AdmitError> {
        if self.is_http() {
            return Err(AdmitError::Unavailable("it is an HTTP agent, which takes no messages"));
        }
        let mut inbox = self.inbox.lock();
        if !matches!(inbox.taking, Taking::All) {
            drop(inbox);
            self.check_open(conversation)?;
            inbox = self.inbox.lock();
        }
        inbox.mailbox.reserve().map_err(|Full { depth }| {
            self.stats.count(Outcomes::Refused);
            AdmitError::Full { depth }
        })?;
        if let Some(conversation) = conversation {
            inbox.mailbox.expect(&CONVERSATIONS.hash_one(conversation));
        }
        Ok(())
    }

    /// Takes messages of all conversations again.
    pub(crate) fn stay(&self) {
        self.inbox.lock().taking = Taking::All;
    }

    /// Returns true if messages are in hand or wait, also those that an operator lets wait and those that wait for their time.
    pub(crate) fn has_work(&self) -> bool {
        let inbox = self.inbox.lock();
        inbox.mailbox.depth() > 0 || inbox.mailbox.in_flight() > 0 || self.timers.count() > 0
    }
}

/// Delivers what was sent. Of the agents that nobody works for yet, one is left to the caller.
pub(super) fn deliver(sends: Vec<Sent>, now: Instant) -> Option<Arc<Agent>> {
    let mut left: Option<Arc<dyn Inbox>> = None;
    for sent in sends {
        if let Some(inbox) = sent.put(now)
            && let Some(earlier) = left.replace(inbox)
        {
            earlier.work();
        }
    }
    let left: Arc<dyn Any + Send + Sync> = left?;
    Some(left.downcast().expect("agents are the only inboxes of a host"))
}
