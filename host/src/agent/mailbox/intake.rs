//! The senders' side of a mailbox: a place is reserved, and then filled.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::mailbox::MailboxFull;

use crate::agent::delivery::worker;
use crate::agent::mailbox::Intake;
use crate::agent::mailbox::entry::QueuedMessage;
use crate::agent::{AdmitError, Agent, Outcomes, conversation_hash};
use crate::clock;
use crate::message::{Deliver, Envelope};
use crate::wasm::HeldLease;

impl Deliver for Agent {
    fn put(&self, mut envelope: Box<Envelope>) -> bool {
        envelope.accepted.get_or_insert_with(Instant::now);
        let conversation = conversation_hash(&envelope.message.conversation_id);
        let (rank, due) = (envelope.message.priority, envelope.due);
        let is_call = envelope.is_call();
        // Before the lock: it may drop a large content.
        let entry = QueuedMessage::new(envelope, &self.context);
        let expires_at = self.expires_at(&entry);
        let start = {
            let mut state = self.mailbox.lock();
            // The next start of the host reads it from the store.
            if state.is_stopping && entry.is_kept(&self.context.store) {
                entry.uncount(&self.context);
                state.queue.release();
                return false;
            }
            self.watch_expiry(&mut state, expires_at);
            let now = clock::steady_ms();
            // A timer waits since it was due, so that timers keep their order however late they fire.
            state.queue.push(conversation, rank, due.map_or(now, |due| due.min(now)), entry);
            // A caller that waits works meanwhile, so that a call may add a worker beside others.
            self.may_start(&mut state) || (is_call && self.may_start_another(&mut state))
        };
        self.stats.count(Outcomes::Accepted);
        start
    }

    fn work(self: Arc<Self>) {
        let workers = self.context.workers.clone();
        workers.spawn(worker::start(self, HeldLease::default()));
    }

    fn other(&self, agent: &str) -> Option<Arc<dyn Deliver>> {
        let agent = self.directory.agent(agent).filter(|agent| !agent.is_http())?;
        Some(agent as Arc<dyn Deliver>)
    }

    fn reserve_beyond(&self) {
        self.mailbox.reserve_beyond();
    }

    fn release(&self) {
        let last = {
            let mut state = self.mailbox.lock();
            state.queue.release();
            if state.has_late_timers {
                self.fire_due(&mut state, clock::steady_ms(), false);
            }
            !matches!(state.intake, Intake::Open) && state.queue.depth() == 0
        };
        if last {
            // The agent may end now, for which the reconciler waits.
            self.context.wake(self.name.shared());
        }
    }
}

impl Agent {
    /// Checks that the mailbox accepts a message of a conversation; `None` stands for a new one.
    pub(crate) fn check_open(&self, conversation: Option<&str>) -> Result<(), AdmitError> {
        let intake = self.mailbox.lock().intake;
        match intake {
            Intake::Open => Ok(()),
            Intake::Draining(why) => {
                let name = self.name.as_str();
                let takes_part = |participant: &str| (participant == name).then_some(());
                let open = conversation.and_then(|name| self.context.conversations.find(name, takes_part));
                open.ok_or(AdmitError::Unavailable(why))
            }
            Intake::Closed(why) => Err(AdmitError::Unavailable(why)),
        }
    }

    /// Reserves a place for a message of a conversation; `None` stands for a new one.
    pub(crate) fn reserve_place(&self, conversation: Option<&str>) -> Result<(), AdmitError> {
        if self.is_http() {
            return Err(AdmitError::Unavailable("it is an HTTP agent, which takes no messages"));
        }
        let mut state = self.mailbox.lock();
        if !matches!(state.intake, Intake::Open) {
            // The check reads conversations, perhaps from the store, and so not under the lock.
            drop(state);
            self.check_open(conversation)?;
            state = self.mailbox.lock();
        }
        state.queue.reserve().map_err(|MailboxFull { limit }| {
            self.stats.count(Outcomes::Refused);
            AdmitError::Full { limit }
        })?;
        if let Some(conversation) = conversation {
            // The push that follows touches this lane: its memory is fetched into the cache meanwhile.
            state.queue.prefetch(&conversation_hash(conversation));
        }
        Ok(())
    }

    /// Accepts messages of all conversations again.
    pub(crate) fn reopen(&self) {
        self.mailbox.reopen();
    }

    /// Returns `true` if messages are in hand or wait, for whatever reason, timers included.
    pub(crate) fn has_work(&self) -> bool {
        self.mailbox.has_messages() || self.timers.count() > 0
    }
}
