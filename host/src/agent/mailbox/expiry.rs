//! Messages that wait for longer than they may (SPEC §7).
//!
//! A message that has expired when its turn comes is given up there. The messages that wait in a paused or slow mailbox
//! are scanned when the first of them may have expired, and not before.

use std::sync::Arc;
use std::time::Instant;

use crate::agent::mailbox::MailboxState;
use crate::agent::mailbox::entry::{QueuedMessage, since};
use crate::agent::mailbox::expiry_watch::ExpiryWatch;
use crate::agent::{Agent, Outcomes};
use crate::clock;
use crate::message::{Answer, Deliver, Envelope, Outcome};
use crate::store::DeadLetter;

impl Agent {
    /// Returns the reason for which a message has expired (SPEC §7, message timeout); `None` if it has not.
    pub(in crate::agent) fn expired(&self, envelope: &Envelope) -> Option<&'static str> {
        if envelope.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Some("nobody waits for the answer any more");
        }
        // A call has a deadline of its own, and `mailbox.timeout` is for messages without one.
        if envelope.is_call() {
            return None;
        }
        if envelope.deadline.is_none() && envelope.message.reply_by.is_some_and(|by| by <= clock::now_ms()) {
            return Some("it came to be handled after its reply-by");
        }
        let timeout = self.spec.load().mailbox.timeout?;
        (clock::steady_ms().saturating_sub(since(envelope)) > clock::millis(timeout))
            .then_some("it waited longer than mailbox.timeout")
    }

    /// Returns the time at which a waiting message expires, by the steady clock; `u64::MAX` for never. A call expires
    /// when its sender stops waiting.
    pub(in crate::agent) fn expires_at(&self, entry: &QueuedMessage) -> u64 {
        let (since, reply_by) = match entry {
            QueuedMessage::InMemory(envelope) if envelope.is_call() => {
                return envelope.deadline.map_or(u64::MAX, |deadline| clock::steady_at(deadline).saturating_add(1));
            }
            QueuedMessage::InMemory(envelope) => (since(envelope), envelope.message.reply_by),
            QueuedMessage::Stored(stored) => (stored.since, stored.reply_by),
        };
        let timeout = self.spec.load().mailbox.timeout;
        let timed_out = timeout.map_or(u64::MAX, |timeout| since.saturating_add(clock::millis(timeout) + 1));
        // The earlier of the two ends the wait.
        timed_out.min(reply_by.map_or(u64::MAX, clock::from_wall))
    }

    /// Registers the time at which a message expires.
    pub(super) fn watch_expiry(&self, state: &mut MailboxState, expires_at: u64) {
        if state.expiry.watch(expires_at) {
            self.schedule_wakeup(state);
        }
    }

    /// Removes expired messages, if any may have expired.
    pub(super) fn take_expired(&self, state: &mut MailboxState, now: u64) -> Vec<QueuedMessage> {
        if state.expiry.next().is_none_or(|next| next > now) {
            return Vec::new();
        }
        let mut next = u64::MAX;
        let over = state.queue.expire(|entry| {
            let expires_at = self.expires_at(entry);
            let over = match entry {
                // By the sender's own deadline, which no change of the clock moves.
                QueuedMessage::InMemory(envelope) if envelope.is_call() => envelope.is_abandoned(),
                QueuedMessage::InMemory(_) | QueuedMessage::Stored(_) => expires_at <= now,
            };
            if !over {
                next = next.min(expires_at);
            }
            over
        });
        state.expiry = ExpiryWatch::after_scan(next, now);
        over
    }

    /// Schedules a scan of the waiting messages, because settings have changed.
    pub(in crate::agent) fn check_expiry_soon(&self) {
        self.watch_expiry(&mut self.mailbox.lock(), 0);
    }

    /// Checks what is due or expires by the wall clock, after that was set. Timers with a date have their new time
    /// already.
    pub(crate) fn follow_clock(&self) {
        {
            let mut state = self.mailbox.lock();
            state.expiry.scan_soon();
        }
        self.on_timer();
    }

    /// Makes dead letters of expired messages.
    pub(in crate::agent) fn bury_expired(self: &Arc<Self>, over: Vec<QueuedMessage>) {
        for entry in over {
            match entry.fetch(&self.context) {
                // A call was never stored, and its caller has left, so that there is nothing to bury.
                Ok(envelope) if envelope.is_call() => self.stats.count(Outcomes::Dropped),
                Ok(envelope) => self.bury_one_expired(envelope),
                Err((stored, error)) => {
                    let seq = stored.seq;
                    QueuedMessage::Stored(stored).uncount(&self.context);
                    tracing::error!(agent = %self.name, seq, error, "a message that is over stays in the store");
                }
            }
        }
        // An agent that leaves may have nothing more to do.
        self.context.wake(self.name.shared());
    }

    fn bury_one_expired(self: &Arc<Self>, mut envelope: Box<Envelope>) {
        let why = self.expired(&envelope).unwrap_or("its time is over");
        let sends = self.notices(&envelope, "expired", why);
        let waiter = envelope.waiter.take();
        let (reason, error, at) = ("expired", why.to_owned(), clock::now_ms());
        let agent = Arc::clone(self);
        self.bury_with(DeadLetter { envelope, reason, error, at }, sends, move |buried| match buried {
            Ok(()) => {
                agent.stats.count(Outcomes::Failed);
                if let Some(waiter) = waiter {
                    waiter.resolve(Answer { revision: None, outcome: Outcome::Cancelled(why) });
                }
            }
            // Still in the store: it waits, and is given up again.
            Err(mut envelope) => {
                envelope.waiter = waiter;
                // Its place was released when it was taken out, and may belong to another by now.
                agent.reserve_beyond();
                if agent.put(envelope) {
                    agent.work();
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::{agent, sent};
    use crate::message::Waiter;
    use crate::store::DeadFilter;

    /// Takes a message into the mailbox.
    fn put(agent: &Agent, envelope: Box<Envelope>) {
        agent.reserve_place(None).unwrap();
        agent.put(envelope);
    }

    /// Buries the messages that have expired by `now`, and returns the ids of their dead letters.
    async fn given_up(agent: &Arc<Agent>, now: u64) -> Vec<String> {
        let over = agent.take_expired(&mut agent.mailbox.lock(), now);
        agent.bury_expired(over);
        // What is answered second comes after all that the first commits told.
        agent.context.store.flush().await.unwrap();
        agent.context.store.flush().await.unwrap();
        let dead = agent.context.store.dead_letters().list(&DeadFilter::default(), 9).unwrap();
        dead.into_iter().map(|dead| format!("{} {}", dead.id, dead.reason)).collect()
    }

    #[tokio::test]
    async fn a_message_is_over_in_time_also_in_a_mailbox_that_is_paused() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(&folder, "timeout = \"1m\"");
        agent.set_operator_paused(true);
        let now = clock::now_ms();
        put(&agent, sent(&agent, "m-1", 50_000).await);
        let mut asked = sent(&agent, "m-2", 0).await;
        asked.message.reply_by = Some(now + 5_000);
        put(&agent, asked);
        let mut due = sent(&agent, "m-3", 70_000).await;
        due.due = Some(now);
        put(&agent, due);
        let wake_at = agent.mailbox.lock().wake_at;
        assert!((now + 4_000..=now + 5_000).contains(&wake_at), "{wake_at}");
        assert_eq!(given_up(&agent, now + 4_000).await, [""; 0]);
        assert_eq!(given_up(&agent, now + 5_000).await, ["m-2 expired"]);
        assert_eq!(given_up(&agent, now + 11_000).await, ["m-1 expired", "m-2 expired"]);
        assert_eq!((agent.depth(), agent.stats.counts().failed), (1, 2));
        assert_eq!(given_up(&agent, now + 59_000).await.len(), 2, "it counts from when it is due");
        assert_eq!(given_up(&agent, now + 61_000).await.len(), 3);
        assert_eq!((agent.depth(), agent.mailbox.lock().expiry.next()), (0, None));
    }

    #[tokio::test]
    async fn calls_for_which_nobody_waits_leave_a_mailbox_that_is_paused() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(&folder, "");
        agent.set_operator_paused(true);
        let now = clock::now_ms();
        let call = |deadline: Option<Instant>| {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let mut envelope = crate::store::tests::message("m-1", "http:POST /", "triage");
            (envelope.deadline, envelope.message.reply_by) = (deadline, Some(now + 1_000));
            envelope.waiter = Some(Waiter::Call(sender));
            put(&agent, Box::new(envelope));
            receiver
        };
        let later = Instant::now() + std::time::Duration::from_secs(900);
        let waits = [call(Some(later)), call(None)];
        drop(call(Some(Instant::now() + std::time::Duration::from_secs(600))));
        assert_eq!(given_up(&agent, now + 500_000).await, [""; 0]);
        assert_eq!(agent.depth(), 3, "nobody looks before the first may be over");
        let timed_out = call(Some(Instant::now()));
        assert_eq!(given_up(&agent, now + 1_001).await, [""; 0], "they are no dead letters");
        assert_eq!((agent.depth(), agent.stats.counts().dropped), (2, 2));
        assert_eq!(waits.map(|mut waits| waits.try_recv().is_ok()), [false; 2], "they wait still");
        drop(timed_out);
        // Whatever the clock says.
        // A tick of the clock may lie between the two reads of it.
        assert_eq!(given_up(&agent, now + 901_000).await, [""; 0]);
        assert_eq!(agent.depth(), 0, "those have left meanwhile");
    }

    #[tokio::test]
    async fn what_waited_at_a_start_is_over_in_time_by_the_settings_of_now() {
        let folder = tempfile::tempdir().unwrap();
        let first = agent(&folder, "");
        let now = clock::now_ms();
        drop(sent(&first, "m-1", 50_000).await);
        drop(first);
        let agent = agent(&folder, "");
        assert_eq!(agent.mailbox.lock().expiry.next(), None);
        let mut spec = (*agent.spec()).clone();
        spec.mailbox.timeout = Some(std::time::Duration::from_secs(60));
        agent.configure(Arc::new(spec));
        assert_eq!(given_up(&agent, now).await, [""; 0]);
        assert_eq!(given_up(&agent, now + 11_000).await, ["m-1 expired"]);
    }
}
