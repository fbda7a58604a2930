//! Timers of an agent: messages that are delivered later, on their way through the store and into the mailbox.
//!
//! A timer has no place in the mailbox until it is due. Then as many come as the mailbox has room for: half of it is
//! for them, so that many timers do not fill it for other senders. Beyond that every second message that leaves makes
//! room for one, so that many other messages do not keep timers out.

use std::sync::Arc;

use crate::agent::mailbox::{Intake, MailboxState, STORE_PAUSE};
use crate::agent::{AdmitError, Agent, Outcomes};
use crate::clock;
use crate::message::{Deliver, Envelope, TimerName};

/// Timers that fire at once, at most: they come in one transaction.
const AT_ONCE: u32 = 256;

/// The inbox of messages that are delivered later. The store has them by the time they are put here, and nothing of
/// them stays in memory.
pub(in crate::agent) struct TimerInbox {
    receiver: Arc<Agent>,
}

impl TimerInbox {
    pub(in crate::agent) fn inbox(receiver: &Arc<Agent>) -> Arc<dyn Deliver> {
        Arc::new(Self { receiver: Arc::clone(receiver) })
    }
}

impl Deliver for TimerInbox {
    fn put(&self, _: Box<Envelope>) -> bool {
        // The message is in the store, where it is counted by itself.
        self.release();
        let mut state = self.receiver.mailbox.lock();
        self.receiver.schedule_wakeup(&mut state);
        false
    }

    fn work(self: Arc<Self>) {}

    fn reserve_beyond(&self) {
        self.receiver.timers.reserve_beyond();
    }

    fn release(&self) {
        self.receiver.timers.release();
    }

    fn other(&self, agent: &str) -> Option<Arc<dyn Deliver>> {
        self.receiver.other(agent)
    }
}

impl Agent {
    /// Reserves a place for a message that is delivered later (`limits.timers`). A message that replaces another of its
    /// sender, with the same timer name, always gets one.
    pub(in crate::agent) fn reserve_timer(&self, envelope: &Envelope) -> Result<(), AdmitError> {
        if self.is_http() {
            return Err(AdmitError::Unavailable("it is an HTTP agent, which takes no messages"));
        }
        self.check_open(Some(&envelope.message.conversation_id))?;
        let bound = self.spec.load().limits.timers;
        if self.timers.reserve(bound.into()) {
            return Ok(());
        }
        let replaces = envelope.timer.as_ref().is_some_and(|name| {
            let found = self.context.store.timers().get(&envelope.message.sender, &TimerName::Name(name.clone()));
            matches!(found, Ok(Some((_, receiver))) if receiver == self.name.as_str())
        });
        if replaces {
            self.timers.reserve_beyond();
            return Ok(());
        }
        self.stats.count(Outcomes::Refused);
        Err(AdmitError::TooManyTimers { agent: self.name.to_string(), bound })
    }

    /// Moves due timers into the mailbox as far as it has room; `one_left` is set if a message has just left.
    pub(super) fn fire_due(&self, state: &mut MailboxState, now: u64, one_left: bool) {
        let is_over = state.is_stopping || matches!(state.intake, Intake::Closed(_));
        if state.is_firing || is_over || self.timers.next().is_none_or(|due| due > now) {
            return;
        }
        let places = state.queue.reserve_due(AT_ONCE, one_left);
        // Tried again when a message leaves, and not by the clock.
        state.has_late_timers = places == 0;
        if let (1.., Some(agent)) = (places, self.me.upgrade()) {
            // Under the lock, so that a second wake-up does not read the same timers.
            state.is_firing = true;
            // In a task: it reads the store, and this holds the lock.
            self.context.workers.spawn(agent.fire(now, places));
        }
    }

    /// Moves a due timer into the place of every second message that leaves a full mailbox.
    pub(super) fn fire_in_turn(&self, state: &mut MailboxState, now: u64) {
        let one_left = !state.timers_turn;
        state.timers_turn = one_left;
        self.fire_due(state, now, one_left);
    }

    /// Puts timers that are due by `now` into reserved places of the mailbox.
    async fn fire(self: Arc<Self>, now: u64, places: u32) {
        let (fired, failed) = match self.context.store.timers().fire(self.name.shared(), now, places).await {
            Ok(fired) => (fired, false),
            Err(error) => {
                tracing::error!(agent = %self.name, %error, "timers that are due stay in the store");
                (Vec::new(), true)
            }
        };
        let is_gone = {
            let mut state = self.mailbox.lock();
            // Fewer were due than places were reserved.
            for _ in fired.len()..places as usize {
                state.queue.release();
            }
            // After a failure the next try waits for the wake-up below.
            (state.is_firing, state.has_late_timers) = (false, failed);
            matches!(state.intake, Intake::Closed(_))
        };
        for envelope in fired {
            if is_gone {
                self.bury_timer(envelope, "the agent is removed");
            } else if self.put(Box::new(envelope)) {
                self.start_worker();
            }
        }
        // Not by the mailbox's own wake-up, which would find the timers due and try again at once.
        if failed {
            self.shared.wakeups.wake(clock::steady_ms() + STORE_PAUSE, &self.me);
        }
        self.schedule_wakeup(&mut self.mailbox.lock());
    }

    /// Makes dead letters of all timers, because the agent is removed.
    pub(in crate::agent) fn bury_timers(&self, why: &'static str) {
        let Some(agent) = self.me.upgrade() else { return };
        // Most agents have none, and need no task.
        if agent.timers.count() == 0 {
            return;
        }
        self.context.workers.spawn(async move {
            loop {
                match agent.context.store.timers().fire(agent.name.shared(), u64::MAX, AT_ONCE).await {
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
