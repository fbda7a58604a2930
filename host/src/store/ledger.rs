//! The agents' ledgers of rollouts, and the memory that each revision gave when it handed over.

use std::sync::Arc;

use rusqlite::params;
use tokio::sync::oneshot;

use super::Store;
use super::commit::CommitError;
use super::state_copy;
use super::writer::Job;

impl Store {
    /// Returns all ledgers, by agent.
    pub(crate) fn ledgers(&self) -> Result<Vec<(String, String)>, String> {
        self.with_reader(|connection| {
            connection
                .prepare_cached("SELECT agent, record FROM ledger")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
    }

    /// Keeps an agent's ledger in place of what was kept before; none forgets it, with what its revisions handed
    /// over and the copies of its state. Returns at once: what is kept later reaches the disk later
    /// too.
    pub(crate) fn keep_ledger(&self, agent: Arc<str>, record: Option<String>) {
        self.tell_writer(move |transaction| {
            let Some(record) = record else {
                // A saved memory may only name a handoff: it takes the bytes over before that is removed.
                let handed = "UPDATE snapshot SET (data, pieces, bytes) =
                        (SELECT data, pieces, bytes FROM memory WHERE memory.agent = ?1), handed = NULL
                     WHERE agent = ?1 AND handed IS NOT NULL";
                transaction.prepare_cached(handed)?.execute([&*agent])?;
                transaction.prepare_cached("DELETE FROM handoff WHERE agent = ?1")?.execute([&*agent])?;
                state_copy::forget(transaction, &agent, None)?;
                transaction.prepare_cached("DELETE FROM difference WHERE agent = ?1")?.execute([&*agent])?;
                transaction.prepare_cached("DELETE FROM recent WHERE agent = ?1")?.execute([&*agent])?;
                return transaction.prepare_cached("DELETE FROM ledger WHERE agent = ?1")?.execute([&*agent]);
            };
            transaction
                .prepare_cached("INSERT OR REPLACE INTO ledger (agent, record) VALUES (?1, ?2)")?
                .execute(params![&*agent, record])
        });
        // After the change is queued: a sweep between the two would clear the flag and find nothing.
        self.pieces.untidy();
    }

    /// Forgets what revisions handed over that are kept no more.
    pub(crate) fn forget_handoffs(&self, agent: Arc<str>, revisions: Vec<u64>) {
        self.tell_writer(move |transaction| {
            // A saved memory may only name the handoff that goes: it takes the bytes over first.
            let mut keep = transaction.prepare_cached(
                "UPDATE snapshot SET (data, pieces, bytes) =
                    (SELECT data, pieces, bytes FROM memory WHERE memory.agent = ?1), handed = NULL
                 WHERE agent = ?1 AND handed = ?2",
            )?;
            let mut forget = transaction.prepare_cached("DELETE FROM handoff WHERE agent = ?1 AND revision = ?2")?;
            for revision in revisions {
                keep.execute(params![&*agent, revision.cast_signed()])?;
                forget.execute(params![&*agent, revision.cast_signed()])?;
            }
            Ok(0)
        });
        self.pieces.untidy();
    }

    /// Writes conversations that have changed, with the next transaction. Returns before that.
    pub(crate) fn write_changed(&self) {
        self.tell_writer(|_| Ok(0));
    }

    /// Queues a change without waiting for it.
    pub(super) fn tell_writer(
        &self,
        change: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<usize> + Send + 'static,
    ) {
        let other = Box::new(move |transaction: &rusqlite::Transaction<'_>, _: &mut _| change(transaction).map(|_| ()));
        // The receiver is dropped, so the answer goes nowhere; an error is logged with the transaction.
        self.writer.send(Job::Other(other, oneshot::channel().0));
    }

    /// Keeps the memory that the agent saved last, if there is any, as what a revision hands over; returns when it is
    /// safe.
    pub(crate) async fn keep_saved_as_handoff(&self, agent: Arc<str>, revision: u64) -> Result<(), CommitError> {
        self.change(move |transaction, _| {
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO handoff (agent, revision, saved_at, data, pieces, bytes)
                     SELECT agent, ?2, saved_at, data, pieces, bytes FROM memory WHERE agent = ?1",
                )?
                .execute(params![&*agent, revision.cast_signed()])
                .map(|_| ())
        })
        .await
    }

    /// Drops the memory that the agent saved last; returns when it is safe.
    pub(crate) async fn discard(&self, agent: Arc<str>) -> Result<(), CommitError> {
        let discarded = self.change(move |transaction, _| {
            transaction.prepare_cached("DELETE FROM snapshot WHERE agent = ?1")?.execute([&*agent]).map(|_| ())
        });
        let discarded = discarded.await;
        self.pieces.untidy();
        discarded
    }

    /// Makes the memory that a revision handed over the agent's again; without one the agent begins anew. Returns
    /// when it is safe.
    pub(crate) async fn take_back(&self, agent: Arc<str>, revision: u64) -> Result<(), CommitError> {
        let taken = self.change(move |transaction, _| {
            transaction.prepare_cached("DELETE FROM snapshot WHERE agent = ?1")?.execute([&*agent])?;
            transaction
                .prepare_cached(
                    "INSERT INTO snapshot (agent, revision, saved_at, data, handed)
                     SELECT agent, revision, saved_at, x'', revision FROM handoff WHERE agent = ?1 AND revision = ?2",
                )?
                .execute(params![&*agent, revision.cast_signed()])
                .map(|_| ())
        });
        let taken = taken.await;
        self.pieces.untidy();
        taken
    }
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::store::Snapshot;
    use crate::store::tests::{opened, settings};

    fn of(revision: u64, data: &'static [u8]) -> Arc<Snapshot> {
        Arc::new(Snapshot { revision, saved_at: 1, data: data.into() })
    }

    #[tokio::test]
    async fn a_memory_that_was_handed_over_stays_when_the_handoff_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
        let agent: Arc<str> = "counter".into();
        let memory = || store.snapshot(&agent, 0).unwrap().map(|kept| (kept.revision, kept.data.to_vec()));
        let bytes = || store.size().unwrap().agents.first().map(|kept| kept.snapshot_bytes);
        store.keep_handoff(Arc::clone(&agent), of(1, b"one")).await.unwrap();
        assert_eq!((memory(), bytes()), (Some((1, b"one".to_vec())), Some(3)));
        // What was taken up by the second is what the second would hand over if it saved nothing.
        store.keep_saved_as_handoff(Arc::clone(&agent), 2).await.unwrap();
        store.forget_handoffs(Arc::clone(&agent), vec![1, 2]);
        store.flush().await.unwrap();
        assert_eq!((memory(), bytes()), (Some((1, b"one".to_vec())), Some(3)));
        store.keep_handoff(Arc::clone(&agent), of(3, b"three")).await.unwrap();
        store.save_snapshot(Arc::clone(&agent), of(4, b"4")).await.unwrap();
        assert_eq!(memory(), Some((4, b"4".to_vec())));
        store.take_back(Arc::clone(&agent), 3).await.unwrap();
        assert_eq!(memory(), Some((3, b"three".to_vec())));
        store.keep_ledger(Arc::clone(&agent), None);
        store.flush().await.unwrap();
        assert_eq!(memory(), Some((3, b"three".to_vec())), "what the agent knows is not its rollouts'");
        store.take_back(Arc::clone(&agent), 3).await.unwrap();
        assert_eq!(memory(), None);
    }

    #[tokio::test]
    async fn a_memory_that_could_not_be_written_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Fsync)).unwrap();
        store.keep_handoff("counter".into(), of(1, b"one")).await.unwrap();
        let other = rusqlite::Connection::open(folder.path().join("caxton.db")).unwrap();
        other.execute_batch("DROP TABLE handoff").unwrap();
        let error = store.keep_handoff("counter".into(), of(2, b"two")).await.unwrap_err();
        assert!(error.to_string().contains("no such table: handoff"), "{error}");
        assert_eq!(store.snapshot("counter", 0).unwrap_err(), "no such table: handoff");
    }
}
