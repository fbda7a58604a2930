//! What is over its time: messages that wait, conversations in which nothing is said any more (SPEC §7).
//!
//! A message that is over when its turn comes is given up there. What waits in a mailbox that is paused or slow is looked
//! through when the first of it may be over, and not before.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::conversation::Unanswered;

use super::queue::{Slot, since};
use super::{Agent, InboxState, Outcomes};
use crate::clock;
use crate::context::HostContext;
use crate::store::{Commit, Committed, DeadLetter};
use crate::wasm::{Answer, Envelope, Inbox, Outcome, Sent, new_id, wit};

/// Conversations that end at once.
const AT_ONCE: usize = 1_000;
/// How long until what waits is looked through again, at least, in milliseconds: however many messages there are, and
/// however many of them are over soon, it takes little of the time.
const PAUSE: u64 = 1_000;

/// When what waits in a mailbox has to be looked through.
#[derive(Debug)]
pub(super) struct Watch {
    /// No message that waits is over before, by the steady clock; the end of time if none ever is.
    over_at: u64,
    /// Not to be looked through before.
    rests_until: u64,
}

impl Default for Watch {
    /// Of a mailbox without messages.
    fn default() -> Self {
        Self { over_at: u64::MAX, rests_until: 0 }
    }
}

impl Watch {
    /// Something may be over although nothing was, since a clock was set.
    pub(super) fn look_soon(&mut self) {
        if self.over_at < u64::MAX {
            *self = Self { over_at: 0, rests_until: 0 };
        }
    }

    /// When to look; none for never.
    pub(super) fn next(&self) -> Option<u64> {
        (self.over_at < u64::MAX).then(|| self.over_at.max(self.rests_until))
    }
}

impl Agent {
    /// Why a message is too old to be handled (SPEC §7, message timeout), or nobody wants it any more.
    pub(super) fn expired(&self, envelope: &Envelope) -> Option<&'static str> {
        if envelope.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Some("nobody waits for the answer any more");
        }
        if envelope.is_call() {
            return None;
        }
        if envelope.deadline.is_none() && envelope.message.reply_by.is_some_and(|by| by <= clock::now_ms()) {
            return Some("it came to be handled after its reply-by");
        }
        let timeout = self.spec.load().mailbox.timeout?;
        (clock::steady_ms().saturating_sub(since(envelope)) > super::millis(timeout))
            .then_some("it waited longer than mailbox.timeout")
    }

    /// Returns the time at which a waiting message expires, by the steady clock; the end of time for never. A call expires
    /// when its sender waits no longer.
    pub(super) fn over_at(&self, slot: &Slot) -> u64 {
        let (since, reply_by) = match slot {
            Slot::Here(envelope) if envelope.is_call() => {
                return envelope.deadline.map_or(u64::MAX, |deadline| clock::steady_at(deadline).saturating_add(1));
            }
            Slot::Here(envelope) => (since(envelope), envelope.message.reply_by),
            Slot::Kept(place) => (place.since, place.reply_by),
        };
        let timeout = self.spec.load().mailbox.timeout;
        let timed_out = timeout.map_or(u64::MAX, |timeout| since.saturating_add(super::millis(timeout) + 1));
        timed_out.min(reply_by.map_or(u64::MAX, clock::from_wall))
    }

    /// Takes note that a message which waits is over at a time.
    pub(super) fn watch(&self, inbox: &mut InboxState, over_at: u64) {
        if over_at < inbox.watch.over_at {
            inbox.watch.over_at = over_at;
            self.look_later(inbox);
        }
    }

    /// Takes out what waits and is over, if something may be.
    pub(super) fn take_over(&self, inbox: &mut InboxState, now: u64) -> Vec<Slot> {
        if inbox.watch.next().is_none_or(|next| next > now) {
            return Vec::new();
        }
        let mut next = u64::MAX;
        let over = inbox.mailbox.expire(|slot| {
            let over_at = self.over_at(slot);
            let over = match slot {
                // By the time that its sender counts, whatever the clock was set to.
                Slot::Here(envelope) if envelope.is_call() => envelope.is_abandoned(),
                Slot::Here(_) | Slot::Kept(_) => over_at <= now,
            };
            if !over {
                next = next.min(over_at);
            }
            over
        });
        inbox.watch = Watch { over_at: next, rests_until: now + PAUSE };
        over
    }

    /// Looks again at what is due, or over, by the wall clock, after that was set. Timers with a date have their time by it
    /// already.
    pub(crate) fn follow_clock(&self) {
        {
            let mut inbox = self.inbox.lock();
            inbox.watch.look_soon();
        }
        self.look();
    }

    /// Makes dead letters of messages that were never taken and are over.
    pub(super) fn bury_over(self: &Arc<Self>, over: Vec<Slot>) {
        for slot in over {
            match self.fetch(slot) {
                // Nobody waits for it, and it was never kept.
                Ok(envelope) if envelope.is_call() => self.stats.count(Outcomes::Dropped),
                Ok(envelope) => self.bury_one_over(envelope),
                Err((place, error)) => {
                    let seq = place.seq;
                    tracing::error!(agent = %self.name, seq, error, "a message that is over stays in the store");
                }
            }
        }
        // An agent that leaves may have nothing more to do.
        self.context.wake(self.name.shared());
    }

    fn bury_one_over(self: &Arc<Self>, mut envelope: Box<Envelope>) {
        let why = self.expired(&envelope).unwrap_or("its time is over");
        let sends = self.notices(&envelope, "expired", why);
        let waiter = envelope.waiter.take();
        let (reason, error, at) = ("expired", why.to_owned(), clock::now_ms());
        let agent = Arc::clone(self);
        self.bury_with(DeadLetter { envelope, reason, error, at }, sends, move |buried| match buried {
            Ok(()) => {
                agent.stats.count(Outcomes::Failed);
                if let Some(waiter) = waiter {
                    waiter.tell(Answer { revision: None, outcome: Outcome::Gone(why) });
                }
            }
            // Still in the store: it waits, and is given up again.
            Err(mut envelope) => {
                envelope.waiter = waiter;
                agent.reserve_beyond();
                if agent.put(envelope) {
                    agent.work();
                }
            }
        });
    }
}

/// Ends conversations that are over their time, and tells those who still wait for an answer.
pub(crate) fn expire_conversations(context: &Arc<HostContext>) {
    for expired in context.store.conversations.expire(clock::steady_ms(), AT_ONCE) {
        let (name, unanswered) = (&expired.record.name, expired.record.clone().expire());
        let sends: Vec<Sent> = unanswered.into_iter().filter_map(|left| failure(context, name, left)).collect();
        if sends.is_empty() && expired.row.is_none() {
            continue;
        }
        tracing::debug!(conversation = name, unanswered = sends.len(), "a conversation ended for want of activity");
        let done = Box::new(|committed: Committed| {
            if committed.result.is_ok() {
                committed.sends.into_iter().for_each(Sent::deliver);
            }
        });
        let mut commit = Commit::new("".into(), done);
        (commit.sends, commit.ended) = (sends, Some(Box::new(expired)));
        context.store.submit(commit);
    }
}

/// What an agent is told whose question was not answered; none for who asked from outside. It comes by the clock, after
/// `conversations.timeout`, and so begins a chain of causes.
fn failure(context: &HostContext, conversation: &str, left: Unanswered) -> Option<Sent> {
    let Unanswered { key, from, to, is_call: _, closed: _ } = left;
    let routes = context.routes.load();
    let agent = routes.agent(&from)?;
    let message = wit::Message {
        id: new_id(),
        performative: wit::Performative::Failure,
        sender: to,
        receiver: from,
        content: b"the conversation ended before there was an answer (conversations.timeout)".to_vec(),
        content_type: "text/plain; charset=utf-8".to_owned(),
        ontology: None,
        protocol: None,
        conversation_id: conversation.to_owned(),
        reply_with: None,
        in_reply_to: Some(key),
        reply_by: None,
        priority: wit::Priority::Normal,
        sent_at: clock::now_ms(),
        attempt: 1,
        headers: Vec::new(),
    };
    agent.reserve_beyond();
    let envelope = Box::new(Envelope::new(message));
    Some(Sent::new(Arc::clone(agent) as Arc<dyn Inbox>, envelope).of_host())
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::super::tests::{agent, sent};
    use super::*;
    use crate::directory::routes::Routes;
    use crate::store::{DeadFilter, Store, said};
    use crate::wasm::Waiter;

    /// Takes a message into the mailbox.
    fn put(agent: &Agent, envelope: Box<Envelope>) {
        agent.reserve_place(None).unwrap();
        agent.put(envelope);
    }

    /// Gives up what is over by `now`, and gives the ids of the dead letters.
    async fn given_up(agent: &Arc<Agent>, now: u64) -> Vec<String> {
        let over = agent.take_over(&mut agent.inbox.lock(), now);
        agent.bury_over(over);
        // What is answered second comes after all that the first commits told.
        agent.context.store.flush().await.unwrap();
        agent.context.store.flush().await.unwrap();
        let dead = agent.context.store.dead(&DeadFilter::default(), 9).unwrap();
        dead.into_iter().map(|dead| format!("{} {}", dead.id, dead.reason)).collect()
    }

    #[tokio::test]
    async fn a_message_is_over_in_time_also_in_a_mailbox_that_is_paused() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(&folder, "timeout = \"1m\"");
        agent.hold(true);
        let now = clock::now_ms();
        put(&agent, sent(&agent, "m-1", 50_000).await);
        let mut asked = sent(&agent, "m-2", 0).await;
        asked.message.reply_by = Some(now + 5_000);
        put(&agent, asked);
        let mut due = sent(&agent, "m-3", 70_000).await;
        due.due = Some(now);
        put(&agent, due);
        let look_at = agent.inbox.lock().look_at;
        assert!((now + 4_000..=now + 5_000).contains(&look_at), "{look_at}");
        assert_eq!(given_up(&agent, now + 4_000).await, [""; 0]);
        assert_eq!(given_up(&agent, now + 5_000).await, ["m-2 expired"]);
        assert_eq!(given_up(&agent, now + 11_000).await, ["m-1 expired", "m-2 expired"]);
        assert_eq!((agent.depth(), agent.stats.counts().failed), (1, 2));
        assert_eq!(given_up(&agent, now + 59_000).await.len(), 2, "it counts from when it is due");
        assert_eq!(given_up(&agent, now + 61_000).await.len(), 3);
        assert_eq!((agent.depth(), agent.inbox.lock().watch.next()), (0, None));
    }

    #[tokio::test]
    async fn calls_for_which_nobody_waits_leave_a_mailbox_that_is_paused() {
        let folder = tempfile::tempdir().unwrap();
        let agent = agent(&folder, "");
        agent.hold(true);
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
        assert_eq!(agent.inbox.lock().watch.next(), None);
        let mut spec = (*agent.spec()).clone();
        spec.mailbox.timeout = Some(std::time::Duration::from_secs(60));
        agent.configure(Arc::new(spec));
        assert_eq!(given_up(&agent, now).await, [""; 0]);
        assert_eq!(given_up(&agent, now + 11_000).await, ["m-1 expired"]);
    }

    #[tokio::test]
    async fn who_still_waits_for_an_answer_is_told_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("caxton.toml");
        std::fs::write(&path, "caxton = 1\n[agents.triage]\ncomponent = \"triage.wasm\"\n").unwrap();
        let desired = crate::config::load(&path, std::iter::empty(), &[]).unwrap().desired;
        let store = Store::open(folder.path(), &crate::store::tests::settings(Durability::Os)).unwrap();
        let context = HostContext::new(store, tokio::runtime::Handle::current()).unwrap();
        let agent = Agent::new(Arc::clone(&desired.agents["triage"]), Arc::clone(&context));
        context.routes.store(Arc::new(Routes::new(&[(agent.name().clone(), agent)].into())));
        let store = &context.store;
        let asked = |from: &str, conversation: &str, ago: u64| {
            let message = wit::Message {
                id: format!("of-{conversation}"),
                performative: wit::Performative::Request,
                sender: from.to_owned(),
                receiver: "desk".to_owned(),
                content: Vec::new(),
                content_type: String::new(),
                ontology: None,
                protocol: None,
                conversation_id: conversation.to_owned(),
                reply_with: None,
                in_reply_to: None,
                reply_by: None,
                priority: wit::Priority::Normal,
                sent_at: clock::now_ms() - ago,
                attempt: 1,
                headers: Vec::new(),
            };
            let envelope = Envelope::new(message);
            store.conversations.judge(conversation, &said(&envelope)).unwrap();
        };
        let minutes = |minutes: u64| minutes * 60_000;
        asked("triage", "old", minutes(31));
        asked("triage", "young", minutes(29));
        // Nobody to tell: it came from outside, or from an agent that is gone.
        asked("http:POST /", "outside", minutes(31));
        asked("ledger", "gone", minutes(31));
        expire_conversations(&context);
        store.flush().await.unwrap();
        let thread = store.thread("old", 10).unwrap();
        let told = &thread[0].envelope.message;
        assert_eq!((thread.len(), told.performative), (1, wit::Performative::Failure));
        assert_eq!((&*told.receiver, &*told.sender, told.in_reply_to.as_deref()), ("triage", "desk", Some("of-old")));
        for other in ["young", "outside", "gone"] {
            assert!(store.thread(other, 10).unwrap().is_empty(), "{other}");
        }
        assert_eq!(store.conversations.figures().open, 1, "only the young one");
    }
}
