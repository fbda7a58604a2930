//! The agents' ledgers of rollouts, and the memory that each revision gave when it handed over.

use std::sync::Arc;

use rusqlite::OptionalExtension;

use crate::store::commit::CommitError;
use crate::store::handles::RolloutTable;
use crate::store::record::{MemoryRow, RecentRow, RolloutRow, StateCopyRow};
use crate::store::turn::Turn;
use crate::store::types::RevisionRecord;
use crate::store::writer::other_rows::push_revision;

impl RolloutTable<'_> {
    /// Returns all ledgers, by agent.
    pub(crate) fn ledgers(self) -> Result<Vec<(String, String)>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached("SELECT agent, record FROM ledger")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
    }

    /// Keeps an agent's ledger in place of what was kept before; none forgets it, with what its revisions handed
    /// over and the copies of its state. Returns at once: what is kept later reaches the disk later
    /// too.
    pub(crate) fn keep_ledger(self, agent: Arc<str>, record: Option<String>) {
        self.0.queue_change(Turn::of(&agent), (agent, record), |(agent, record), _, _, rows| {
            match record {
                Some(record) => rows.push(RolloutRow::Ledger { agent, record }),
                None => {
                    rows.push(MemoryRow::HandoffsRemoved { agent, revision: None });
                    rows.push(StateCopyRow::Removed { agent, revision: None });
                    rows.push(RolloutRow::DifferencesRemoved { agent, up_to: i64::MAX });
                    rows.push(RecentRow::Removed { agent, before: i64::MAX });
                    rows.push(RolloutRow::LedgerRemoved { agent });
                }
            }
            Ok(())
        });
        // After the change is queued: a sweep between the two would clear the flag and find nothing.
        self.0.pieces.untidy();
    }

    /// The number of an agent's newest revision, its digest and its settings.
    pub(crate) fn last_revision(self, agent: &str) -> Result<Option<(u64, String, String)>, String> {
        self.0.with_reader(|connection| {
            connection
                .prepare_cached(
                    "SELECT number, digest, settings FROM revision WHERE agent = ?1 ORDER BY number DESC LIMIT 1",
                )?
                .query_row([agent], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?, row.get(2)?)))
                .optional()
        })
    }

    /// Keeps a new revision; returns when it is safe.
    pub(crate) async fn keep_revision(self, record: RevisionRecord) -> Result<(), CommitError> {
        let kept = self.0.change(Turn::of(&record.agent), record, |revision, _, _, record| {
            push_revision(record, revision);
            Ok(())
        });
        kept.await.map(drop)
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
        let memory = || store.snapshots().get(&agent, 0).unwrap().map(|kept| (kept.revision, kept.data.to_vec()));
        let bytes = || store.size().unwrap().agents.first().map(|kept| kept.snapshot_bytes);
        store.snapshots().keep_handoff(Arc::clone(&agent), of(1, b"one")).await.unwrap();
        assert_eq!((memory(), bytes()), (Some((1, b"one".to_vec())), Some(3)));
        // What was taken up by the second is what the second would hand over if it saved nothing.
        store.snapshots().keep_saved_as_handoff(Arc::clone(&agent), 2).await.unwrap();
        store.snapshots().forget_handoffs(Arc::clone(&agent), vec![1, 2]);
        store.flush().await.unwrap();
        assert_eq!((memory(), bytes()), (Some((1, b"one".to_vec())), Some(3)));
        store.snapshots().keep_handoff(Arc::clone(&agent), of(3, b"three")).await.unwrap();
        store.snapshots().save(Arc::clone(&agent), of(4, b"4")).await.unwrap();
        assert_eq!(memory(), Some((4, b"4".to_vec())));
        store.snapshots().restore_handoff(Arc::clone(&agent), 3).await.unwrap();
        assert_eq!(memory(), Some((3, b"three".to_vec())));
        store.rollouts().keep_ledger(Arc::clone(&agent), None);
        store.flush().await.unwrap();
        assert_eq!(memory(), Some((3, b"three".to_vec())), "what the agent knows is not its rollouts'");
        store.snapshots().restore_handoff(Arc::clone(&agent), 3).await.unwrap();
        assert_eq!(memory(), None);
    }

    #[tokio::test]
    async fn a_memory_that_could_not_be_written_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path(), &settings(Durability::Fsync)).unwrap();
        store.snapshots().keep_handoff("counter".into(), of(1, b"one")).await.unwrap();
        let other = rusqlite::Connection::open(folder.path().join("caxton.db")).unwrap();
        other.execute_batch("DROP TABLE handoff").unwrap();
        let error = store.snapshots().keep_handoff("counter".into(), of(2, b"two")).await.unwrap_err();
        assert!(error.to_string().contains("no such table: handoff"), "{error}");
        assert_eq!(store.snapshots().get("counter", 0).unwrap_err(), "no such table: handoff");
    }
}
