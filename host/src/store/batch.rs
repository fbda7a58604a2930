//! One transaction: what the writer does with the jobs that came together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::commit::{Add, Commit, CommitError, Handled, StateChange, TOO_MANY_HOPS, Writes, beyond};
use super::conversation::write_end;
use super::counters::Counters;
use super::kept::Event;
use super::keys::Known;
use super::row;
use super::rows::{find_key, write_attempt, write_event, write_fired, write_key, write_revision};
use super::submission::CommitRequest;
use super::timer;
use super::writer::{Asker, Job};
use crate::wasm::{Envelope, Expiry, TimerName, Value, is_as_seen, rank, sum};

/// Jobs that are written together, with what is to be said of them.
#[derive(Default)]
pub(super) struct Batch {
    /// Commits with their results: the size of the agent's state, if it changed.
    pub(super) commits: Vec<(Box<CommitRequest>, Result<Option<u64>, CommitError>)>,
    /// Who else is to be told.
    pub(super) askers: Vec<(Asker, Result<(), CommitError>)>,
    /// Who is told when it is written.
    pub(super) early: Vec<Asker>,
    /// What happened, with ids.
    pub(super) events: Vec<Event>,
    /// Whether the log is to begin anew.
    pub(super) restart: bool,
    /// Who is to be told when the log is empty.
    pub(super) emptying: Vec<Asker>,
}

impl Batch {
    /// Writes jobs in one transaction. After an error nothing of them is kept, and everybody is still to be told.
    pub(super) fn write(
        &mut self,
        connection: &mut Connection,
        counters: &mut Counters,
        jobs: impl Iterator<Item = Job>,
    ) -> rusqlite::Result<()> {
        let seq = counters.seq;
        counters.history.begin();
        counters.now = crate::clock::now_ms();
        let written = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => self.write_all(transaction, counters, jobs),
            Err(error) => {
                self.refuse(jobs);
                Err(error)
            }
        };
        match &written {
            Ok(()) => {
                counters.conversations.safe_up_to(counters.seq);
                counters.timers.apply(&mut counters.counted);
            }
            Err(_) => {
                self.commits.iter_mut().rev().for_each(|(commit, _)| counters.conversations.forget(commit));
                counters.undo(seq);
            }
        }
        written
    }

    fn write_all(
        &mut self,
        transaction: Transaction<'_>,
        counters: &mut Counters,
        jobs: impl Iterator<Item = Job>,
    ) -> rusqlite::Result<()> {
        let seq = counters.seq;
        let mut failed = None;
        {
            let mut writing = Writing::prepare(&transaction);
            for job in jobs {
                let written = match &mut writing {
                    Ok(writing) if failed.is_none() => self.write_job(writing, counters, job),
                    Ok(_) | Err(_) => {
                        self.set_aside(job);
                        Ok(())
                    }
                };
                failed = failed.or(written.err());
            }
            failed = failed.or(writing.err());
        }
        match failed {
            Some(error) => Err(error),
            None => counters.finish(&transaction, seq).and_then(|()| transaction.commit()),
        }
    }

    /// Tells those who do not wait until it is safe whether it was written.
    pub(super) fn tell_early(&mut self, failed: Option<&rusqlite::Error>) {
        let result = failed.map_or(Ok(()), |error| Err(CommitError::Store(error.to_string())));
        for asker in self.early.drain(..) {
            // Who asked may be gone.
            let _ = asker.send(result.clone());
        }
    }

    /// Takes in jobs none of which is written, so that everybody is told.
    pub(super) fn refuse(&mut self, jobs: impl Iterator<Item = Job>) {
        jobs.for_each(|job| self.set_aside(job));
    }

    /// Takes in a job that is not written, so that whoever waits is told.
    fn set_aside(&mut self, job: Job) {
        match job {
            Job::Commit(commit) => self.commits.push((commit, Ok(None))),
            Job::Revision(_, asker) | Job::Other(_, asker) | Job::Flush(asker) => {
                self.askers.push((asker, Ok(())));
            }
            Job::Early(_, asker) => self.early.push(asker),
            Job::Event(_) => {}
            Job::Restart => self.restart = true,
            Job::Empty(asker) => self.emptying.push(asker),
        }
    }

    fn write_job(&mut self, writing: &mut Writing<'_>, counters: &mut Counters, job: Job) -> rusqlite::Result<()> {
        let transaction = writing.transaction;
        match job {
            Job::Commit(mut submission) => {
                let written = writing.commit(counters, &mut submission);
                let (result, error) = match written {
                    Ok(result) => (result, None),
                    Err(error) => (Ok(None), Some(error)),
                };
                self.commits.push((submission, result));
                error.map_or(Ok(()), Err)
            }
            Job::Revision(record, asker) => {
                self.askers.push((asker, Ok(())));
                write_revision(transaction, &record)
            }
            Job::Other(change, asker) => {
                self.askers.push((asker, Ok(())));
                change(transaction, counters)
            }
            Job::Early(change, asker) => {
                self.early.push(asker);
                change(transaction, counters)
            }
            Job::Event(event) => {
                let id = write_event(transaction, &event)?;
                self.events.push(Event { id, ..event });
                Ok(())
            }
            Job::Flush(asker) => {
                self.askers.push((asker, Ok(())));
                Ok(())
            }
            Job::Restart | Job::Empty(_) => {
                self.set_aside(job);
                Ok(())
            }
        }
    }
}

/// What becomes of an agent's state.
struct StateDecision {
    /// The numbers that were added to.
    sums: Writes,
    /// The version that all keys written have.
    version: u64,
    /// The size of the state afterwards.
    size: i64,
}

/// A transaction with the statements that every commit needs.
struct Writing<'t> {
    transaction: &'t Transaction<'t>,
    insert: CachedStatement<'t>,
    acknowledge: CachedStatement<'t>,
    find: CachedStatement<'t>,
    set: CachedStatement<'t>,
    remove: CachedStatement<'t>,
}

impl<'t> Writing<'t> {
    fn prepare(transaction: &'t Transaction<'t>) -> rusqlite::Result<Self> {
        Ok(Self {
            transaction,
            insert: transaction.prepare_cached(row::INSERT)?,
            acknowledge: transaction
                .prepare_cached("INSERT INTO ack (seq, at, revision, runs) VALUES (?1, ?2, ?3, ?4)")?,
            find: transaction
                .prepare_cached("SELECT version, length(value), expires_at FROM state WHERE agent = ?1 AND key = ?2")?,
            set: transaction.prepare_cached(
                // Without a look for the row that it replaces.
                "REPLACE INTO state (agent, key, value, version, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            remove: transaction.prepare_cached("DELETE FROM state WHERE agent = ?1 AND key = ?2")?,
        })
    }

    /// Writes one commit, or says why nothing of it is written.
    fn commit(
        &mut self,
        counters: &mut Counters,
        submission: &mut CommitRequest,
    ) -> rusqlite::Result<Result<Option<u64>, CommitError>> {
        let commit = &submission.commit;
        if let Some(key) = &commit.key
            && let Err(error) = find_key(self.transaction, &commit.agent, key)?
        {
            return Ok(Err(error));
        }
        let state = match &commit.state {
            Some(state) => match self.check_state(counters, &commit.agent, state)? {
                Ok(decided) => Some(decided),
                Err(error) => return Ok(Err(error)),
            },
            None => None,
        };
        if let Err(error) = timer::check_cancels(self.transaction, &commit.agent, &commit.cancels)? {
            return Ok(Err(error));
        }
        // The last that may refuse: from here on all of it is written.
        if let Err(why) = counters.conversations.take_sends(submission) {
            return Ok(Err(CommitError::Illegal(why)));
        }
        let commit = &mut submission.commit;
        if let Some(closed) = &commit.closes {
            counters.conversations.close_question(closed);
        }
        if let Some(goes) = &commit.goes {
            counters.conversations.stay(&commit.agent, goes, crate::clock::steady_ms());
        }
        if let (Some(state), Some(decided)) = (&commit.state, &state) {
            self.write_state(counters, &commit.agent, state, decided)?;
        }
        if let Some(key) = &commit.key {
            write_key(self.transaction, &commit.agent, key)?;
        }
        if counters.keeps_messages {
            if let Some(handled) = commit.handled {
                self.acknowledge(counters, handled)?;
            }
            if let Some(failed) = &commit.failed {
                write_attempt(self.transaction, failed)?;
            }
        }
        self.write_sends(counters, commit)?;
        if let Some(dead) = &commit.dead {
            self.bury(counters, &dead.envelope, (dead.reason, &dead.error), dead.at)?;
        }
        if let Some(fired) = &commit.fired {
            write_fired(self.transaction, &commit.agent, fired)?;
        }
        if let Some(ended) = &commit.ended {
            write_end(self.transaction, ended, counters.now)?;
        }
        Ok(Ok(state.map(|decided| decided.size.max(0).cast_unsigned())))
    }

    /// Removes the timers that a commit cancels, and keeps what it sends.
    fn write_sends(&mut self, counters: &mut Counters, commit: &mut Commit) -> rusqlite::Result<()> {
        for cancel in &commit.cancels {
            timer::cancel(self.transaction, counters, &commit.agent, &cancel.timer)?;
        }
        for sent in commit.sends.iter_mut().filter(|sent| sent.ends.is_none()) {
            self.keep_sent(counters, &mut sent.envelope)?;
        }
        for sent in &commit.sends {
            if let Some(limit) = sent.ends {
                let error = beyond(limit);
                self.bury(counters, &sent.envelope, (TOO_MANY_HOPS, &error), counters.now)?;
            }
        }
        Ok(())
    }

    /// Keeps a message that is sent, for its mailbox or for its time.
    fn keep_sent(&mut self, counters: &mut Counters, envelope: &mut Envelope) -> rusqlite::Result<()> {
        if let Some(name) = &envelope.timer {
            let before = TimerName::Name(name.clone());
            timer::cancel(self.transaction, counters, &envelope.message.sender, &before)?;
        }
        match envelope.due {
            Some(due) if envelope.waits => timer::keep(self.transaction, counters, envelope, due),
            Some(_) | None if counters.keeps_messages => counters.insert(&mut self.insert, envelope),
            Some(_) | None => Ok(()),
        }
    }

    fn acknowledge(&mut self, counters: &mut Counters, handled: Handled) -> rusqlite::Result<()> {
        let at = counters.now.cast_signed();
        let Handled { seq, revision, runs } = handled;
        self.acknowledge.execute(params![seq.cast_signed(), at, revision.cast_signed(), runs])?;
        counters.history.handled(handled.seq);
        Ok(())
    }

    /// Keeps a message that is given up apart from those that wait.
    fn bury(
        &mut self,
        counters: &mut Counters,
        envelope: &Envelope,
        (reason, error): (&str, &str),
        at: u64,
    ) -> rusqlite::Result<()> {
        let seq = envelope.seq.unwrap_or_else(|| counters.next_seq());
        if counters.keeps_messages && envelope.seq.is_some() {
            self.acknowledge(counters, Handled { seq, revision: 0, runs: 0 })?;
        }
        row::encode(envelope, &mut counters.buffer);
        let message = &envelope.message;
        let attempts = serde_json::to_string(&envelope.failed).expect("attempts are numbers and text");
        self.transaction
            .prepare_cached(
                "INSERT INTO dead (seq, agent, conversation, rank, due, head, content, at, reason, error, attempts, receipt)
                 VALUES (?1, ?2, ?3, ?4, NULL, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                seq.cast_signed(),
                message.receiver,
                message.conversation_id,
                rank(message.priority) as i64,
                counters.buffer,
                message.content,
                at.cast_signed(),
                reason,
                error,
                attempts,
                row::receipt(message),
            ])?;
        if !envelope.failed.is_empty() {
            self.transaction.prepare_cached("DELETE FROM attempt WHERE seq = ?1")?.execute([seq.cast_signed()])?;
        }
        counters.history.buried(self.transaction)
    }

    /// Whether one handler's changes can be made: not if what it read has changed, or its agent would keep too much.
    /// Gives how much it keeps then.
    fn check_state(
        &mut self,
        counters: &mut Counters,
        agent: &Arc<str>,
        state: &StateChange,
    ) -> rusqlite::Result<Result<StateDecision, CommitError>> {
        let (sums, version) = match self.add(counters, agent, state)? {
            Ok(decided) => decided,
            Err(error) => return Ok(Err(error)),
        };
        for (key, seen) in &state.reads {
            let known = self.find(counters, agent, key)?;
            if !is_as_seen(*seen, known.version, known.expires_at, counters.now) {
                return Ok(Err(CommitError::Conflict(key.clone())));
            }
        }
        let bytes = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
        let mut size = counters.size(self.transaction, agent)?;
        for (key, value) in state.writes.iter().chain(&sums) {
            let replaced = self.find(counters, agent, key)?.length;
            size -= replaced.map_or(0, |length| length + bytes(key.len()));
            size += value.as_ref().map_or(0, |value| bytes(key.len() + value.bytes.len()));
        }
        for key in &state.expired {
            let known = self.find(counters, agent, key)?;
            let removed = known.length.filter(|_| known.is_expired(counters.now));
            size -= removed.map_or(0, |length| length + bytes(key.len()));
        }
        let grows = !sums.is_empty() || state.writes.values().any(Option::is_some);
        if grows && size.cast_unsigned() > state.quota {
            return Ok(Err(CommitError::Quota(state.quota)));
        }
        Ok(Ok(StateDecision { sums, version, size }))
    }

    /// Makes writes of what is added to numbers: sums of what they are by now.
    fn add(
        &self,
        counters: &Counters,
        agent: &Arc<str>,
        state: &StateChange,
    ) -> rusqlite::Result<Result<(Writes, u64), CommitError>> {
        let (mut sums, mut version) = (Writes::new(), state.version);
        if state.adds.is_empty() {
            return Ok(Ok((sums, version)));
        }
        let mut value =
            self.transaction.prepare_cached("SELECT value, expires_at FROM state WHERE agent = ?1 AND key = ?2")?;
        for (key, Add { by, sum: foretold }) in &state.adds {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<i64>>(1)?));
            let before = value.query_row(params![&**agent, key], row).optional()?;
            let before = before.map(|(bytes, at)| (bytes, at.map(i64::cast_unsigned)));
            // One whose time is over is not there.
            let before = before.filter(|(_, at)| at.is_none_or(|at| at > counters.now));
            let Ok(sum) = sum(before.as_ref().map(|(bytes, _)| bytes.as_slice()), *by) else {
                return Ok(Err(CommitError::NotANumber(key.clone())));
            };
            if sum != *foretold && version == state.version {
                // A commit before it was refused, which it was foretold upon.
                version = counters.version.fetch_add(1, Ordering::SeqCst) + 1;
            }
            let expiry = before.and_then(|(_, at)| at).map(|at| Expiry { at, given: None });
            sums.insert(key.clone(), Some(Value { bytes: sum.to_string().into(), expiry }));
        }
        Ok(Ok((sums, version)))
    }

    /// Makes one handler's changes.
    fn write_state(
        &mut self,
        counters: &mut Counters,
        agent: &Arc<str>,
        state: &StateChange,
        decided: &StateDecision,
    ) -> rusqlite::Result<()> {
        let StateDecision { sums, version, size } = decided;
        let version = *version;
        for (key, value) in state.writes.iter().chain(sums) {
            let known = match value {
                Some(value) => {
                    let expires_at = value.expires_at();
                    let columns = (version.cast_signed(), expires_at.map(u64::cast_signed));
                    self.set.execute(params![&**agent, key, &*value.bytes, columns.0, columns.1])?;
                    let length = Some(i64::try_from(value.bytes.len()).unwrap_or(i64::MAX));
                    Known { version, length, expires_at }
                }
                None => {
                    self.remove.execute(params![&**agent, key])?;
                    Known::default()
                }
            };
            counters.keys.set(agent, key, known);
        }
        for key in &state.expired {
            // One that was written meanwhile stays.
            if self.find(counters, agent, key)?.is_expired(counters.now) {
                self.remove.execute(params![&**agent, key])?;
                counters.keys.set(agent, key, Known::default());
            }
        }
        counters.sizes.insert(Arc::clone(agent), *size);
        counters.resized.insert(Arc::clone(agent));
        Ok(())
    }

    /// Returns the version, length and expiry of a key.
    fn find(&mut self, counters: &mut Counters, agent: &Arc<str>, key: &str) -> rusqlite::Result<Known> {
        if let Some(known) = counters.keys.get(agent, key) {
            return Ok(known);
        }
        let row = |row: &rusqlite::Row<'_>| {
            let expires_at = row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned);
            Ok(Known { version: row.get::<_, i64>(0)?.cast_unsigned(), length: Some(row.get(1)?), expires_at })
        };
        let known = self.find.query_row(params![&**agent, key], row).optional()?.unwrap_or_default();
        counters.keys.set(agent, key, known);
        Ok(known)
    }
}
