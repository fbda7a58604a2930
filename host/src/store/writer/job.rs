//! Jobs of the writer.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::store::commit::CommitError;
use crate::store::commit_request::CommitRequest;
use crate::store::placed::ContentPiece;
use crate::store::record::Record;
use crate::store::sqlite::table_reader::TableReader;
use crate::store::turn::Turn;
use crate::store::types::Event;
use crate::store::writer::apply::Tables;
use crate::store::writer::writer_state::WriterState;

/// The sender of an answer to a caller that waits.
pub(in crate::store) type ResultSender = oneshot::Sender<Result<(), CommitError>>;

/// A job for the next transaction.
pub(in crate::store) enum Job {
    /// A commit.
    Commit(Box<CommitRequest>),
    /// A piece of a content of the commit that follows among those of the agent.
    Piece(Arc<str>, ContentPiece),
    /// An event. No caller waits.
    Event(Event),
    /// A change of another kind, which is seldom.
    Change(Turn, Change, ResultSender),
    /// The same, answered once it is written: before it is durable, but not before readers see it.
    EarlyChange(Turn, Change, ResultSender),
    /// Writes nothing: it is answered once all jobs before it are safe.
    Flush(ResultSender),
    /// Writes what is there already: it is answered once that is safe.
    Probe(ResultSender),
    /// Copies the rest of the log, so that it can begin anew.
    Restart,
    /// Copies all of the log into the database and empties it.
    Empty(ResultSender),
}

impl Job {
    /// Returns the contents and values that it writes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Commit(request) => request.bytes(),
            Self::Piece(_, piece) => piece.data.len() as u64,
            Self::Change(Turn::OfAgent(_, bytes), ..) | Self::EarlyChange(Turn::OfAgent(_, bytes), ..) => *bytes,
            Self::Change(..)
            | Self::EarlyChange(..)
            | Self::Event(_)
            | Self::Flush(_)
            | Self::Probe(_)
            | Self::Restart
            | Self::Empty(_) => 0,
        }
    }
}

/// A change that has no kind of its own: decides, and has the record applied.
pub(in crate::store) type Change =
    Box<dyn FnOnce(&mut WriterState, TableReader<'_>, &mut Tables<'_>) -> rusqlite::Result<()> + Send>;

/// A decision on a change: reads the tables and adds to the record what is to be done. The record borrows from the
/// subject, so that nothing is copied on its way to the tables.
pub(in crate::store) trait Decide<T>
where
    Self: Send + 'static,
    Self: for<'s> FnOnce(&'s mut T, TableReader<'_>, &mut WriterState, &mut Record<'s>) -> rusqlite::Result<()>,
{
}

impl<T, F> Decide<T> for F where
    F: for<'s> FnOnce(&'s mut T, TableReader<'_>, &mut WriterState, &mut Record<'s>) -> rusqlite::Result<()>
        + Send
        + 'static
{
}

/// Makes a change of a decision. The subject is sent back once the record is applied.
pub(in crate::store) fn change_of<T: Send + 'static>(
    mut subject: T,
    decide: impl Decide<T>,
    back: oneshot::Sender<T>,
) -> Change {
    Box::new(move |writer, reader, tables| {
        let mut record = writer.new_record();
        decide(&mut subject, reader, writer, &mut record)?;
        writer.apply(tables, record)?;
        // The caller may have left.
        let _ = back.send(subject);
        Ok(())
    })
}
