//! The beginning and the end of a mailbox: filled from the store, paused, drained, closed.

use std::sync::Arc;

use crate::agent::mailbox::entry::{QueuedMessage, StoredRef};
use crate::agent::mailbox::{Intake, MailboxFigures};
use crate::agent::{Agent, Outcomes};
use crate::clock;
use crate::message::{Answer, Deliver, Envelope, Outcome};
use crate::store::Queued;

impl Agent {
    /// Adds the messages that waited when the host started.
    pub(in crate::agent) fn add_waiting(&self, waiting: Vec<Queued>) {
        let mut state = self.mailbox.lock();
        let now = clock::steady_ms();
        for Queued { seq, conversation, rank, since, reply_by, again_at } in waiting {
            // Beyond the bound: they were accepted, perhaps under a larger depth.
            state.queue.reserve_beyond();
            // After the clock was set back nothing waits since a time to come.
            let since = since.unwrap_or(now).min(now);
            // The number of failures is in the store; here only matters whether there was one.
            let failed = again_at.is_some().into();
            let entry = QueuedMessage::stored(StoredRef { seq, since, reply_by, failed }, &self.context);
            self.watch_expiry(&mut state, self.expires_at(&entry));
            match again_at {
                Some(again_at) => state.queue.push_deferred(conversation, rank, since, again_at, entry),
                None => state.queue.push(conversation, rank, since, entry),
            }
        }
        self.schedule_wakeup(&mut state);
    }

    /// Pauses or resumes the mailbox for an operator.
    pub(crate) fn set_operator_paused(&self, paused: bool) {
        // Also for an agent of this name that may come after this one.
        self.shared.backlog.lock().set_paused(self.name.as_str(), paused);
        self.mailbox.lock().operator_paused = paused;
        if !paused {
            self.start_workers();
        }
    }

    /// Returns the figures of the mailbox.
    pub(crate) fn mailbox_figures(&self) -> MailboxFigures {
        let bound = self.spec.load().mailbox.depth;
        let now = clock::steady_ms();
        let state = self.mailbox.lock();
        MailboxFigures {
            depth: state.queue.depth(),
            bound,
            deferred: state.queue.deferred() as u64,
            timers: self.timers.count(),
            in_flight: state.queue.in_flight(),
            operator_paused: state.operator_paused,
            breaker: state.breaker.state(now).as_str(),
        }
    }

    /// Returns for how long the oldest message waits that could be handled, in milliseconds, the time without a host
    /// included. O(conversations that wait).
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        let since = self.mailbox.oldest()?;
        Some(clock::steady_ms().saturating_sub(since))
    }

    /// Releases messages that the store has, and refuses those that are still to come: the host stops. Calls, whose
    /// senders wait, are still handled.
    pub(crate) fn release_stored(&self) {
        let mut state = self.mailbox.lock();
        // Messages that are only in memory are lost with the host, so that they are handled as long as there is time.
        if !self.context.store.keeps_messages() {
            return;
        }
        state.is_stopping = true;
        let drained = state.queue.drain();
        // Dropping a message may release its reserved keys, which lets other runs go on and take this lock.
        drop(state);
        // Those that are put back are counted again.
        drained.iter().for_each(|entry| entry.uncount(&self.context));
        let calls: Vec<Box<Envelope>> = drained
            .into_iter()
            .filter_map(|entry| match entry {
                QueuedMessage::InMemory(envelope) if envelope.seq.is_none() => Some(envelope),
                QueuedMessage::InMemory(_) | QueuedMessage::Stored(_) => None,
            })
            .collect();
        for envelope in calls {
            self.mailbox.reserve_beyond();
            if self.put(envelope) {
                self.start_worker();
            }
        }
    }

    /// Closes the mailbox because the host stops: messages that are not stored are returned to their senders.
    pub(crate) fn close(&self, why: &'static str) {
        for entry in self.end_queue(why) {
            entry.uncount(&self.context);
            if let QueuedMessage::InMemory(envelope) = entry
                && envelope.seq.is_none()
            {
                self.give_back(*envelope, why);
            }
        }
    }

    /// Closes the mailbox because the agent is removed: waiting messages become dead letters, and messages kept for
    /// rehearsals are deleted.
    pub(crate) fn remove(&self, why: &'static str) {
        self.forget_recent();
        let left = self.end_queue(why);
        // After the mailbox is closed: timers that fire meanwhile are buried instead of delivered.
        self.bury_timers(why);
        for entry in left {
            match entry.fetch(&self.context) {
                Ok(envelope) if envelope.is_call() => self.give_back(*envelope, why),
                Ok(envelope) => {
                    let revision = None;
                    self.bury(envelope, "agent-removed", why.to_owned(), revision);
                }
                Err((stored, error)) => {
                    let seq = stored.seq;
                    QueuedMessage::Stored(stored).uncount(&self.context);
                    tracing::error!(agent = %self.name, seq, error, "a message of a removed agent stays in the store");
                }
            }
        }
    }

    fn end_queue(&self, why: &'static str) -> Vec<QueuedMessage> {
        let mut state = self.mailbox.lock();
        // Under the same lock as the drain, so that no message slips in between.
        state.intake = Intake::Closed(why);
        state.queue.drain()
    }

    /// Tells the caller of a message that it will not be handled.
    fn give_back(&self, envelope: Envelope, why: &'static str) {
        self.stats.count(Outcomes::Dropped);
        self.context.events.emit(
            Some(self.name.as_str()),
            "message.undelivered",
            serde_json::json!({ "id": envelope.message.id, "sender": envelope.message.sender, "reason": why }),
        );
        if let Some(waiter) = envelope.waiter {
            waiter.resolve(Answer { revision: None, outcome: Outcome::Cancelled(why) });
        }
    }

    /// Puts redelivered dead letters into the mailbox.
    pub(crate) fn revive(self: &Arc<Self>, envelopes: Vec<Envelope>) {
        for envelope in envelopes {
            self.mailbox.reserve_beyond();
            if self.put(Box::new(envelope)) {
                self.start_worker();
            }
        }
    }
}
