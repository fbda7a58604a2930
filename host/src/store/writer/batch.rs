//! A transaction of the writer: all jobs that waited when it began.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::store::commit::CommitError;
use crate::store::commit_request::CommitRequest;
use crate::store::placed::ContentPiece;
use crate::store::record::ContentRow;
use crate::store::sqlite::schema;
use crate::store::sqlite::table_reader::TableReader;
use crate::store::types::Event;
use crate::store::writer::apply::Tables;
use crate::store::writer::decide::{self, Decider};
use crate::store::writer::job::{Job, ResultSender};
use crate::store::writer::other_rows::push_event;
use crate::store::writer::writer_state::WriterState;

/// A commit with its result: the size of the agent's state, if it changed.
pub(in crate::store) type DecidedCommit = (Box<CommitRequest>, Result<Option<u64>, CommitError>);

/// Jobs that are written together, with what is to be said of them.
#[derive(Default)]
pub(in crate::store) struct Batch {
    /// The commits, decided.
    pub(in crate::store) commits: Vec<DecidedCommit>,
    /// The callers of other jobs.
    pub(in crate::store) askers: Vec<(ResultSender, Result<(), CommitError>)>,
    /// The callers that are answered once the transaction is written, before it is durable.
    pub(in crate::store) early: Vec<ResultSender>,
    /// The events, with ids.
    pub(in crate::store) events: Vec<Event>,
    /// Set if the log is to begin anew.
    pub(in crate::store) restart: bool,
    /// Set if the transaction has to write a page whatever its jobs are.
    pub(in crate::store) probe: bool,
    /// The callers that wait for an empty log.
    pub(in crate::store) emptying: Vec<ResultSender>,
    /// Marks the commits that follow pieces of their contents as lost, if nothing of this is kept.
    pub(in crate::store) pieces: Vec<Arc<AtomicBool>>,
}

impl Batch {
    /// Writes jobs in one transaction. After an error nothing of them is kept, and their callers are still to be
    /// answered.
    pub(in crate::store) fn write(
        &mut self,
        connection: &mut Connection,
        writer: &mut WriterState,
        jobs: impl Iterator<Item = Job>,
    ) -> rusqlite::Result<()> {
        // A transaction that fails gives its numbers back: no row has them.
        let before = (writer.seq, writer.event);
        writer.history.begin();
        // One time for the whole transaction, so that no key expires between its check and its write.
        writer.now = crate::clock::now_ms();
        // Immediate: a deferred transaction may fail to get the lock after commits were decided.
        let written = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => self.write_all(transaction, writer, jobs),
            Err(error) => {
                self.refuse(jobs);
                Err(error)
            }
        };
        match &written {
            Ok(()) => writer.written(),
            Err(_) => {
                self.lose_pieces();
                // The last first, as each was taken in on top of those before.
                self.commits.iter_mut().rev().for_each(|(request, _)| {
                    // Here and not where they are told: the next transaction is decided on before that.
                    request.break_line();
                    writer.gate.undo(request);
                    request.take_back_charges();
                });
                writer.undo(before);
            }
        }
        written
    }

    fn write_all(
        &mut self,
        transaction: Transaction<'_>,
        writer: &mut WriterState,
        jobs: impl Iterator<Item = Job>,
    ) -> rusqlite::Result<()> {
        let mut failed = None;
        {
            // In a block, because its statements borrow the transaction, which `commit` consumes.
            let mut writing = Writing::new(&transaction);
            for job in jobs {
                // The transaction is rolled back as a whole, so the rest is not tried.
                if failed.is_some() {
                    self.set_aside(job);
                } else {
                    failed = self.write_job(&mut writing, writer, job).err();
                }
            }
            match failed {
                Some(error) => return Err(error),
                None => writer.finish(writing.reader, &mut writing.tables)?,
            }
        }
        if self.probe {
            // Written also where nothing changes: a transaction without a page would always succeed.
            schema::write_format(&transaction)?;
        }
        transaction.commit()
    }

    /// Answers the callers that wait until the transaction is written, and not until it is durable.
    pub(in crate::store) fn tell_early(&mut self, failed: Option<&rusqlite::Error>) {
        let result = failed.map_or(Ok(()), |error| Err(CommitError::Store(error.to_string())));
        for asker in self.early.drain(..) {
            // The caller may have left.
            let _ = asker.send(result.clone());
        }
    }

    /// Takes in jobs none of which is written, so that their callers are answered.
    pub(in crate::store) fn refuse(&mut self, jobs: impl Iterator<Item = Job>) {
        jobs.for_each(|job| self.set_aside(job));
        self.lose_pieces();
    }

    /// Has the commits refused of whose contents a piece is not kept.
    fn lose_pieces(&mut self) {
        self.pieces.drain(..).for_each(|lost| lost.store(true, Ordering::SeqCst));
    }

    /// Takes in a job that is not written, so that its caller is answered.
    fn set_aside(&mut self, job: Job) {
        match job {
            Job::Commit(commit) => self.commits.push((commit, Ok(None))),
            Job::Piece(_, piece) => self.pieces.push(piece.lost),
            Job::Change(_, _, asker) | Job::Flush(asker) | Job::Probe(asker) => self.askers.push((asker, Ok(()))),
            Job::EarlyChange(_, _, asker) => self.early.push(asker),
            Job::Event(_) => {}
            Job::Restart => self.restart = true,
            Job::Empty(asker) => self.emptying.push(asker),
        }
    }

    fn write_job(&mut self, writing: &mut Writing<'_>, writer: &mut WriterState, job: Job) -> rusqlite::Result<()> {
        match job {
            Job::Commit(mut request) => {
                let written = writing.commit(writer, &mut request);
                let (result, error) = match written {
                    Ok(result) => (result, None),
                    Err(error) => (Ok(None), Some(error)),
                };
                // Also after an error: its callback has to run.
                self.commits.push((request, result));
                error.map_or(Ok(()), Err)
            }
            Job::Piece(_, ContentPiece { content, number, data, lost }) => {
                // Its commit is refused. Without the first piece, which notes the content, it would never be removed.
                if lost.load(Ordering::SeqCst) {
                    return Ok(());
                }
                self.pieces.push(lost);
                let mut record = writer.new_record();
                record.push(ContentRow::Piece { content, number, data: &data });
                writer.apply(&mut writing.tables, record)
            }
            Job::Change(_, change, asker) => {
                // Before the write, so that the caller is answered whether it fails or not.
                self.askers.push((asker, Ok(())));
                change(writer, writing.reader, &mut writing.tables)
            }
            Job::EarlyChange(_, change, asker) => {
                self.early.push(asker);
                change(writer, writing.reader, &mut writing.tables)
            }
            Job::Event(event) => {
                writer.event += 1;
                let event = Event { id: writer.event, ..event };
                let mut record = writer.new_record();
                push_event(&mut record, &event);
                writer.apply(&mut writing.tables, record)?;
                self.events.push(event);
                Ok(())
            }
            Job::Flush(asker) => {
                self.askers.push((asker, Ok(())));
                Ok(())
            }
            Job::Probe(asker) => {
                self.probe = true;
                self.askers.push((asker, Ok(())));
                Ok(())
            }
            Job::Restart | Job::Empty(_) => {
                // A checkpoint cannot run inside of a transaction: the writer makes it afterwards.
                self.set_aside(job);
                Ok(())
            }
        }
    }
}

/// A transaction in progress.
struct Writing<'t> {
    reader: TableReader<'t>,
    decider: Decider<'t>,
    tables: Tables<'t>,
}

impl<'t> Writing<'t> {
    fn new(transaction: &'t Transaction<'t>) -> Self {
        let reader = TableReader::new(transaction);
        Self { reader, decider: Decider::new(reader), tables: Tables::new(transaction) }
    }

    /// Makes one commit; returns the size of the agent's state if it changes, or the reason why nothing is written.
    fn commit(
        &mut self,
        writer: &mut WriterState,
        request: &mut CommitRequest,
    ) -> rusqlite::Result<Result<Option<u64>, CommitError>> {
        // A refused message is quoted in the answer.
        request.put_back();
        let decision = match self.decider.decide(writer, request)? {
            Ok(decision) => decision,
            Err(error) => {
                request.break_line();
                return Ok(Err(error));
            }
        };
        let record = decide::record(writer, request, &decision);
        writer.apply(&mut self.tables, record)?;
        Ok(Ok(decision.state_bytes()))
    }
}
