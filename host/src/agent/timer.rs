//! Timers of an agent: messages that are delivered later, on their way through the store and into the mailbox.
//!
//! A timer has no place in the mailbox until it is due. Then as many come as the mailbox has room for: half of it is for
//! them, so that a crowd of timers refuses nobody a place. Beyond that every second message that leaves makes room for
//! one, so that a crowd of others does not keep them out.

use std::sync::Arc;

use super::queue::STORE_PAUSE;
use super::{AdmitError, Agent, InboxState, Outcomes, Taking};
use crate::clock;
use crate::wasm::{Envelope, Inbox, TimerName};

/// Timers that fire at once, at most: they come in one transaction.
const AT_ONCE: u32 = 256;

/// The inbox of messages that are delivered later. The store has them by the time they are put here, and nothing of
/// them stays in memory.
pub(super) struct Waiting {
    receiver: Arc<Agent>,
}

impl Waiting {
    pub(super) fn inbox(receiver: &Arc<Agent>) -> Arc<dyn Inbox> {
        Arc::new(Self { receiver: Arc::clone(receiver) })
    }
}

impl Inbox for Waiting {
    fn put(&self, _: Box<Envelope>) -> bool {
        self.release();
        let mut inbox = self.receiver.inbox.lock();
        self.receiver.look_later(&mut inbox);
        false
    }

    fn work(self: Arc<Self>) {}

    fn reserve_beyond(&self) {
        self.receiver.timers.reserve_beyond();
    }

    fn release(&self) {
        self.receiver.timers.release();
    }

    fn other(&self, agent: &str) -> Option<Arc<dyn Inbox>> {
        self.receiver.other(agent)
    }
}

impl Agent {
    /// Keeps a place for a message that is delivered later (`limits.timers`). One that takes the place of another of its
    /// sender, which has the same name, always has one.
    pub(super) fn reserve_timer(&self, envelope: &Envelope) -> Result<(), AdmitError> {
        if self.is_http() {
            return Err(AdmitError::Unavailable("it is an HTTP agent, which takes no messages"));
        }
        self.check_open(Some(&envelope.message.conversation_id))?;
        let bound = self.spec.load().limits.timers;
        if self.timers.reserve(bound.into()) {
            return Ok(());
        }
        let replaces = envelope.timer.as_ref().is_some_and(|name| {
            let found = self.context.store.timer(&envelope.message.sender, &TimerName::Name(name.clone()));
            matches!(found, Ok(Some((_, receiver))) if receiver == self.name.as_str())
        });
        if replaces {
            self.timers.reserve_beyond();
            return Ok(());
        }
        self.stats.count(Outcomes::Refused);
        Err(AdmitError::TooManyTimers { agent: self.name.to_string(), bound })
    }

    /// Lets timers come that are due, as far as there is room for them; `one_left` if a message has just left.
    pub(super) fn fire_due(&self, inbox: &mut InboxState, now: u64, one_left: bool) {
        let is_over = inbox.leaving || matches!(inbox.taking, Taking::Nothing(_));
        if inbox.firing || is_over || self.timers.next().is_none_or(|due| due > now) {
            return;
        }
        let places = inbox.mailbox.reserve_due(AT_ONCE, one_left);
        inbox.crowded = places == 0;
        if let (1.., Some(agent)) = (places, self.me.upgrade()) {
            inbox.firing = true;
            self.context.workers.spawn(agent.fire(now, places));
        }
    }

    /// A message has left the mailbox, which was too full for timers.
    pub(super) fn fire_in_turn(&self, inbox: &mut InboxState, now: u64) {
        let one_left = !inbox.timers_turn;
        inbox.timers_turn = one_left;
        self.fire_due(inbox, now, one_left);
    }

    /// Puts what is due by `now` into so many places of the mailbox.
    async fn fire(self: Arc<Self>, now: u64, places: u32) {
        let (fired, failed) = match self.context.store.fire_timers(self.name.shared(), now, places).await {
            Ok(fired) => (fired, false),
            Err(error) => {
                tracing::error!(agent = %self.name, %error, "timers that are due stay in the store");
                (Vec::new(), true)
            }
        };
        let is_gone = {
            let mut inbox = self.inbox.lock();
            for _ in fired.len()..places as usize {
                inbox.mailbox.release();
            }
            // After a failure not before it is woken.
            (inbox.firing, inbox.crowded) = (false, failed);
            matches!(inbox.taking, Taking::Nothing(_))
        };
        for envelope in fired {
            if is_gone {
                self.bury_timer(envelope, "the agent is removed");
            } else if self.put(Box::new(envelope)) {
                self.start_worker();
            }
        }
        if failed {
            self.context.timers.wake(clock::steady_ms() + STORE_PAUSE, &self.me);
        }
        self.look_later(&mut self.inbox.lock());
    }

    /// Makes dead letters of all timers, because the agent is removed.
    pub(super) fn bury_timers(&self, why: &'static str) {
        let Some(agent) = self.me.upgrade() else { return };
        if agent.timers.count() == 0 {
            return;
        }
        self.context.workers.spawn(async move {
            loop {
                match agent.context.store.fire_timers(agent.name.shared(), u64::MAX, AT_ONCE).await {
                    Ok(fired) if fired.is_empty() => return,
                    Ok(fired) => fired.into_iter().for_each(|envelope| agent.bury_timer(envelope, why)),
                    Err(error) => {
                        tracing::error!(agent = %agent.name, %error, "timers of a removed agent stay in the store");
                        return;
                    }
                }
            }
        });
    }

    /// Makes a dead letter of a timer that never came to the mailbox.
    fn bury_timer(&self, envelope: Envelope, why: &str) {
        self.stats.count(Outcomes::Accepted);
        self.bury(Box::new(envelope), "agent-removed", why.to_owned(), None);
    }
}
