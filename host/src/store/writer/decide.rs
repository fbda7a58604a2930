//! Decisions on commits: checks what is asked for, and makes the record of what is done.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{CachedStatement, OptionalExtension, params};

use crate::clock;
use crate::message::{Expiry, Value, is_as_seen, sum};
use crate::store::commit::{Add, Commit, CommitError, Handled, StateChange, TOO_MANY_HOPS, Writes, beyond};
use crate::store::commit_request::CommitRequest;
use crate::store::placed::PlacedContents;
use crate::store::record::{ContentRow, JournalRow, MemoryRow, OtherRow, QueueRow, Record, StateRow};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::sqlite::whole::{value, value_length};
use crate::store::tables::conversations::{keeps_name, push_end};
use crate::store::tables::timers::{self, FoundTimer, TimerChange};
use crate::store::types::Snapshot;
use crate::store::writer::keys::Known;
use crate::store::writer::message_row::{bytes_of_dead, push_dead, push_message, push_timer};
use crate::store::writer::other_rows::{KEY_LIFE, find_key};
use crate::store::writer::writer_state::WriterState;

/// Finds the version, length and expiry of a key.
const FIND_KEY: &str =
    concat!("SELECT version, ", value_length!(), ", expires_at FROM state WHERE agent = ?1 AND key = ?2");
/// Finds the value and expiry of a key.
const FIND_VALUE: &str = concat!("SELECT ", value!(), ", expires_at FROM state WHERE agent = ?1 AND key = ?2");

/// The decision on a commit that is made.
pub(in crate::store) struct CommitDecision {
    state: Option<StateDecision>,
    /// Timers that are cancelled, or replaced by one of their name.
    cancelled: Vec<FoundTimer>,
    /// The sequence number of the message that is given up.
    dead: Option<u64>,
    /// Set if the conversation that ends still has its name.
    keeps_name: bool,
}

impl CommitDecision {
    /// Returns the size of the agent's state after the commit, if that changes it.
    pub(in crate::store) fn state_bytes(&self) -> Option<u64> {
        self.state.as_ref().map(|state| state.size.max(0).cast_unsigned())
    }
}

/// The decision on an agent's state.
struct StateDecision {
    /// The numbers that were added to.
    sums: Writes,
    /// The version that all keys written have.
    version: u64,
    /// The keys that have expired.
    expired: Vec<String>,
    /// The size of the state afterwards.
    size: i64,
}

/// Decides on the commits of one transaction, each on top of those before.
pub(in crate::store) struct Decider<'t> {
    reader: TableReader<'t>,
    // Held for the transaction, as a commit may look for many keys.
    find: Option<CachedStatement<'t>>,
}

impl<'t> Decider<'t> {
    pub(in crate::store) fn new(reader: TableReader<'t>) -> Self {
        Self { reader, find: None }
    }

    /// Decides on a commit, and gives sequence numbers to its messages. Changes no table.
    pub(in crate::store) fn decide(
        &mut self,
        writer: &mut WriterState,
        request: &mut CommitRequest,
    ) -> rusqlite::Result<Result<CommitDecision, CommitError>> {
        if request.is_ahead() {
            return Ok(Err(CommitError::Ahead));
        }
        if request.placed.as_ref().is_some_and(|placed| placed.is_lost()) {
            return Ok(Err(CommitError::Store("its contents could not be written".to_owned())));
        }
        let commit = &request.commit;
        // First: a repeated request gets its first message's id, whatever would refuse it now.
        if let Some(key) = &commit.key
            && let Err(error) = find_key(self.reader, &commit.agent, key)?
        {
            return Ok(Err(error));
        }
        let state = match &commit.state {
            Some(state) => match self.check_state(writer, &commit.agent, state)? {
                Ok(decided) => Some(decided),
                Err(error) => return Ok(Err(error)),
            },
            None => None,
        };
        let mut cancelled = match timers::check_cancels(self.reader, &commit.agent, &commit.cancels)? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let keeps_name = match &commit.ended {
            Some(ended) => keeps_name(self.reader, ended)?,
            None => false,
        };
        // The last that may refuse, as it notes what it takes in: from here on all of the commit is made.
        if let Err(why) = writer.gate.check(request) {
            return Ok(Err(CommitError::Illegal(why)));
        }
        let commit = &mut request.commit;
        // After the gate, which may have put an answer in place of a timer.
        timers::find_replaced(self.reader, commit, &mut cancelled)?;
        for found in &cancelled {
            writer.gate.close_question(&found.closed);
        }
        let dead = number(writer, commit);
        Ok(Ok(CommitDecision { state, cancelled, dead, keeps_name }))
    }

    /// Checks that what a handler read is as it was, and that its agent does not keep too much.
    fn check_state(
        &mut self,
        writer: &mut WriterState,
        agent: &Arc<str>,
        state: &StateChange,
    ) -> rusqlite::Result<Result<StateDecision, CommitError>> {
        let (sums, version) = match self.add(writer, agent, state)? {
            Ok(decided) => decided,
            Err(error) => return Ok(Err(error)),
        };
        // The writer is alone: no other commit comes between this check and the write.
        for (key, seen) in &state.reads {
            let known = self.find(writer, agent, key)?;
            if !is_as_seen(*seen, known.version, known.expires_at, writer.now) {
                return Ok(Err(CommitError::Conflict(key.clone())));
            }
        }
        let bytes = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let mut size = writer.size(self.reader, agent)?;
        for (key, value) in state.writes.iter().chain(&sums) {
            // An expired key counts as long as its row is there: the size is that of the rows.
            let replaced = self.find(writer, agent, key)?.length;
            size -= replaced.map_or(0, |length| length + bytes(key.len()));
            size += value.as_ref().map_or(0, |value| bytes(key.len() + value.bytes.len()));
        }
        let mut expired = Vec::new();
        for key in &state.expired {
            let known = self.find(writer, agent, key)?;
            // One that was written meanwhile stays.
            if let Some(length) = known.length.filter(|_| known.is_expired(writer.now)) {
                size -= length + bytes(key.len());
                expired.push(key.clone());
            }
        }
        // A commit that only removes keys passes: it is the way back below a limit that was lowered.
        let grows = !sums.is_empty() || state.writes.values().any(Option::is_some);
        if grows && size.cast_unsigned() > state.quota {
            return Ok(Err(CommitError::Quota(state.quota)));
        }
        Ok(Ok(StateDecision { sums, version, expired, size }))
    }

    /// Returns the sums of what is added to numbers, and the version that the keys written have.
    fn add(
        &self,
        writer: &WriterState,
        agent: &Arc<str>,
        state: &StateChange,
    ) -> rusqlite::Result<Result<(Writes, u64), CommitError>> {
        let (mut sums, mut version) = (Writes::new(), state.version);
        // Most commits add nothing and need no statement.
        if state.adds.is_empty() {
            return Ok(Ok((sums, version)));
        }
        let mut value = self.reader.prepare(FIND_VALUE)?;
        for (key, Add { by, sum: foretold }) in &state.adds {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<i64>>(1)?));
            let before = value.query_row(params![&**agent, key], row).optional()?;
            let before = before.map(|(bytes, at)| (bytes, at.map(i64::cast_unsigned)));
            // One whose time is over is not there.
            let before = before.filter(|(_, at)| at.is_none_or(|at| at > writer.now));
            let Ok(sum) = sum(before.as_ref().map(|(bytes, _)| bytes.as_slice()), *by) else {
                return Ok(Err(CommitError::NotANumber(key.clone())));
            };
            if sum != *foretold && version == state.version {
                // A commit on which the sum was foretold was refused. Handlers that read the foretold sum must not find
                // the version that they saw.
                version = writer.version.fetch_add(1, Ordering::SeqCst) + 1;
            }
            // An addition keeps the expiry of the number; only a write sets another.
            let expiry = before.and_then(|(_, at)| at).map(|at| Expiry { at, given: None });
            sums.insert(key.clone(), Some(Value { bytes: sum.to_string().into(), expiry }));
        }
        Ok(Ok((sums, version)))
    }

    /// Returns the version, length and expiry of a key.
    fn find(&mut self, writer: &mut WriterState, agent: &Arc<str>, key: &str) -> rusqlite::Result<Known> {
        if let Some(known) = writer.keys.get(agent, key) {
            return Ok(known);
        }
        let row = |row: &rusqlite::Row<'_>| {
            let expires_at = row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned);
            Ok(Known { version: row.get::<_, i64>(0)?.cast_unsigned(), length: Some(row.get(1)?), expires_at })
        };
        // Prepared at its first use: the cache mostly has the answer.
        let find = match &mut self.find {
            Some(find) => find,
            find => find.insert(self.reader.prepare(FIND_KEY)?),
        };
        let known = find.query_row(params![&**agent, key], row).optional()?.unwrap_or_default();
        writer.keys.set(agent, key, known);
        Ok(known)
    }
}

/// Gives sequence numbers to the messages of a commit; returns that of the message that is given up.
fn number(writer: &mut WriterState, commit: &mut Commit) -> Option<u64> {
    for sent in commit.sends.iter_mut().filter(|sent| sent.exceeded_limit.is_none()) {
        let envelope = &mut sent.envelope;
        if envelope.waits && envelope.due.is_some() {
            // The number is of the timer row alone: the message gets another when it moves to its mailbox.
            sent.seq = Some(writer.next_seq());
        } else if writer.keeps_messages {
            sent.seq = Some(writer.next_seq());
            envelope.seq = sent.seq;
        }
    }
    for sent in commit.sends.iter_mut().filter(|sent| sent.exceeded_limit.is_some()) {
        sent.seq = sent.envelope.seq.or_else(|| Some(writer.next_seq()));
    }
    commit.dead.as_ref().map(|dead| dead.envelope.seq.unwrap_or_else(|| writer.next_seq()))
}

/// Makes the record of a commit that was decided on, and counts what it changes.
pub(in crate::store) fn record<'a>(
    writer: &mut WriterState,
    request: &'a CommitRequest,
    decision: &'a CommitDecision,
) -> Record<'a> {
    // Before the rows of the trees are made, at the end of the transaction.
    request.charge_trees(|tree| writer.touch_tree(tree));
    let mut record = writer.new_record();
    let (commit, placed) = (&request.commit, request.placed.as_deref());
    if let (Some(change), Some(decided)) = (&commit.state, &decision.state) {
        push_state(writer, &mut record, &commit.agent, (change, decided), placed);
    }
    if let Some(key) = &commit.key {
        // Old keys leave with each new one, so that no sweep has to look for them.
        record.push(OtherRow::KeysRemoved { before: key.at.cast_signed() - KEY_LIFE });
        record.push(OtherRow::Key {
            agent: &commit.agent,
            key: &key.key,
            fingerprint: &key.fingerprint,
            id: &key.id,
            conversation: &key.conversation,
            at: key.at,
        });
    }
    if writer.keeps_messages {
        if let Some(handled) = commit.handled {
            push_handled(writer, &mut record, handled);
        }
        if let Some(seq) = commit.journal {
            record.push(JournalRow::Removed { seq });
        }
        if let Some(failed) = &commit.failed {
            let attempt = serde_json::to_string(&failed.attempt).expect("an attempt is numbers and text");
            record.push(QueueRow::Attempt {
                seq: failed.seq,
                number: failed.attempt.number,
                // The steady clock of this process means nothing to the next one.
                again_at: clock::to_wall(failed.again_at),
                attempt: Cow::Owned(attempt),
            });
        }
    }
    for found in &decision.cancelled {
        timers::push_removed(writer, &mut record, found);
    }
    push_sends(writer, &mut record, commit, placed);
    if let (Some(dead), Some(seq)) = (&commit.dead, decision.dead) {
        if writer.keeps_messages && dead.envelope.seq.is_some() {
            // Revision 0 marks a message that no revision has handled.
            let bytes = dead.envelope.message.content.len() as u64;
            push_handled(writer, &mut record, Handled { seq, revision: 0, runs: 0, bytes });
        }
        let place = (seq, placed.and_then(PlacedContents::of_dead));
        push_dead(&mut record, &dead.envelope, place, (dead.reason, Cow::Borrowed(&dead.error)), dead.at);
        writer.history.buried(seq, bytes_of_dead(&dead.envelope, &dead.error));
    }
    if let Some(fired) = &commit.fired {
        record.push(OtherRow::Fired { agent: &commit.agent, schedule: &fired.schedule, at: fired.at });
    }
    if let Some(memory) = &commit.memory {
        let Snapshot { revision, saved_at, data } = &**memory;
        record.push(MemoryRow::Saved { agent: &commit.agent, revision: *revision, saved_at: *saved_at, data });
    }
    if let Some(ended) = &commit.ended {
        push_end(&mut record, ended, decision.keeps_name, writer.now);
    }
    record
}

fn push_state<'a>(
    writer: &mut WriterState,
    record: &mut Record<'a>,
    agent: &'a Arc<str>,
    (change, decided): (&'a StateChange, &'a StateDecision),
    placed: Option<&PlacedContents>,
) {
    let version = decided.version;
    for (key, value) in change.writes.iter().chain(&decided.sums) {
        let known = match value {
            Some(value) => {
                let expires_at = value.expires_at();
                // A number that was added to is no value of the commit.
                let content = placed.filter(|_| change.writes.contains_key(key)).and_then(|placed| placed.of_key(key));
                let bytes: &[u8] = if content.is_some() { &[] } else { &value.bytes };
                record.push(StateRow::Set { agent, key, value: bytes, version, expires_at });
                if let Some(content) = content {
                    record.push(ContentRow::OfKey { agent, key, content });
                }
                let length = Some(i64::try_from(value.bytes.len()).unwrap_or(i64::MAX));
                Known { version, length, expires_at }
            }
            None => {
                record.push(StateRow::Removed { agent, key });
                Known::default()
            }
        };
        writer.keys.set(agent, key, known);
    }
    // A key that this commit writes anew is set above and has to stay.
    for key in decided.expired.iter().filter(|key| !change.writes.contains_key(*key)) {
        record.push(StateRow::Removed { agent, key });
        writer.keys.set(agent, key, Known::default());
    }
    writer.sizes.insert(Arc::clone(agent), decided.size);
    // Written once at the end of the transaction, however many of its commits change it.
    writer.resized.insert(Arc::clone(agent));
}

fn push_handled(writer: &mut WriterState, record: &mut Record<'_>, handled: Handled) {
    let Handled { seq, revision, runs, bytes } = handled;
    record.push(QueueRow::Handled { seq, at: writer.now, revision, runs });
    writer.history.handled(seq, bytes);
}

/// Adds the messages that are sent: for their mailboxes, for their time, or as dead letters.
fn push_sends<'a>(
    writer: &mut WriterState,
    record: &mut Record<'a>,
    commit: &'a Commit,
    placed: Option<&PlacedContents>,
) {
    let content = |index| placed.and_then(|placed| placed.of_sent(index));
    for (index, sent) in commit.sends.iter().enumerate().filter(|(_, sent)| sent.exceeded_limit.is_none()) {
        let envelope = &*sent.envelope;
        if let Some(found) = timers::replaced_within(&commit.sends[..index], envelope) {
            writer.gate.close_question(&found.closed);
            timers::push_removed(writer, record, &found);
        }
        // Without one it is for its mailbox alone.
        let Some(seq) = sent.seq else { continue };
        match envelope.due.filter(|_| envelope.waits) {
            Some(due) => {
                push_timer(record, envelope, (seq, due), content(index));
                writer.timer_changes.push(TimerChange::Kept(envelope.message.receiver.as_str().into(), due));
            }
            None => push_message(record, envelope, seq, content(index)),
        }
    }
    for (index, sent) in commit.sends.iter().enumerate() {
        let (Some(limit), Some(seq)) = (sent.exceeded_limit, sent.seq) else { continue };
        if writer.keeps_messages && sent.envelope.seq.is_some() {
            let bytes = sent.envelope.message.content.len() as u64;
            push_handled(writer, record, Handled { seq, revision: 0, runs: 0, bytes });
        }
        let reason = (TOO_MANY_HOPS, Cow::Owned(beyond(limit)));
        let bytes = bytes_of_dead(&sent.envelope, &reason.1);
        push_dead(record, &sent.envelope, (seq, content(index)), reason, writer.now);
        writer.history.buried(seq, bytes);
    }
}
