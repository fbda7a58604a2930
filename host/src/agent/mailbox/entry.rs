//! A message that waits: in memory, or as a reference to its row in the store.

use std::time::{Duration, Instant};

use caxton_control::mailbox::Mailbox as Queue;
use caxton_control::memory::MemoryPriority;

use crate::clock;
use crate::context::HostContext;
use crate::message::Envelope;
use crate::store::{Store, prefetch};

/// The contents of waiting messages that stay in memory, of all agents together, in bytes; those of further ones are
/// read from the store when they are handled. With it ten thousand agents with full mailboxes fit into a small machine.
const RESIDENT: usize = 128 << 20;
/// The approximate size of a message in memory beside its content.
const MESSAGE: usize = 768;
/// The approximate size of the place of a message that is in the store, in its mailbox.
const PLACE: usize = 192;

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

/// Returns the number of failed attempts at a message.
fn failures(envelope: &Envelope) -> u32 {
    u32::try_from(envelope.failed.len()).unwrap_or(u32::MAX)
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

/// Returns the size of an envelope in memory. A content that came from outside is counted by itself.
fn weight(envelope: &Envelope) -> usize {
    if envelope.held.is_some() { MESSAGE } else { MESSAGE + envelope.message.content.len() }
}

impl QueuedMessage {
    /// Queues a message: in memory, or in the store if [`RESIDENT`] or the host's budget of memory is reached and the
    /// store has it.
    pub(in crate::agent) fn new(envelope: Box<Envelope>, context: &HostContext) -> Self {
        // A caller's waiter and the history of conflicts are only in memory, so that such messages stay there.
        let seq = envelope.seq.filter(|_| envelope.waiter.is_none() && envelope.conflicts.is_none());
        let bound = match seq {
            // Others need the memory more than a message that can be read again.
            Some(_) if !context.memory.is_below(MemoryPriority::Copies) => 0,
            Some(_) => RESIDENT,
            None => usize::MAX,
        };
        match seq {
            Some(seq) if !context.resident.try_add(weight(&envelope), bound) => {
                Self::stored(StoredRef::of(seq, &envelope), context)
            }
            Some(_) => Self::InMemory(envelope),
            None => {
                context.resident.try_add(weight(&envelope), bound);
                Self::InMemory(envelope)
            }
        }
    }

    /// Queues a message that is in the store.
    pub(super) fn stored(place: StoredRef, context: &HostContext) -> Self {
        // Counted as others, though without a bound of its own: `mailbox.depth` bounds the number.
        context.stored_places.try_add(PLACE, usize::MAX);
        Self::Stored(Box::new(place))
    }

    /// Returns the message, from the store if it is there. Without it, the place is still counted.
    ///
    /// # Errors
    /// The store does not have the message any more, or cannot be read.
    pub(in crate::agent) fn fetch(self, context: &HostContext) -> Result<Box<Envelope>, (Box<StoredRef>, String)> {
        match self {
            Self::InMemory(envelope) => {
                context.resident.subtract(weight(&envelope));
                Ok(envelope)
            }
            Self::Stored(stored) => match context.store.queue().message(stored.seq) {
                Ok(Some(mut envelope)) => {
                    context.stored_places.subtract(PLACE);
                    // The times by the steady clock from before, because the wall clock may have been set meanwhile.
                    envelope.due = envelope.due.map(|_| stored.since);
                    envelope.since = envelope.since.min(stored.since);
                    let waited = Duration::from_millis(clock::steady_ms().saturating_sub(envelope.since));
                    let now = Instant::now();
                    envelope.accepted = Some(now.checked_sub(waited).unwrap_or(now));
                    Ok(Box::new(envelope))
                }
                Ok(None) => Err((stored, "it is not in the store any more".to_owned())),
                Err(error) => Err((stored, error)),
            },
        }
    }

    /// Returns `true` if the store has the message for the next start of the host.
    pub(super) fn is_kept(&self, store: &Store) -> bool {
        match self {
            Self::InMemory(envelope) => envelope.seq.is_some() && store.keeps_messages(),
            Self::Stored(_) => true,
        }
    }

    /// Subtracts the message from the memory of waiting messages.
    pub(super) fn uncount(&self, context: &HostContext) {
        match self {
            Self::InMemory(envelope) => context.resident.subtract(weight(envelope)),
            Self::Stored(_) => context.stored_places.subtract(PLACE),
        }
    }

    /// Returns the number of failed attempts.
    pub(super) fn failures(&self) -> u32 {
        match self {
            Self::InMemory(envelope) => failures(envelope),
            Self::Stored(place) => place.failed,
        }
    }
}
