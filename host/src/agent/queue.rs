//! What waits: how much of it is in memory, what comes later, and what becomes of it when the agent ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::breaker::Admission;
use caxton_control::mailbox::{Mailbox, Taken};

use super::breaker::failures;
use super::{Agent, CONVERSATIONS, InboxState, Outcomes, Taking};
use crate::clock;
use crate::store::prefetch;
use crate::store::{Queued, Store};
use crate::wasm::{Answer, Envelope, Inbox, Outcome};

/// Contents of waiting messages that stay in memory, in all agents together; those of further ones are read from
/// the store when they are handled.
const RESIDENT: usize = 128 << 20;
/// What a message takes in memory beside its content, about.
const MESSAGE: usize = 768;
/// Messages that come at once when the time of another attempt has passed, and how long until the next ones do: after a
/// long stop they do not all come together.
const AT_ONCE: usize = 256;
const PAUSE: u64 = 10;
/// How long to wait before what could not be done for want of the store is tried again, in milliseconds.
pub(super) const STORE_PAUSE: u64 = 1_000;

/// A message that waits.
#[derive(Debug)]
pub(super) enum Slot {
    /// In memory.
    Here(Box<Envelope>),
    /// In the store. Boxed, so that what is in memory takes less there.
    Kept(Box<Place>),
}

/// A message in the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Where it is.
    pub(super) seq: u64,
    /// The time at which it was sent or due, by the steady clock.
    pub(super) since: u64,
    /// When its answer is of no use any more, in milliseconds since 1970.
    pub(super) reply_by: Option<u64>,
    /// Attempts at it that failed; after a restart no more than whether any did.
    pub(super) failed: u32,
}

impl Place {
    fn of(seq: u64, envelope: &Envelope) -> Self {
        Self { seq, since: since(envelope), reply_by: envelope.message.reply_by, failed: failures(envelope) }
    }
}

/// Returns the time at which a message was sent or due, by the steady clock.
pub(super) fn since(envelope: &Envelope) -> u64 {
    envelope.due.unwrap_or(0).max(envelope.since)
}

/// What waited when the host started, until its agents take it, and whose mailboxes an operator has paused.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: HashMap<String, Vec<Queued>>,
    held: HashSet<String>,
}

/// How a mailbox stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MailboxFigures {
    /// Messages that wait.
    pub(crate) depth: u32,
    /// Messages that may wait.
    pub(crate) bound: u32,
    /// The number of them that wait for another attempt.
    pub(crate) later: u64,
    /// Messages that wait for their time, and have no place in the mailbox before.
    pub(crate) timers: u64,
    /// Messages being handled or committed.
    pub(crate) in_flight: u32,
    /// Whether an operator lets them wait.
    pub(crate) held: bool,
    /// `closed`, `open` or `half-open`.
    pub(crate) breaker: &'static str,
}

/// What the store has for agents that are yet to come.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn backlog(store: &Store) -> Result<Backlog, String> {
    Ok(Backlog { waiting: store.queued(&*CONVERSATIONS)?, held: store.paused()?.into_iter().collect() })
}

impl Backlog {
    /// What waits for an agent, and whether an operator lets it wait.
    pub(super) fn take(&mut self, agent: &str) -> (Vec<Queued>, bool) {
        (self.waiting.remove(agent).unwrap_or_default(), self.held.contains(agent))
    }

    /// Remembers that an operator lets an agent's messages wait, or does not any more.
    fn hold(&mut self, agent: &str, held: bool) {
        if held {
            self.held.insert(agent.to_owned());
        } else {
            self.held.remove(agent);
        }
    }

    /// Returns how many messages wait for each agent that has not taken them yet.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&str, u64)> {
        self.waiting.iter().map(|(name, waiting)| (name.as_str(), waiting.len() as u64))
    }

    /// Takes what waits for agents that are not among these.
    pub(crate) fn take_others(&mut self, known: impl Fn(&str) -> bool) -> Vec<(String, Vec<Queued>)> {
        let others: Vec<String> = self.waiting.keys().filter(|name| !known(name)).cloned().collect();
        others.into_iter().filter_map(|name| self.waiting.remove_entry(&name)).collect()
    }
}

/// Lets the processor fetch what the next messages are read from, while one is handled: first the envelope, which is
/// then there when it says where the texts are.
pub(super) fn prefetch_next(mailbox: &Mailbox<u64, Slot>) {
    const ENVELOPE: usize = 3;
    if let Some(Slot::Here(envelope)) = mailbox.ahead(ENVELOPE) {
        let message = &envelope.message;
        for text in [&message.id, &message.sender, &message.receiver, &message.content_type, &message.conversation_id] {
            prefetch::value(text);
        }
        for text in [&message.ontology, &message.protocol, &message.reply_with, &message.in_reply_to] {
            prefetch::value(text);
        }
        prefetch::value(&message.content);
        prefetch::value(&message.headers);
        prefetch::value(&message.sent_at);
        prefetch::value(&envelope.accepted);
        prefetch::value(&envelope.deadline);
        prefetch::value(&envelope.waiter);
        prefetch::value(&envelope.failed);
        prefetch::value(&envelope.trace);
    }
    if let Some(Slot::Here(envelope)) = mailbox.ahead(1) {
        let message = &envelope.message;
        prefetch::bytes(&message.content);
        for text in [&message.id, &message.sender, &message.receiver, &message.content_type, &message.conversation_id] {
            prefetch::bytes(text.as_bytes());
        }
    }
}

/// What an envelope counts for [`RESIDENT`]: nothing when the store does not have it.
fn weight(envelope: &Envelope) -> usize {
    if envelope.seq.is_some() { MESSAGE + envelope.message.content.len() } else { 0 }
}

impl Agent {
    /// Where a message waits: in memory, unless too much is there already and the store has it.
    pub(super) fn slot(&self, envelope: Box<Envelope>) -> Slot {
        let weight = weight(&envelope);
        // What is known of runs before is nowhere else.
        let bound = if envelope.again.is_some() { usize::MAX } else { RESIDENT };
        match envelope.seq {
            Some(seq) if envelope.waiter.is_none() && !self.context.resident.take(weight, bound) => {
                Slot::Kept(Box::new(Place::of(seq, &envelope)))
            }
            Some(_) | None => Slot::Here(envelope),
        }
    }

    /// The message itself.
    pub(super) fn fetch(&self, slot: Slot) -> Result<Box<Envelope>, (Box<Place>, String)> {
        match slot {
            Slot::Here(envelope) => {
                if envelope.waiter.is_none() {
                    self.context.resident.give(weight(&envelope));
                }
                Ok(envelope)
            }
            Slot::Kept(place) => match self.context.store.message(place.seq) {
                Ok(Some(mut envelope)) => {
                    // As they were told by the steady clock, and not by what the wall clock was set to meanwhile.
                    envelope.due = envelope.due.map(|_| place.since);
                    envelope.since = envelope.since.min(place.since);
                    let waited = Duration::from_millis(clock::steady_ms().saturating_sub(envelope.since));
                    let now = Instant::now();
                    envelope.accepted = Some(now.checked_sub(waited).unwrap_or(now));
                    Ok(Box::new(envelope))
                }
                Ok(None) => Err((place, "it is not in the store any more".to_owned())),
                Err(error) => Err((place, error)),
            },
        }
    }

    /// Whether the store has a message for the next start.
    pub(super) fn is_kept(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Here(envelope) => envelope.seq.is_some() && self.context.store.keeps_messages(),
            Slot::Kept(_) => true,
        }
    }

    /// Lets go of a message in memory.
    pub(super) fn forget(&self, slot: &Slot) {
        match slot {
            Slot::Here(envelope) if envelope.waiter.is_none() => self.context.resident.give(weight(envelope)),
            Slot::Here(_) | Slot::Kept(_) => {}
        }
    }

    /// Takes in what waited when the host started.
    pub(super) fn fill(&self, waiting: Vec<Queued>) {
        let mut inbox = self.inbox.lock();
        let now = clock::steady_ms();
        for Queued { seq, conversation, rank, since, reply_by, again_at } in waiting {
            inbox.mailbox.reserve_beyond();
            // After the clock was set back nothing waits since a time to come.
            let since = since.unwrap_or(now).min(now);
            let failed = again_at.is_some().into();
            let slot = Slot::Kept(Box::new(Place { seq, since, reply_by, failed }));
            self.watch(&mut inbox, self.over_at(&slot));
            match again_at {
                Some(again_at) => inbox.mailbox.push_again(conversation, rank, since, again_at, slot),
                None => inbox.mailbox.push(conversation, rank, since, slot),
            }
        }
        self.look_later(&mut inbox);
    }

    /// Sees to it that this agent looks at its mailbox again when something in it comes due.
    pub(super) fn look_later(&self, inbox: &mut InboxState) {
        let now = clock::steady_ms();
        let waits = !inbox.firing && !inbox.crowded && !inbox.leaving;
        let timer = self.timers.next().filter(|_| waits && !matches!(inbox.taking, Taking::Nothing(_)));
        let due = inbox.mailbox.next_due().into_iter().chain(timer).min();
        let mut next = due.map(|due| due.max(now + PAUSE));
        if let Some(over_at) = inbox.watch.next() {
            next = Some(next.map_or(over_at, |next| next.min(over_at)).max(now + 1));
        }
        if inbox.mailbox.has_ready()
            && let Admission::No { until } = inbox.breaker.peek(now)
        {
            next = Some(next.map_or(until, |next| next.min(until)).max(now + 1));
        }
        let Some(next) = next else { return };
        if next < inbox.look_at {
            inbox.look_at = next;
            self.context.timers.wake(next, &self.me);
        }
    }

    /// Lets come what is due. Called at the time that [`look_later`](Self::look_later) asked for, or soon after.
    pub(crate) fn look(&self) {
        let over = {
            let (mut inbox, now) = (self.inbox.lock(), clock::steady_ms());
            inbox.look_at = u64::MAX;
            inbox.mailbox.release_due(now, AT_ONCE);
            self.fire_due(&mut inbox, now, false);
            let over = self.take_over(&mut inbox, now);
            self.look_later(&mut inbox);
            over
        };
        self.start_workers();
        if let (false, Some(agent)) = (over.is_empty(), self.me.upgrade()) {
            // They may have to be read.
            tokio::task::spawn_blocking(move || agent.bury_over(over));
        }
    }

    /// Puts a message that was taken into the mailbox again, before any other of its conversation; `due` is when
    /// it may be handled.
    pub(super) fn again(&self, mut taken: Taken<u64, Slot>, due: Option<u64>) {
        if let Slot::Here(envelope) = taken.message {
            taken.message = self.slot(envelope);
        }
        let over_at = self.over_at(&taken.message);
        {
            let mut inbox = self.inbox.lock();
            self.watch(&mut inbox, over_at);
            match due {
                _ if inbox.leaving && self.is_kept(&taken.message) => {
                    self.forget(&taken.message);
                    inbox.mailbox.done(taken.lane, taken.follows);
                }
                Some(due) => inbox.mailbox.defer(taken, due),
                None => inbox.mailbox.put_back(taken),
            }
            self.look_later(&mut inbox);
        }
        self.start_workers();
    }

    /// Lets messages wait for an operator, or lets them go on.
    pub(crate) fn hold(&self, held: bool) {
        // Also for an agent of this name that may come after this one.
        self.context.backlog.lock().hold(self.name.as_str(), held);
        self.inbox.lock().held = held;
        if !held {
            self.start_workers();
        }
    }

    /// How its mailbox stands.
    pub(crate) fn mailbox(&self) -> MailboxFigures {
        let bound = self.spec.load().mailbox.depth;
        let now = clock::steady_ms();
        let inbox = self.inbox.lock();
        MailboxFigures {
            depth: inbox.mailbox.depth(),
            bound,
            later: inbox.mailbox.later() as u64,
            timers: self.timers.count(),
            in_flight: inbox.mailbox.in_flight(),
            held: inbox.held,
            breaker: inbox.breaker.state(now).as_str(),
        }
    }

    /// How long the message has waited that could be handled and waits longest, in milliseconds, the time without a
    /// host included; none when none waits. Takes time in proportion to the conversations that wait.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        let since = self.inbox.lock().mailbox.oldest()?;
        Some(clock::steady_ms().saturating_sub(since))
    }

    /// Lets go of messages that the store has, and of those that are still to come; calls, whose senders wait, are
    /// still handled. For a host that stops.
    pub(crate) fn leave_queue(&self) {
        let mut inbox = self.inbox.lock();
        if !self.context.store.keeps_messages() {
            return;
        }
        inbox.leaving = true;
        let drained = inbox.mailbox.drain();
        // What is let go of may have keys reserved, and others go on without the lock.
        drop(inbox);
        let calls: Vec<Box<Envelope>> = drained
            .into_iter()
            .filter_map(|slot| match slot {
                Slot::Here(envelope) if envelope.seq.is_none() => Some(envelope),
                Slot::Here(_) | Slot::Kept(_) => None,
            })
            .collect();
        for envelope in calls {
            self.inbox.lock().mailbox.reserve_beyond();
            if self.put(envelope) {
                self.start_worker();
            }
        }
    }

    /// Takes no more messages, because the host stops: what is not kept is given back to its senders.
    pub(crate) fn close(&self, why: &'static str) {
        for slot in self.end_queue(why) {
            if let Slot::Here(envelope) = slot
                && envelope.seq.is_none()
            {
                self.give_back(*envelope, why);
            }
        }
    }

    /// Takes no more messages, because the agent is removed: what waits becomes dead letters, and what was kept for
    /// rehearsals goes.
    pub(crate) fn remove(&self, why: &'static str) {
        self.forget_recent();
        let left = self.end_queue(why);
        self.bury_timers(why);
        for slot in left {
            match self.fetch(slot) {
                Ok(envelope) if envelope.is_call() => self.give_back(*envelope, why),
                Ok(envelope) => {
                    let revision = None;
                    self.bury(envelope, "agent-removed", why.to_owned(), revision);
                }
                Err((place, error)) => {
                    let seq = place.seq;
                    tracing::error!(agent = %self.name, seq, error, "a message of a removed agent stays in the store");
                }
            }
        }
    }

    fn end_queue(&self, why: &'static str) -> Vec<Slot> {
        let mut inbox = self.inbox.lock();
        inbox.taking = Taking::Nothing(why);
        inbox.mailbox.drain()
    }

    /// Tells whoever waits for a message that it will not be handled.
    fn give_back(&self, envelope: Envelope, why: &'static str) {
        self.stats.count(Outcomes::Dropped);
        self.context.events.tell(
            Some(self.name.as_str()),
            "message.undelivered",
            serde_json::json!({ "id": envelope.message.id, "sender": envelope.message.sender, "reason": why }),
        );
        if let Some(waiter) = envelope.waiter {
            waiter.tell(Answer { revision: None, outcome: Outcome::Gone(why) });
        }
    }

    /// Puts messages that were dead letters into the mailbox again.
    pub(crate) fn revive(self: &Arc<Self>, envelopes: Vec<Envelope>) {
        for envelope in envelopes {
            self.inbox.lock().mailbox.reserve_beyond();
            if self.put(Box::new(envelope)) {
                self.start_worker();
            }
        }
    }
}
