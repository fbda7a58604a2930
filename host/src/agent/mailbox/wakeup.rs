//! The times at which a mailbox acts by itself: another attempt, a timer, an expiry, the trial of its breaker.

use caxton_control::breaker::Admission;

use crate::agent::Agent;
use crate::agent::mailbox::{Intake, MailboxState};
use crate::clock;

/// Messages that become ready at once when the time of another attempt has passed, and the milliseconds until the next
/// ones do: after a long stop of the host they do not all come together.
const AT_ONCE: usize = 256;
const PAUSE: u64 = 10;

impl Agent {
    /// Schedules the wake-up for the next thing that comes due.
    pub(super) fn schedule_wakeup(&self, state: &mut MailboxState) {
        let now = clock::steady_ms();
        // A crowded mailbox has timers that are due already, for which the clock would wake it all the time.
        let waits = !state.is_firing && !state.has_late_timers && !state.is_stopping;
        let timer = self.timers.next().filter(|_| waits && !matches!(state.intake, Intake::Closed(_)));
        let due = state.queue.next_due().into_iter().chain(timer).min();
        // Not sooner than the pause, so that a backlog of retries comes in portions of `AT_ONCE`.
        let mut next = due.map(|due| due.max(now + PAUSE));
        if let Some(expires_at) = state.expiry.next() {
            next = Some(next.map_or(expires_at, |next| next.min(expires_at)).max(now + 1));
        }
        if state.queue.has_ready()
            && let Admission::No { until } = state.breaker.peek(now)
        {
            next = Some(next.map_or(until, |next| next.min(until)).max(now + 1));
        }
        let Some(next) = next else { return };
        // A later time needs nothing: the earlier wake-up schedules it.
        if next < state.wake_at {
            state.wake_at = next;
            self.shared.wakeups.wake(next, &self.me);
        }
    }

    /// Moves due messages to the ready queue and removes expired ones. Called at the time of
    /// [`schedule_wakeup`](Self::schedule_wakeup), or soon after.
    pub(crate) fn on_timer(&self) {
        let over = {
            let (mut state, now) = (self.mailbox.lock(), clock::steady_ms());
            // First: a schedule within the calls below must not take this wake-up for one that is still to come.
            state.wake_at = u64::MAX;
            state.queue.release_due(now, AT_ONCE);
            self.fire_due(&mut state, now, false);
            let over = self.take_expired(&mut state, now);
            self.schedule_wakeup(&mut state);
            over
        };
        // Without the lock, which each of them takes.
        self.start_workers();
        if let (false, Some(agent)) = (over.is_empty(), self.me.upgrade()) {
            // They may have to be read.
            tokio::task::spawn_blocking(move || agent.bury_expired(over));
        }
    }
}
