//! The memory of stateful agents: small ones in the commit that keeps them, large ones in pieces beside the commits.
//!
//! ```text
//! piece | others' commits | piece | others' commits | piece | one small commit that names the pieces
//! ```
//! A memory of many megabytes in one transaction would hold up every other commit for as long as it takes to write.
//! Each piece is a job of its own, so that others come between two of them. Pieces that no row names belong to a save
//! that broke off or was replaced by another, and are [removed](SnapshotTable::tidy) a few at a time. They are in the
//! database and not in files beside it, so that a backup has them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::Store;
use crate::store::commit::CommitError;
use crate::store::error::is_out_of_room;
use crate::store::handles::SnapshotTable;
use crate::store::record::{MemoryRow, Record};
use crate::store::sqlite::table_reader::TableReader;
use crate::store::turn::Turn;
use crate::store::types::Snapshot;

/// Bytes of a piece, and the upper bound of `snapshot.commit-max`. Writing one takes a millisecond or two, for which other commits wait.
const PIECE: usize = 512 << 10;
/// Pieces that are removed in one transaction.
const AT_ONCE: u32 = 16;
/// The memories that have a row, by the number of their pieces.
const NAMED: &str = "SELECT pieces FROM snapshot WHERE pieces IS NOT NULL
                     UNION ALL SELECT pieces FROM handoff WHERE pieces IS NOT NULL";

/// The pieces of memories, as far as no row says enough of them.
#[derive(Debug)]
pub(in crate::store) struct Pieces {
    /// The number of the next memory in pieces.
    next: AtomicU64,
    /// Memories whose pieces are being written, which no row names yet.
    writing: Mutex<BTreeSet<u64>>,
    /// Set when pieces may have lost their row.
    untidy: AtomicBool,
}

/// The place of the bytes of a memory, until a row names it.
struct Placed<'a> {
    pieces: &'a Pieces,
    /// The number of its pieces; none if the row has the bytes.
    number: Option<u64>,
}

impl Placed<'_> {
    /// Returns the turn in which the row is written.
    fn turn(&self, agent: &Arc<str>, snapshot: &Snapshot) -> Turn {
        let bytes = if self.number.is_none() { snapshot.data.len() as u64 } else { 0 };
        Turn::OfAgent(Arc::clone(agent), bytes)
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.pieces.writing.lock().remove(&number);
        }
        // The memory that it replaces has no row now; or it has none itself, if it was not kept.
        self.pieces.untidy.store(true, Ordering::SeqCst);
    }
}

impl Pieces {
    /// Removes what a host that was killed has left of saves.
    pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let removed = connection.execute(&format!("DELETE FROM piece WHERE memory NOT IN ({NAMED})"), []);
        // A host on a full disk starts all the same, and removes them with the next save.
        let is_untidy = match removed {
            Err(error) if is_out_of_room(&error) => true,
            removed => removed.map(|_| false)?,
        };
        // Numbers begin above all that are left, so that no two memories share pieces.
        let last: Option<i64> = connection.query_row("SELECT max(memory) FROM piece", [], |row| row.get(0))?;
        Ok(Self {
            next: AtomicU64::new(last.unwrap_or(0).cast_unsigned() + 1),
            writing: Mutex::default(),
            untidy: AtomicBool::new(is_untidy),
        })
    }

    /// Notes that pieces may have lost their row.
    pub(in crate::store) fn untidy(&self) {
        self.untidy.store(true, Ordering::SeqCst);
    }
}

impl Store {
    /// Writes the bytes of a large memory in pieces; those of a small one are for the row.
    async fn place(&self, agent: &Arc<str>, data: &Bytes) -> Result<Placed<'_>, CommitError> {
        // A small memory is one row: a transaction with it holds up the others no longer than a piece.
        if data.len() <= PIECE {
            return Ok(Placed { pieces: &self.pieces, number: None });
        }
        let number = self.pieces.next.fetch_add(1, Ordering::SeqCst);
        // Before the first piece, which `tidy` would remove otherwise.
        self.pieces.writing.lock().insert(number);
        let placed = Placed { pieces: &self.pieces, number: Some(number) };
        for (index, begin) in (0..).zip((0..data.len()).step_by(PIECE)) {
            let piece = data.slice(begin..data.len().min(begin + PIECE));
            let turn = Turn::OfAgent(Arc::clone(agent), piece.len() as u64);
            // Not until it is safe: the row that names it is safe only after it.
            let written = self.change_early(turn, piece, move |piece, _, _, record| {
                record.push(MemoryRow::Piece { memory: number, number: index, data: piece });
                Ok(())
            });
            written.await?;
        }
        Ok(placed)
    }

    fn read_memory(&self, sql: &str, agent: &str, revision: u64) -> Result<Option<Snapshot>, String> {
        self.with_reader(|connection| {
            // Of one moment: another save removes the pieces of the one before.
            let moment = connection.unchecked_transaction()?;
            moment
                .prepare_cached(sql)?
                .query_row(params![agent, revision.cast_signed()], |row| read(&moment, row))
                .optional()
        })
    }
}

impl SnapshotTable<'_> {
    /// Keeps an agent's memory in place of what was kept before; returns when it is safe. After an error what was kept
    /// before is still there.
    pub(crate) async fn save(self, agent: Arc<str>, snapshot: Arc<Snapshot>) -> Result<(), CommitError> {
        let placed = self.0.place(&agent, &snapshot.data).await?;
        let number = placed.number;
        let saved =
            self.0.change(placed.turn(&agent, &snapshot), (agent, snapshot), move |(agent, snapshot), _, _, record| {
                let Snapshot { revision, saved_at, ref data } = **snapshot;
                record.push(match number {
                    None => MemoryRow::Saved { agent, revision, saved_at, data },
                    Some(pieces) => {
                        MemoryRow::SavedInPieces { agent, revision, saved_at, pieces, bytes: data.len() as u64 }
                    }
                });
                Ok(())
            });
        saved.await.map(drop)
    }

    /// Keeps the memory that a revision hands over, as the agent's and as its own; returns when it is written, since a
    /// mailbox waits for it. What the next revision does is safe only after this.
    pub(crate) async fn keep_handoff(self, agent: Arc<str>, snapshot: Arc<Snapshot>) -> Result<(), CommitError> {
        let placed = self.0.place(&agent, &snapshot.data).await?;
        let pieces = placed.number;
        let handed = self.0.change_early(
            placed.turn(&agent, &snapshot),
            (agent, snapshot),
            move |(agent, snapshot), _, _, record| {
                let Snapshot { revision, saved_at, ref data } = **snapshot;
                let bytes = data.len() as u64;
                // The row has the bytes, or names the pieces that have them.
                let data: &[u8] = if pieces.is_some() { &[] } else { data };
                record.push(MemoryRow::HandedOver { agent, revision, saved_at, data, pieces, bytes });
                // Names the handoff, so that the bytes are written once while a mailbox waits.
                record.push(MemoryRow::HandoffTaken { agent, revision, saved_at });
                Ok(())
            },
        );
        handed.await.map(drop)
    }

    /// Returns the memory that a stateful agent saved last. Without one, that which `revision` handed over: a host that
    /// was killed between a handoff to one that begins anew and the switch has it nowhere else.
    pub(crate) fn get(self, agent: &str, revision: u64) -> Result<Option<Snapshot>, String> {
        self.0.read_memory(
            "SELECT revision, saved_at, data, pieces, bytes FROM memory WHERE agent = ?1
             UNION ALL SELECT revision, saved_at, data, pieces, bytes FROM handoff WHERE agent = ?1 AND revision = ?2
             LIMIT 1",
            agent,
            revision,
        )
    }

    /// Returns the memory that a revision handed over.
    pub(crate) fn handed_over(self, agent: &str, revision: u64) -> Result<Option<Snapshot>, String> {
        self.0.read_memory(
            "SELECT revision, saved_at, data, pieces, bytes FROM handoff WHERE agent = ?1 AND revision = ?2",
            agent,
            revision,
        )
    }

    /// Removes pieces that no row names, a few in each transaction. Costs nothing while there are none.
    pub(crate) async fn tidy(self) -> Result<(), CommitError> {
        // Cleared before the sweep: pieces that lose their row during it set it again.
        if !self.0.pieces.untidy.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        loop {
            let pieces = Arc::clone(&self.0.pieces);
            let removed = self.0.change_early(Turn::OfHost, 0, move |removed, reader, _, record| {
                *removed = remove_some(reader, &pieces, record)?;
                Ok(())
            });
            match removed.await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    // The next sweep tries again.
                    self.0.pieces.untidy();
                    return Err(error);
                }
            }
        }
    }
}

impl SnapshotTable<'_> {
    /// Forgets what revisions handed over that are kept no more.
    pub(crate) fn forget_handoffs(self, agent: Arc<str>, revisions: Vec<u64>) {
        self.0.queue_change(Turn::of(&agent), agent, move |agent, _, _, record| {
            for revision in revisions {
                record.push(MemoryRow::HandoffsRemoved { agent, revision: Some(revision) });
            }
            Ok(())
        });
        self.0.pieces.untidy();
    }

    /// Keeps the memory that the agent saved last, if there is any, as what a revision hands over; returns when it is
    /// safe.
    pub(crate) async fn keep_saved_as_handoff(self, agent: Arc<str>, revision: u64) -> Result<(), CommitError> {
        let kept = self.0.change(Turn::of(&agent), agent, move |agent, _, _, record| {
            record.push(MemoryRow::SavedHandedOver { agent, revision });
            Ok(())
        });
        kept.await.map(drop)
    }

    /// Drops the memory that the agent saved last; returns when it is safe.
    pub(crate) async fn discard(self, agent: Arc<str>) -> Result<(), CommitError> {
        let discarded = self.0.change(Turn::of(&agent), agent, |agent, _, _, record| {
            record.push(MemoryRow::Removed { agent });
            Ok(())
        });
        let discarded = discarded.await.map(drop);
        self.0.pieces.untidy();
        discarded
    }

    /// Makes the memory that a revision handed over the agent's again; without one the agent begins anew. Returns
    /// when it is safe.
    pub(crate) async fn restore_handoff(self, agent: Arc<str>, revision: u64) -> Result<(), CommitError> {
        let taken = self.0.change(Turn::of(&agent), agent, move |agent, reader, _, record| {
            let saved_at: Option<i64> = reader
                .prepare("SELECT saved_at FROM handoff WHERE agent = ?1 AND revision = ?2")?
                .query_row(params![&**agent, revision.cast_signed()], |row| row.get(0))
                .optional()?;
            record.push(match saved_at.map(i64::cast_unsigned) {
                Some(saved_at) => MemoryRow::HandoffTaken { agent, revision, saved_at },
                None => MemoryRow::Removed { agent },
            });
            Ok(())
        });
        let taken = taken.await.map(drop);
        self.0.pieces.untidy();
        taken
    }
}

/// Decides which pieces of a memory that no row names are removed. Returns their number.
fn remove_some(reader: TableReader<'_>, pieces: &Pieces, record: &mut Record<'_>) -> rusqlite::Result<u32> {
    let sql = format!("SELECT DISTINCT memory FROM piece WHERE memory NOT IN ({NAMED})");
    let unnamed: Vec<i64> = reader.prepare(&sql)?.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let unwritten = {
        let writing = pieces.writing.lock();
        unnamed.into_iter().map(i64::cast_unsigned).find(|number| !writing.contains(number))
    };
    let Some(memory) = unwritten else { return Ok(0) };
    let sql = "SELECT count(*), max(number) FROM
                   (SELECT number FROM piece WHERE memory = ?1 ORDER BY number LIMIT ?2)";
    let (count, up_to) = reader.prepare(sql)?.query_row(params![memory.cast_signed(), AT_ONCE], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    record.push(MemoryRow::PiecesRemoved { memory, up_to });
    Ok(count)
}

fn read(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    let bytes = usize::try_from(row.get::<_, i64>(4)?).unwrap_or(0);
    let data = match row.get::<_, Option<i64>>(3)? {
        None => row.get(2)?,
        Some(number) => whole(connection, number, bytes)?,
    };
    Ok(Snapshot {
        revision: row.get::<_, i64>(0)?.cast_unsigned(),
        saved_at: row.get::<_, i64>(1)?.cast_unsigned(),
        data: data.into(),
    })
}

/// Returns all pieces of a memory together.
fn whole(connection: &Connection, number: i64, bytes: usize) -> rusqlite::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(bytes);
    let mut statement = connection.prepare_cached("SELECT data FROM piece WHERE memory = ?1 ORDER BY number")?;
    let mut rows = statement.query([number])?;
    while let Some(row) = rows.next()? {
        data.extend_from_slice(row.get_ref(0)?.as_blob()?);
    }
    // A missing piece must not pass for a shorter memory.
    if data.len() == bytes {
        return Ok(data);
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    let why = format!("{} of the {bytes} bytes of a memory are there", data.len());
    Err(rusqlite::Error::SqliteFailure(code, Some(why)))
}

#[cfg(test)]
mod tests {
    use caxton_control::desired::Durability;

    use super::*;
    use crate::message::{LinePlace, MemoryLine};
    use crate::store::tests::{change, opened, plant, settings};
    use crate::store::{Commit, CommitRequest, Committed, StateChange};
    use tokio::sync::oneshot;

    /// Bytes that differ from piece to piece.
    fn bytes(length: usize, salt: u8) -> Bytes {
        (0..length).map(|at| (at / 1_000) as u8 ^ salt).collect::<Vec<u8>>().into()
    }

    fn of(revision: u64, data: Bytes) -> Arc<Snapshot> {
        Arc::new(Snapshot { revision, saved_at: 1, data })
    }

    fn open(folder: &tempfile::TempDir) -> Arc<Store> {
        opened(folder.path(), &settings(Durability::Fsync)).unwrap()
    }

    /// Numbers of the memories that have pieces, and how many each.
    fn pieces(store: &Store) -> Vec<(i64, i64)> {
        let sql = "SELECT memory, count(*) FROM piece GROUP BY memory ORDER BY memory";
        store
            .with_reader(|connection| connection.prepare(sql)?.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
            .unwrap()
    }

    #[tokio::test]
    async fn a_memory_of_any_size_comes_back_as_it_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let agent: Arc<str> = "counter".into();
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 17] {
            let saved = bytes(length, 3);
            let store = open(&folder);
            store.snapshots().save(Arc::clone(&agent), of(1, saved.clone())).await.unwrap();
            assert_eq!(store.snapshots().get(&agent, 0).unwrap().unwrap().data, saved, "{length}");
            assert_eq!(store.size().unwrap().agents[0].snapshot_bytes, length as u64);
            drop(store);
            let store = open(&folder);
            assert_eq!(store.snapshots().get(&agent, 0).unwrap().unwrap().data, saved, "{length} after a restart");
            let expected = length.div_ceil(PIECE) as i64;
            let kept: Vec<i64> = pieces(&store).iter().map(|(_, count)| *count).collect();
            assert_eq!(kept, if length > PIECE { vec![expected] } else { vec![] }, "{length}: no others are left");
        }
    }

    #[tokio::test]
    async fn memories_that_a_version_before_kept_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let older = Connection::open(folder.path().join("caxton.db")).unwrap();
        // The last format in which a row has all bytes.
        crate::store::sqlite::schema::MIGRATIONS[..6].iter().for_each(|step| older.execute_batch(step).unwrap());
        older.pragma_update(None, "user_version", 6).unwrap();
        older
            .execute_batch(
                "INSERT INTO snapshot VALUES ('own', 4, 9, x'0405', NULL);
                 INSERT INTO snapshot VALUES ('handed', 2, 9, x'', 2);
                 INSERT INTO handoff VALUES ('handed', 2, 9, x'010203');
                 INSERT INTO handoff VALUES ('own', 3, 8, x'03');",
            )
            .unwrap();
        drop(older);
        let store = open(&folder);
        let of = |kept: Result<Option<Snapshot>, String>| kept.unwrap().map(|kept| (kept.revision, kept.data.to_vec()));
        assert_eq!(of(store.snapshots().get("own", 0)), Some((4, vec![4, 5])));
        assert_eq!(of(store.snapshots().get("handed", 0)), Some((2, vec![1, 2, 3])));
        assert_eq!(of(store.snapshots().handed_over("own", 3)), Some((3, vec![3])));
        let sizes: Vec<_> =
            store.size().unwrap().agents.iter().map(|kept| (kept.agent.clone(), kept.snapshot_bytes)).collect();
        assert_eq!(sizes, [("handed".to_owned(), 3), ("own".to_owned(), 2)]);
        store.snapshots().forget_handoffs("handed".into(), vec![2]);
        store.flush().await.unwrap();
        assert_eq!(of(store.snapshots().get("handed", 0)), Some((2, vec![1, 2, 3])));
    }

    #[tokio::test]
    async fn pieces_stay_as_long_as_a_row_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let agent: Arc<str> = "counter".into();
        let memory = || store.snapshots().get(&agent, 0).unwrap().map(|kept| kept.data);
        let large = |salt| bytes(3 * PIECE, salt);
        store.snapshots().keep_handoff(Arc::clone(&agent), of(1, large(1))).await.unwrap();
        // Another name for the same bytes.
        store.snapshots().keep_saved_as_handoff(Arc::clone(&agent), 2).await.unwrap();
        store.snapshots().save(Arc::clone(&agent), of(2, large(2))).await.unwrap();
        store.snapshots().tidy().await.unwrap();
        assert_eq!(pieces(&store), [(1, 3), (2, 3)]);
        assert_eq!(memory(), Some(large(2)));
        store.snapshots().restore_handoff(Arc::clone(&agent), 1).await.unwrap();
        store.snapshots().tidy().await.unwrap();
        assert_eq!((memory(), pieces(&store)), (Some(large(1)), vec![(1, 3)]), "what was replaced is gone");
        store.snapshots().forget_handoffs(Arc::clone(&agent), vec![1]);
        store.flush().await.unwrap();
        store.snapshots().tidy().await.unwrap();
        assert_eq!((memory(), pieces(&store)), (Some(large(1)), vec![(1, 3)]), "the agent's own still names them");
        assert_eq!(store.snapshots().handed_over(&agent, 1), Ok(None));
        assert_eq!(store.snapshots().handed_over(&agent, 2).unwrap().unwrap().data, large(1));
        store.rollouts().keep_ledger(Arc::clone(&agent), None);
        store.snapshots().discard(Arc::clone(&agent)).await.unwrap();
        store.snapshots().tidy().await.unwrap();
        assert_eq!((memory(), pieces(&store)), (None, vec![]));
        assert!(store.check().unwrap().ok);
    }

    #[tokio::test]
    async fn half_written_pieces_are_no_memory_and_are_gone_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let agent: Arc<str> = "counter".into();
        let before = bytes(2 * PIECE, 1);
        store.snapshots().save(Arc::clone(&agent), of(1, before.clone())).await.unwrap();
        // As a host leaves it that is killed in the middle of the next save.
        let placed = store.place(&agent, &bytes(2 * PIECE, 2)).await.unwrap();
        store.flush().await.unwrap();
        store.pieces.untidy();
        store.snapshots().tidy().await.unwrap();
        assert_eq!(pieces(&store), [(1, 2), (2, 2)], "what is being written is not tidied away");
        assert_eq!(store.snapshots().get(&agent, 0).unwrap().unwrap().data, before);
        let defects = store.check().unwrap().defects;
        assert!(defects.iter().all(|defect| defect.code != "memory-not-whole"), "{defects:?}");
        std::mem::forget(placed);
        drop(store);
        let store = open(&folder);
        assert_eq!(pieces(&store), [(1, 2)]);
        assert_eq!(store.snapshots().get(&agent, 0).unwrap().unwrap().data, before);
    }

    #[tokio::test]
    async fn a_save_that_breaks_off_leaves_what_was_kept_before_and_no_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let agent: Arc<str> = "counter".into();
        let before = bytes(2 * PIECE, 1);
        store.snapshots().save(Arc::clone(&agent), of(1, before.clone())).await.unwrap();
        let other = Connection::open(folder.path().join("caxton.db")).unwrap();
        other
            .execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON piece WHEN new.number = 2
                 BEGIN SELECT raise(ABORT, 'no room'); END",
            )
            .unwrap();
        for handed in [false, true] {
            let next = of(2, bytes(4 * PIECE, 2));
            let error = if handed {
                store.snapshots().keep_handoff(Arc::clone(&agent), next).await.unwrap_err()
            } else {
                store.snapshots().save(Arc::clone(&agent), next).await.unwrap_err()
            };
            assert!(error.to_string().contains("no room"), "{error}");
            store.snapshots().tidy().await.unwrap();
            assert_eq!(pieces(&store), [(1, 2)], "handed over: {handed}");
            assert_eq!(store.snapshots().get(&agent, 0).unwrap().unwrap().data, before);
        }
    }

    #[tokio::test]
    async fn a_memory_that_lost_a_piece_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        store.snapshots().save("counter".into(), of(1, bytes(2 * PIECE, 1))).await.unwrap();
        let other = Connection::open(folder.path().join("caxton.db")).unwrap();
        other.execute_batch("DELETE FROM piece WHERE number = 1").unwrap();
        let error = store.snapshots().get("counter", 0).unwrap_err();
        assert_eq!(error, format!("{PIECE} of the {} bytes of a memory are there", 2 * PIECE));
        let defects: Vec<String> = store.check().unwrap().defects.into_iter().map(|defect| defect.code).collect();
        assert!(defects.contains(&"memory-not-whole".to_owned()), "{defects:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn other_commits_come_between_the_pieces_of_a_large_save() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let saving = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.snapshots().save("counter".into(), of(1, bytes(40 * PIECE, 1))).await }
        });
        let mut between = 0;
        while !saving.is_finished() {
            store.flush().await.unwrap();
            let written = pieces(&store).first().map_or(0, |(_, count)| *count);
            between += u32::from((1..40).contains(&written));
        }
        saving.await.unwrap().unwrap();
        assert!(between > 1, "nothing was committed while it was written");
        assert_eq!(store.snapshots().get("counter", 0).unwrap().unwrap().data, bytes(40 * PIECE, 1));
    }

    /// Submits a commit with a memory and a key, which it has read in this version. Returns its result.
    fn submit(
        store: &Store,
        line: &Arc<MemoryLine>,
        (data, seen, breaks): (&'static [u8], Option<u64>, bool),
    ) -> oneshot::Receiver<Result<(), CommitError>> {
        let (sender, receiver) = oneshot::channel();
        let reads: Vec<(&str, u64)> = seen.map(|seen| ("k", seen)).into_iter().collect();
        let mut commit = Commit::new("counter".into());
        commit.state =
            Some(StateChange { version: store.state().next_version(), ..change(&[("k", Some("1"))], &reads) });
        commit.memory = Some(Box::new(Snapshot { revision: 1, saved_at: 1, data: data.into() }));
        let done = Box::new(|committed: Committed| drop(sender.send(committed.result)));
        let place = LinePlace { line: Arc::clone(line), breaks };
        store.submit(CommitRequest::new(commit, Vec::new(), done).in_line(Some(place)));
        receiver
    }

    #[tokio::test]
    async fn commits_that_build_on_a_refused_memory_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let conflict = || Err(CommitError::Conflict("k".to_owned()));
        let (one, other) = (Arc::<MemoryLine>::default(), Arc::<MemoryLine>::default());
        // All of them are on their way before the first is decided on.
        let submitted = [
            (&one, (&b"1"[..], None, true), Ok(())),
            // Its memory goes on without it.
            (&one, (b"2", Some(1_000), false), conflict()),
            (&one, (b"3", None, true), Ok(())),
            (&one, (b"4", Some(1_000), true), conflict()),
            (&one, (b"5", None, true), Err(CommitError::Ahead)),
            (&one, (b"6", None, false), Err(CommitError::Ahead)),
        ]
        .map(|(line, what, expected)| (what, expected, submit(&store, line, what)));
        for (what, expected, result) in submitted {
            assert_eq!(result.await.unwrap(), expected, "{what:?}");
        }
        assert_eq!(&*store.snapshots().get("counter", 0).unwrap().unwrap().data, b"3");
        assert!(one.is_broken() && !other.is_broken());
        assert_eq!(submit(&store, &other, (b"7", None, true)).await.unwrap(), Ok(()));
        assert_eq!(store.size().unwrap().agents[0].snapshot_bytes, 1);
        drop(store);
        assert_eq!(&*open(&folder).snapshots().get("counter", 0).unwrap().unwrap().data, b"7");
    }

    #[tokio::test]
    async fn a_transaction_that_fails_breaks_the_lines_of_its_commits() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let line = Arc::<MemoryLine>::default();
        assert_eq!(submit(&store, &line, (b"1", None, true)).await.unwrap(), Ok(()));
        let full = "CREATE TRIGGER full BEFORE INSERT ON snapshot BEGIN SELECT raise(ABORT, 'no room'); END";
        plant(&store, full).await;
        let results = [(b"2", true), (b"3", true)].map(|(data, breaks)| submit(&store, &line, (data, None, breaks)));
        for result in results {
            // In one transaction, or in two, of which the second is decided on after the first has failed.
            let error = result.await.unwrap().unwrap_err();
            assert!(error == CommitError::Ahead || error.to_string().contains("no room"), "{error}");
        }
        plant(&store, "DROP TRIGGER full").await;
        assert_eq!(submit(&store, &line, (b"4", None, true)).await.unwrap(), Err(CommitError::Ahead));
        assert_eq!(&*store.snapshots().get("counter", 0).unwrap().unwrap().data, b"1");
    }
}
