//! A message that waits: in memory, or as a reference to its row in the store.

use std::time::{Duration, Instant};

use caxton_control::mailbox::Mailbox as Queue;

use crate::agent::Agent;
use crate::agent::mailbox::breaker::failures;
use crate::clock;
use crate::message::Envelope;
use crate::store::prefetch;

/// The contents of waiting messages that stay in memory, of all agents together, in bytes; those of further ones are
/// read from the store when they are handled. With it ten thousand agents with full mailboxes fit into a small machine.
const RESIDENT: usize = 128 << 20;
/// The approximate size of a message in memory beside its content.
const MESSAGE: usize = 768;

/// A message that waits.
#[derive(Debug)]
pub(in crate::agent) enum QueuedMessage {
    /// A message in memory.
    InMemory(Box<Envelope>),
    /// A reference to a message in the store.
    Stored(Box<StoredRef>),
}

/// A message in the store.
#[derive(Debug, Clone, Copy)]
pub(in crate::agent) struct StoredRef {
    /// The place in the store.
    pub(in crate::agent) seq: u64,
    /// The time at which it was sent or due, by the steady clock.
    pub(in crate::agent) since: u64,
    /// The `reply-by` in milliseconds since 1970.
    pub(in crate::agent) reply_by: Option<u64>,
    /// The number of failed attempts; after a restart at most 1, because the backlog has no more.
    pub(in crate::agent) failed: u32,
}

impl StoredRef {
    fn of(seq: u64, envelope: &Envelope) -> Self {
        Self { seq, since: since(envelope), reply_by: envelope.message.reply_by, failed: failures(envelope) }
    }
}

/// Returns the time at which a message was sent or due, by the steady clock.
pub(in crate::agent) fn since(envelope: &Envelope) -> u64 {
    envelope.due.unwrap_or(0).max(envelope.since)
}

/// Prefetches what the next messages are read from while one is handled: first the envelope, which is in the cache when
/// its pointers to the texts are read.
pub(super) fn prefetch_next(mailbox: &Queue<u64, QueuedMessage>) {
    // Three ahead: about the time that memory takes to answer while messages take microseconds.
    const ENVELOPE: usize = 3;
    if let Some(QueuedMessage::InMemory(envelope)) = mailbox.peek_ahead(ENVELOPE) {
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
    if let Some(QueuedMessage::InMemory(envelope)) = mailbox.peek_ahead(1) {
        let message = &envelope.message;
        prefetch::bytes(&message.content);
        for text in [&message.id, &message.sender, &message.receiver, &message.content_type, &message.conversation_id] {
            prefetch::bytes(text.as_bytes());
        }
    }
}

/// Returns the size of an envelope for [`RESIDENT`]; 0 if the store does not have it, because it cannot be evicted
/// then.
fn weight(envelope: &Envelope) -> usize {
    if envelope.seq.is_some() { MESSAGE + envelope.message.content.len() } else { 0 }
}

impl Agent {
    /// Makes an entry of a message: in memory, or in the store if [`RESIDENT`] is reached and the store has it.
    pub(in crate::agent) fn to_entry(&self, envelope: Box<Envelope>) -> QueuedMessage {
        let weight = weight(&envelope);
        // The history of conflicts is only in memory, so that such a message stays there.
        let bound = if envelope.conflicts.is_some() { usize::MAX } else { RESIDENT };
        match envelope.seq {
            // A caller's waiter is only in memory, so its message stays there.
            Some(seq) if envelope.waiter.is_none() && !self.context.resident.take(weight, bound) => {
                QueuedMessage::Stored(Box::new(StoredRef::of(seq, &envelope)))
            }
            Some(_) | None => QueuedMessage::InMemory(envelope),
        }
    }

    /// Returns the message of an entry, from the store if it is there.
    pub(in crate::agent) fn fetch(&self, entry: QueuedMessage) -> Result<Box<Envelope>, (Box<StoredRef>, String)> {
        match entry {
            QueuedMessage::InMemory(envelope) => {
                // Messages with a waiter were never counted: they stay in memory whatever the bound.
                if envelope.waiter.is_none() {
                    self.context.resident.give(weight(&envelope));
                }
                Ok(envelope)
            }
            QueuedMessage::Stored(place) => match self.context.store.queue().message(place.seq) {
                Ok(Some(mut envelope)) => {
                    // The times by the steady clock from before, because the wall clock may have been set meanwhile.
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

    /// Returns `true` if the store has the message for the next start of the host.
    pub(in crate::agent) fn is_kept(&self, entry: &QueuedMessage) -> bool {
        match entry {
            QueuedMessage::InMemory(envelope) => envelope.seq.is_some() && self.context.store.keeps_messages(),
            QueuedMessage::Stored(_) => true,
        }
    }

    /// Subtracts an entry from the memory of waiting messages.
    pub(in crate::agent) fn forget(&self, entry: &QueuedMessage) {
        match entry {
            QueuedMessage::InMemory(envelope) if envelope.waiter.is_none() => {
                self.context.resident.give(weight(envelope));
            }
            QueuedMessage::InMemory(_) | QueuedMessage::Stored(_) => {}
        }
    }
}
