//! The journals of calls over HTTP: what another attempt at a message is answered from.

use std::sync::Arc;

use caxton_control::journal::{CallKey, CallOutcome, RequestHash};
use futures::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::message::{JournalPlace, JournalRows, StoredCall};
use crate::store::Store;
use crate::store::record::JournalRow;
use crate::store::sqlite::table_reader::TableReader;
use crate::store::turn::Turn;

/// Selects the calls of message `?1`, in the order of their begins.
const CALLS: &str =
    "SELECT hash, nth, line, at, outcome, length(response) FROM journal WHERE seq = ?1 ORDER BY at, rowid";

/// Returns the calls that are recorded of a message. Most have none.
pub(in crate::store) fn calls(connection: &Connection, seq: i64) -> rusqlite::Result<Box<[StoredCall]>> {
    connection.prepare_cached(CALLS)?.query_map([seq], call)?.collect()
}

/// Returns the same within a transaction.
pub(in crate::store) fn calls_within(reader: TableReader<'_>, seq: u64) -> rusqlite::Result<Box<[StoredCall]>> {
    reader.prepare(CALLS)?.query_map([seq.cast_signed()], call)?.collect()
}

fn call(row: &Row<'_>) -> rusqlite::Result<StoredCall> {
    Ok(StoredCall {
        key: CallKey { hash: RequestHash(row.get(0)?), nth: row.get(1)? },
        outcome: match row.get::<_, Option<u16>>(4)? {
            // It began, and the host was killed or the call failed.
            None => CallOutcome::Unknown,
            Some(0) => CallOutcome::TooLarge,
            Some(status) => CallOutcome::Answered(status),
        },
        line: row.get(2)?,
        at: row.get::<_, i64>(3)?.cast_unsigned(),
        bytes: row.get::<_, i64>(5)?.cast_unsigned(),
    })
}

impl JournalRows for Store {
    fn begin(self: Arc<Self>, place: JournalPlace, call: StoredCall) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let turn = Turn::of(&place.agent);
            let begun = self.change(turn, (place, call, true), |(place, call, is_open), reader, _, record| {
                // A guest may end its message while a call of it begins. A row would be left behind.
                *is_open = reader
                    .prepare("SELECT 1 FROM ack WHERE seq = ?1")?
                    .query_row([place.seq.cast_signed()], |_| Ok(()))
                    .optional()?
                    .is_none();
                if *is_open {
                    let StoredCall { key, line, at, .. } = call;
                    let (hash, nth) = (key.hash.0, key.nth);
                    record.push(JournalRow::Begun { seq: place.seq, hash, nth, line, at: *at });
                }
                Ok(())
            });
            let (_, _, is_open) = begun.await.map_err(|error| error.to_string())?;
            if is_open { Ok(()) } else { Err("its message has ended".to_owned()) }
        })
    }

    fn end(
        self: Arc<Self>,
        place: JournalPlace,
        key: CallKey,
        outcome: CallOutcome,
        response: Vec<u8>,
    ) -> BoxFuture<'static, Result<(), String>> {
        let status = match outcome {
            CallOutcome::Answered(status) => status,
            CallOutcome::TooLarge => 0,
            // These have no end: the row stays as it began.
            CallOutcome::Unknown | CallOutcome::NotHeld | CallOutcome::Failed => {
                return Box::pin(std::future::ready(Ok(())));
            }
        };
        Box::pin(async move {
            let turn = Turn::OfAgent(Arc::clone(&place.agent), response.len() as u64);
            let ended = self.change(turn, (place, response), move |(place, response), _, _, record| {
                let (hash, nth) = (key.hash.0, key.nth);
                record.push(JournalRow::Ended { seq: place.seq, hash, nth, outcome: status, response });
                Ok(())
            });
            ended.await.map(drop).map_err(|error| error.to_string())
        })
    }

    fn forget(self: Arc<Self>, place: JournalPlace, key: CallKey) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let turn = Turn::of(&place.agent);
            // Readers have to see it, and the disk need not: after a crash the call is one that may have been made.
            let forgotten = self.change_early(turn, place, move |place, _, _, record| {
                record.push(JournalRow::CallRemoved { seq: place.seq, hash: key.hash.0, nth: key.nth });
                Ok(())
            });
            if let Err(error) = forgotten.await {
                tracing::warn!(%error, "a call that was not made stays in the journal, as one that may have been");
            }
        })
    }

    fn calls(&self, seq: u64) -> Result<Box<[StoredCall]>, String> {
        self.with_reader(|connection| calls(connection, seq.cast_signed()))
    }

    fn response(&self, seq: u64, key: CallKey) -> Result<Option<Vec<u8>>, String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached("SELECT response FROM journal WHERE seq = ?1 AND hash = ?2 AND nth = ?3")?
                .query_row(params![seq.cast_signed(), key.hash.0, key.nth], |row| row.get(0))
                .optional()
        })
    }
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::store::tests::{kept, message, opened, settings};
    use crate::store::{Commit, CommitRequest, DeadFilter, DeadLetter, Handled};

    fn key(request: u8) -> CallKey {
        CallKey { hash: RequestHash([request; 32]), nth: 1 }
    }

    fn begun(request: u8) -> StoredCall {
        let line = "POST http://pay.example".to_owned();
        StoredCall { key: key(request), outcome: CallOutcome::Unknown, line, at: request.into(), bytes: 0 }
    }

    fn place(seq: u64) -> JournalPlace {
        JournalPlace { agent: "desk".into(), seq }
    }

    async fn commit(store: &Store, commit: Commit) {
        store.submit(CommitRequest::new(commit, Vec::new(), Box::new(|_| ())));
        store.flush().await.unwrap();
    }

    fn recorded(store: &Store, seq: u64) -> Vec<(u8, CallOutcome, u64)> {
        let envelope = store.queue().message(seq).unwrap().unwrap();
        envelope.recorded.iter().map(|call| (call.key.hash.0[0], call.outcome, call.bytes)).collect()
    }

    #[tokio::test]
    async fn a_journal_is_kept_with_its_message_and_its_dead_letter() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let envelope = kept(&store, message("m-1", "http:POST /", "desk")).await;
        let seq = envelope.seq.unwrap();
        for request in 1..=4 {
            Arc::clone(&store).begin(place(seq), begun(request)).await.unwrap();
        }
        Arc::clone(&store).end(place(seq), key(2), CallOutcome::Answered(201), vec![7; 9]).await.unwrap();
        Arc::clone(&store).end(place(seq), key(3), CallOutcome::TooLarge, Vec::new()).await.unwrap();
        Arc::clone(&store).forget(place(seq), key(4)).await;
        let expected =
            [(1, CallOutcome::Unknown, 0), (2, CallOutcome::Answered(201), 9), (3, CallOutcome::TooLarge, 0)];
        assert_eq!(recorded(&store, seq), expected);
        drop(store);
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        assert_eq!(recorded(&store, seq), expected, "after opening again");
        assert_eq!(store.response(seq, key(2)).unwrap(), Some(vec![7; 9]));
        // A call that begins again has no outcome.
        Arc::clone(&store).begin(place(seq), begun(2)).await.unwrap();
        assert_eq!(recorded(&store, seq)[1].1, CallOutcome::Unknown);
        let mut given_up = Commit::new("desk".into());
        let envelope = Box::new(store.queue().message(seq).unwrap().unwrap());
        given_up.dead = Some(Box::new(DeadLetter { envelope, reason: "unknown-outcome", error: String::new(), at: 1 }));
        commit(&store, given_up).await;
        // As a guest whose message has ended.
        assert!(Arc::clone(&store).begin(place(seq), begun(9)).await.is_err());
        let revived = store.dead_letters().revive(DeadFilter::default(), false).await.unwrap();
        let again = &revived.envelopes[0];
        assert_eq!(again.recorded.len(), 3, "redelivery keeps the record");
        let next = again.seq.unwrap();
        assert!(next != seq && recorded(&store, next).len() == 3);
        let mut handled = Commit::new("desk".into());
        (handled.handled, handled.journal) = (Some(Handled { seq: next, revision: 1, runs: 1, bytes: 0 }), Some(next));
        commit(&store, handled).await;
        let rows = |store: &Store| {
            store.with_reader(|connection| connection.query_row("SELECT count(*) FROM journal", [], |row| row.get(0)))
        };
        assert_eq!(rows(&store), Ok(0_i64), "it leaves with the message");
        let envelope = kept(&store, message("m-2", "http:POST /", "desk")).await;
        Arc::clone(&store).begin(place(envelope.seq.unwrap()), begun(1)).await.unwrap();
        let mut given_up = Commit::new("desk".into());
        let (envelope, error) = (Box::new(envelope), String::new());
        given_up.dead = Some(Box::new(DeadLetter { envelope, reason: "invalid", error, at: 1 }));
        commit(&store, given_up).await;
        assert_eq!(rows(&store), Ok(1));
        store.dead_letters().forget(DeadFilter::default()).await.unwrap();
        assert_eq!(rows(&store), Ok(0), "and with the dead letter");
    }
}
