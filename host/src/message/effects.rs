//! The effects of one call of a guest, committed or dropped by the caller.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use caxton_control::memory::MemoryPriority;

use super::conflict::Conflict;
use super::outgoing::Outgoing;
use super::requests::RequestLog;
use super::timer::{TimerCancel, TimerName};
use super::value::Value;
use crate::memory_budget::{MemoryBudget, MemoryKind, Reservation};

/// A collected write: the new value, or `None` to remove the key.
pub(crate) type Write = Option<Value>;

/// The effects that a copy would have committed before its end.
#[derive(Clone, Default)]
struct Checkpoint {
    writes: BTreeMap<String, Write>,
    adds: BTreeMap<String, i64>,
    /// The numbers of messages and of cancelled timers.
    sends: usize,
    cancels: usize,
}

/// The bytes of the keys that a call writes, kept with each write: summed up anew at each, writes near a quota would take
/// a time that grows with the square of their number.
#[derive(Debug, Clone, Default)]
pub(crate) struct WrittenSizes {
    /// The bytes of the keys and their new values.
    written: u64,
    /// The bytes in the store of the written keys that were looked up.
    replaced: u64,
    /// The written keys that were not looked up yet.
    unknown: Vec<String>,
}

impl WrittenSizes {
    /// Sums up writes.
    fn of(writes: &BTreeMap<String, Write>) -> Self {
        let written = writes.iter().map(|(key, write)| bytes_of(key, write)).sum();
        Self { written, replaced: 0, unknown: writes.keys().cloned().collect() }
    }

    /// Returns the bytes of all writes if `key` had this value too.
    pub(crate) fn with(&self, key: &str, before: Option<&Write>, value: &Write) -> u64 {
        let before = before.map_or(0, |write| bytes_of(key, write));
        self.written.saturating_sub(before).saturating_add(bytes_of(key, value))
    }

    /// Notes a write. `before` is the earlier write of the same key by this call, if there is one.
    pub(crate) fn note(&mut self, key: &str, before: Option<&Write>, value: &Write) {
        self.written = self.with(key, before, value);
        if before.is_none() {
            self.unknown.push(key.to_owned());
        }
    }

    /// Returns the bytes that the written keys have in the store. Each is looked up once.
    pub(crate) fn replaced<E>(&mut self, mut size: impl FnMut(&str) -> Result<u64, E>) -> Result<u64, E> {
        while let Some(key) = self.unknown.last() {
            self.replaced += size(key)?;
            self.unknown.pop();
        }
        Ok(self.replaced)
    }
}

/// Returns the bytes that a write leaves in the store.
fn bytes_of(key: &str, write: &Write) -> u64 {
    write.as_ref().map_or(0, |value| (key.len() + value.bytes.len()) as u64)
}

/// The effects of one call.
#[derive(Default)]
pub(crate) struct Effects {
    /// Messages to send, in order.
    pub(crate) sends: Vec<Outgoing>,
    /// Timers to cancel, in order. They are cancelled before the messages are sent.
    pub(crate) cancels: Vec<TimerCancel>,
    /// Keys to write.
    pub(crate) writes: BTreeMap<String, Write>,
    /// Amounts to add to numbers as they are at commit. Disjoint from `writes`.
    pub(crate) adds: BTreeMap<String, i64>,
    /// The bytes of `writes` and of what they replace.
    pub(crate) sizes: WrittenSizes,
    /// Keys that were read from the store, with the version seen; 0 if the key did not exist.
    pub(crate) reads: BTreeMap<String, u64>,
    /// Set if the call has read data that is not durable yet.
    pub(crate) reads_uncommitted: bool,
    /// Requests to other agents with their answers, in case the handler runs again.
    pub(crate) requests: RequestLog,
    /// A key that was read although another handler has reserved it: the run must not act on it.
    pub(crate) blocked_on: Option<String>,
    /// The number of writes, including repeated and committed ones.
    pub(crate) write_count: u32,
    /// The bytes of contents sent and values written, including repeated and committed ones.
    pub(crate) bytes: u64,
    /// The number of committed sends and cancelled timers.
    pub(crate) sent_count: usize,
    /// The effects that a copy would have committed, which it does not discard.
    checkpoint: Option<Box<Checkpoint>>,
    /// Set if a part of the call is committed.
    pub(crate) partly_committed: bool,
    /// Set once nothing of the call is committed any more, so that no more can be added.
    pub(crate) closed: bool,
    /// The memory of the contents and values, if they are many bytes; until they are committed.
    pub(crate) held: Option<Reservation>,
    /// Set once the host had no memory for more. The run ends, and the guest is not at fault.
    pub(crate) is_starved: bool,
    /// Set after a fault if the call has made calls over HTTP, which another run would make again.
    pub(crate) called_out: bool,
}

/// The error of an effect after a response whose status commits nothing.
pub(crate) const CLOSED: &str =
    "the response has begun with a status of 500 or more, which commits nothing of the call";

/// The bytes of contents and values of a call that are not counted by themselves.
const UNCOUNTED_BYTES: u64 = 32 << 10;

impl Effects {
    /// Returns `true` if there are effects.
    pub(crate) fn has_any(&self) -> bool {
        self.changes_state() || !self.sends.is_empty() || !self.cancels.is_empty()
    }

    /// Returns `true` if keys are written.
    pub(crate) fn changes_state(&self) -> bool {
        !(self.writes.is_empty() && self.adds.is_empty())
    }

    /// Returns the keys that are read or written.
    pub(crate) fn touched(&self) -> BTreeSet<String> {
        self.reads.keys().chain(self.writes.keys()).chain(self.adds.keys()).cloned().collect()
    }

    /// Returns `true` if timers are set or cancelled, which the store handles even where it keeps no messages.
    pub(crate) fn has_timers(&self) -> bool {
        !self.cancels.is_empty() || self.sends.iter().any(|sent| sent.envelope().is_timer())
    }

    /// Removes a timer that this call has sent. The earlier timer that it would have replaced is cancelled as well.
    pub(crate) fn cancel_own(&mut self, timer: &TimerName) -> bool {
        let Some(at) = self.sends.iter().position(|sent| timer.names(sent.envelope())) else { return false };
        let sent = self.sends.remove(at);
        if let Some(name) = &sent.envelope().timer {
            // Without an expectation: the guest was told of its own timer, and not of the one in the store.
            self.cancels.push(TimerCancel { timer: TimerName::Name(name.clone()), found: None, was_reported: false });
        }
        true
    }

    /// Adds bytes of contents or values. Returns `false`, and adds nothing, if their sum would exceed the limit or the
    /// host has no memory for them.
    pub(crate) fn take_bytes(&mut self, bytes: u64, limit: u64, memory: &MemoryBudget) -> bool {
        let sum = self.bytes.saturating_add(bytes);
        if sum > limit {
            return false;
        }
        // Most calls write little, which is part of what their instance is counted with.
        if sum > UNCOUNTED_BYTES {
            let held = self.held.get_or_insert_with(|| memory.empty(MemoryKind::Effects));
            // Not the sum: a part of it may be committed, and its memory went with it.
            if held.try_grow(bytes, MemoryPriority::Work).is_err() {
                self.is_starved = true;
                return false;
            }
        }
        self.bytes = sum;
        true
    }

    /// Adds a message. A named timer replaces one of the same name from this call.
    pub(crate) fn send(&mut self, sent: Outgoing) {
        if let Some(name) = &sent.envelope().timer {
            self.sends.retain(|other| other.envelope().timer.as_ref() != Some(name));
        }
        self.sends.push(sent);
    }

    /// Clears the effects for another call.
    pub(crate) fn reset(&mut self) {
        // Field by field, so that vectors keep their memory for the next call.
        self.sends.clear();
        self.cancels.clear();
        self.writes.clear();
        self.adds.clear();
        self.sizes = WrittenSizes::default();
        self.reads.clear();
        self.reads_uncommitted = false;
        self.requests = RequestLog::default();
        self.blocked_on = None;
        self.write_count = 0;
        self.bytes = 0;
        self.sent_count = 0;
        self.checkpoint = None;
        self.partly_committed = false;
        self.closed = false;
        self.held = None;
        self.is_starved = false;
    }

    /// Takes the effects so far. The counts stay, so that the limits hold for the call as a whole.
    pub(crate) fn take_part(&mut self) -> Self {
        let (write_count, bytes) = (self.write_count, self.bytes);
        let sent_count = self.sent_count + self.sends.len() + self.cancels.len();
        let mut taken = std::mem::take(self);
        (self.write_count, self.bytes, self.sent_count) = (write_count, bytes, sent_count);
        // Requests and their answers belong to the call as a whole.
        (self.requests, self.partly_committed) = (std::mem::take(&mut taken.requests), taken.partly_committed);
        taken
    }

    /// Takes the effects that go with the head of a response. Later ones are for another commit if `is_kept` is set, and
    /// are refused otherwise.
    pub(crate) fn take_with_head(&mut self, is_kept: bool) -> Self {
        let mut taken = self.take_part();
        // Another run needs them, which there is only before the head.
        taken.requests = std::mem::take(&mut self.requests);
        self.partly_committed = true;
        self.closed = !is_kept;
        taken
    }

    /// Returns the effects that a copy would have committed before its response; `None` if there are none, as for every
    /// live call.
    pub(crate) fn up_to_checkpoint(mut self) -> Option<Self> {
        self.discard();
        self.checkpoint.is_some().then_some(self)
    }

    /// Marks the effects so far as those that a copy would have committed.
    pub(crate) fn set_checkpoint(&mut self) {
        let (writes, adds) = (self.writes.clone(), self.adds.clone());
        let (sends, cancels) = (self.sends.len(), self.cancels.len());
        // Boxed, because only copies have one, and effects are moved through every layer of a call.
        self.checkpoint = Some(Box::new(Checkpoint { writes, adds, sends, cancels }));
    }

    /// Returns the record of a run that was broken off for `key`.
    pub(crate) fn into_conflict(self, key: String) -> Conflict {
        let mut keys = self.touched();
        keys.insert(key.clone());
        Conflict { key, keys, requests: self.requests, partly_committed: self.partly_committed }
    }

    /// Drops the effects since the last commit. Reads stay, because later effects may depend on them.
    pub(crate) fn discard(&mut self) {
        let Checkpoint { writes, adds, sends, cancels } = self.checkpoint.as_deref().cloned().unwrap_or_default();
        (self.writes, self.adds) = (writes, adds);
        self.sizes = WrittenSizes::of(&self.writes);
        self.sends.truncate(sends);
        self.cancels.truncate(cancels);
    }
}

/// Commits effects of an HTTP call or a migration, and with `true` the last of them. Returns when they are durable.
pub(crate) type Committer =
    Arc<dyn Fn(Effects, bool) -> Pin<Box<dyn Future<Output = Result<(), CommitFailure>> + Send>> + Send + Sync>;

/// The error of committing an HTTP call or a migration.
pub(crate) enum CommitFailure {
    /// A key that the call had read was changed by another handler.
    Conflict(Box<Conflict>),
    /// The text of another error, for a person.
    Other(String),
}

/// The way in which a call commits before its end.
#[derive(Clone)]
pub(crate) enum CommitMode {
    /// The handler of a message commits only with its result, so that the message and its effects are one commit.
    WithResult,
    /// An HTTP call commits through this function.
    Through(Committer),
    /// A copy of an HTTP call keeps its effects, and commits none.
    Nowhere,
    /// A migration: each commit is a step with limits of its own.
    InSteps(Committer),
}

impl fmt::Debug for CommitMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WithResult => "WithResult",
            Self::Through(_) => "Through",
            Self::Nowhere => "Nowhere",
            Self::InSteps(_) => "InSteps",
        })
    }
}
