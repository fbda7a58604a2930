//! Messages taken and given back, and the number of workers that do so.

use std::sync::Arc;

use caxton_control::breaker::Admission;
use caxton_control::mailbox::TakenMessage;

use crate::agent::delivery::handling::Handling;
use crate::agent::mailbox::MailboxState;
use crate::agent::mailbox::entry::{QueuedMessage, prefetch_next};
use crate::agent::{Agent, InFlight};
use crate::clock;
use crate::message::Deliver;

impl Agent {
    /// Takes the next message, with the revision that handles it. Counts the worker as ended if there is none.
    pub(in crate::agent) fn take(&self) -> Option<(InFlight, TakenMessage<u64, QueuedMessage>)> {
        let mut state = self.mailbox.lock();
        let traffic = self.traffic.load();
        let now = clock::steady_ms();
        let taken = match &*traffic {
            // More workers than instances are left over from before a revision with fewer: the surplus ends.
            Some(traffic) if state.workers <= traffic.max() && state.is_ready(now) => {
                // It is ready, so this is the trial if one is due.
                let taken = match state.breaker.admits(now) {
                    Admission::Trial => state.queue.take_trial(QueuedMessage::failures),
                    Admission::Yes | Admission::No { .. } => state.queue.take(now),
                };
                if state.has_late_timers {
                    self.fire_in_turn(&mut state, now);
                }
                taken
            }
            Some(_) | None => None,
        };
        let (Some(traffic), Some(taken)) = (&*traffic, taken) else {
            state.workers -= 1;
            self.schedule_wakeup(&mut state);
            return None;
        };
        prefetch_next(&state.queue);
        // Counted under the lock, so that a handoff that pauses the mailbox sees either this or nothing.
        Some((InFlight::new(Arc::clone(traffic.stable())), taken))
    }

    /// Ends a worker; messages that became ready meanwhile are left to a task.
    pub(in crate::agent) fn end_worker(self: &Arc<Self>) {
        if !self.end_worker_if_idle() {
            Arc::clone(self).work();
        }
    }

    /// Ends a worker if no message is ready. Returns `true` if it ended.
    pub(in crate::agent) fn end_worker_if_idle(&self) -> bool {
        let mut state = self.mailbox.lock();
        // Checked and counted under one lock: a message that comes in between finds no worker, or a worker finds it.
        let idle = !state.is_ready(clock::steady_ms());
        if idle {
            state.workers -= 1;
        }
        idle
    }

    /// Returns a message that was taken to the mailbox, before all others of its conversation; `due` is the time at
    /// which it may be handled.
    pub(in crate::agent) fn requeue(&self, mut taken: TakenMessage<u64, QueuedMessage>, due: Option<u64>) {
        // Weighed anew: memory may have filled up while it was in hand.
        if let QueuedMessage::InMemory(envelope) = taken.message {
            taken.message = QueuedMessage::new(envelope, &self.context);
        }
        let expires_at = self.expires_at(&taken.message);
        {
            let mut state = self.mailbox.lock();
            self.watch_expiry(&mut state, expires_at);
            match due {
                _ if state.is_stopping && taken.message.is_kept(&self.context.store) => {
                    // The store keeps it for the next start, and its memory is given back.
                    taken.message.uncount(&self.context);
                    state.queue.done(taken.lane, taken.follows);
                }
                Some(due) => state.queue.defer(taken, due),
                None => state.queue.put_back(taken),
            }
            self.schedule_wakeup(&mut state);
        }
        self.start_workers();
    }

    /// Removes a message that was handled or given up; the next one of its conversation becomes ready.
    pub(in crate::agent) fn done(&self, handling: Handling, well: bool) {
        let (lane, goes_on, flight) = handling.into_lane();
        let (closed, start) = {
            let mut state = self.mailbox.lock();
            // One lock for both: this is done for every message.
            let closed = well && state.breaker.succeeded();
            state.queue.done(lane, Some(goes_on));
            (closed, self.may_start(&mut state))
        };
        // After the queue: a handoff that sees nothing in flight must find the message gone.
        drop(flight);
        if closed {
            self.emit_breaker_closed("it handled a message again");
        }
        if start {
            self.start_worker();
        }
    }

    /// Starts as many workers as have messages.
    pub(in crate::agent) fn start_workers(&self) {
        while self.may_start(&mut self.mailbox.lock()) {
            self.start_worker();
        }
    }

    pub(in crate::agent) fn start_worker(&self) {
        // The upgrade fails only while the agent is being dropped, and its mailbox with it.
        if let Some(agent) = self.me.upgrade() {
            agent.work();
        }
    }

    /// Starts one more worker, if a message is ready and there are fewer workers than instances.
    pub(in crate::agent) fn start_another(&self) {
        if self.may_start_another(&mut self.mailbox.lock()) {
            self.start_worker();
        }
    }

    /// Counts a worker as waiting; another may take what is ready.
    pub(in crate::agent) fn worker_waits(&self) {
        let start = {
            let mut state = self.mailbox.lock();
            state.waiting_workers += 1;
            self.may_start(&mut state)
        };
        if start {
            self.start_worker();
        }
    }

    /// Counts one more worker if a message is ready and no [worker](crate::agent::delivery::worker) is at work that
    /// would come to it.
    pub(super) fn may_start(&self, state: &mut MailboxState) -> bool {
        if !state.is_ready(clock::steady_ms()) {
            self.schedule_wakeup(state);
            return false;
        }
        // A worker that does not wait comes to the message itself, without a wake-up.
        state.workers <= state.waiting_workers && self.count_worker(state)
    }

    /// Counts one more worker, also if others are at work.
    pub(super) fn may_start_another(&self, state: &mut MailboxState) -> bool {
        state.is_ready(clock::steady_ms()) && self.count_worker(state)
    }

    /// Counts one more worker if there are fewer than instances.
    fn count_worker(&self, state: &mut MailboxState) -> bool {
        // Without a revision there are no workers, and messages wait.
        let most = self.traffic.load().as_ref().map_or(0, |traffic| traffic.max());
        let may = state.workers < most;
        state.workers += u32::from(may);
        may
    }
}
