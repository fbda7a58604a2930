//! Contents of large commits, written in pieces before them.

use super::*;
use crate::message::TimerName;
use crate::store::placed::PIECE;
use crate::store::{DeadFilter, DeadLetter, Handled, StateChange};
use tokio::sync::oneshot;

/// Bytes that differ from piece to piece.
fn bytes(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|at| (at / 1_000) as u8 ^ salt).collect()
}

fn large(id: &str, length: usize) -> Envelope {
    let mut envelope = super::message(id, "hog", "desk");
    envelope.message.content = bytes(length, 7);
    envelope
}

async fn commit(store: &Store, commit: Commit, sends: Vec<Envelope>) -> Committed {
    let (sender, receiver) = oneshot::channel();
    let sends = sends.into_iter().map(|sent| Outgoing::new(Arc::new(Anywhere), Box::new(sent))).collect();
    let done = Box::new(move |committed| drop(sender.send(committed)));
    store.submit(CommitRequest::new(commit, sends, done));
    receiver.await.unwrap_or_else(|_| panic!("the writer ended"))
}

fn count(store: &Store, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.with_reader(|connection| connection.query_row(&sql, [], |row| row.get(0))).unwrap()
}

fn writing(key: &str, value: Vec<u8>, version: u64) -> StateChange {
    let writes = BTreeMap::from([(key.to_owned(), Some(Value::lasting(value.into())))]);
    StateChange { writes, version, ..change(&[], &[]) }
}

/// Removes what no row names, of which nothing but these pieces stays.
async fn removed_but(store: &Store, pieces: i64) {
    store.remove_unplaced().await.unwrap();
    assert_eq!((count(store, "content_piece"), count(store, "unplaced")), (pieces, 0));
}

#[tokio::test]
async fn contents_of_any_size_come_back_as_they_were_sent() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [0, 1, 1_023, 1_024, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 17];
    let store = opened(folder.path(), &settings(Durability::Fsync)).unwrap();
    let sends: Vec<Envelope> = lengths.iter().map(|length| large(&format!("m-{length}"), *length)).collect();
    let committed = commit(&store, Commit::new("hog".into()), sends).await;
    committed.result.unwrap();
    let mut seqs = Vec::new();
    for (sent, length) in committed.sends.iter().zip(lengths) {
        assert_eq!(sent.envelope().message.content, bytes(length, 7), "as it is delivered: {length}");
        seqs.push(sent.envelope().seq.unwrap());
    }
    assert!(count(&store, "content_piece") > 0 && count(&store, "unplaced") == 0);
    drop(store);
    let store = opened(folder.path(), &settings(Durability::Fsync)).unwrap();
    for (seq, length) in seqs.iter().zip(lengths) {
        let found = store.queue().message(*seq).unwrap().unwrap();
        assert_eq!(found.message.content, bytes(length, 7), "{length} after a restart");
    }
    assert_eq!(store.check().unwrap(), StoreCheck { ok: true, defects: Vec::new() });
}

#[tokio::test]
async fn values_timers_and_dead_letters_come_back_and_leave() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
    let length = 3 * PIECE;
    let mut first = Commit::new("hog".into());
    first.state = Some(writing("key", bytes(length, 1), store.state().next_version()));
    let mut timer = large("timer", length);
    (timer.waits, timer.due) = (true, Some(clock::steady_ms() + 1_000_000));
    commit(&store, first, vec![timer, large("waits", length)]).await.result.unwrap();
    let value = |store: &Store| store.state().read("hog", "key").unwrap().unwrap().value;
    assert_eq!(value(&store), bytes(length, 1));
    assert_eq!(store.state().value_bytes("hog", "key").unwrap(), Some(length as u64));
    assert_eq!(store.state().bytes("hog").unwrap(), (length + 3) as u64);

    let waiting = store.queue().message(2).unwrap().unwrap();
    let error = "it is given up".to_owned();
    let mut gives_up = Commit::new("desk".into());
    gives_up.dead = Some(Box::new(DeadLetter { envelope: Box::new(waiting), reason: "trap", error, at: 1 }));
    let committed = commit(&store, gives_up, Vec::new()).await;
    committed.result.unwrap();
    assert_eq!(committed.dead.unwrap().envelope.message.content, bytes(length, 7));
    let dead = store.dead_letters().get(2).unwrap().unwrap();
    assert_eq!((dead.content, dead.dead.bytes), (bytes(length, 7), length as u64));
    assert_eq!(store.dead_letters().counts(&DeadFilter::default()).unwrap()[0].bytes, length as u64);

    // Quotas count what is replaced.
    let mut second = Commit::new("hog".into());
    second.state = Some(writing("key", bytes(length, 2), store.state().next_version()));
    assert_eq!(commit(&store, second, Vec::new()).await.state_bytes, Some((length + 3) as u64));
    assert_eq!((value(&store), count(&store, "unplaced")), (bytes(length, 2), 1));
    store.remove_unplaced().await.unwrap();
    assert_eq!(store.check().unwrap(), StoreCheck { ok: true, defects: Vec::new() });

    let fired = store.timers().fire("desk".into(), u64::MAX / 2, 9).await.unwrap();
    assert_eq!(fired[0].message.content, bytes(length, 7));
    store.dead_letters().forget(DeadFilter::default()).await.unwrap();
    let mut third = Commit::new("hog".into());
    third.state = Some(writing("key", bytes(1, 3), store.state().next_version()));
    let seq = fired[0].seq.unwrap();
    third.handled = Some(Handled { seq, revision: 1, runs: 1, bytes: length as u64 });
    commit(&store, third, Vec::new()).await.result.unwrap();
    assert_eq!(value(&store), bytes(1, 3));
    // The message that became a dead letter is kept by the history.
    assert_eq!(count(&store, "message"), 2);
    assert_eq!(count(&store, "message WHERE placed IS NOT NULL"), 1);
    store.remove_unplaced().await.unwrap();
    assert_eq!(count(&store, "content_piece"), 3);
}

#[tokio::test]
async fn of_a_commit_that_is_refused_no_content_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
    let mut refused = Commit::new("hog".into());
    let quota = 100;
    refused.state = Some(StateChange { quota, ..writing("key", bytes(PIECE, 1), store.state().next_version()) });
    let committed = commit(&store, refused, vec![large("m", 2 * PIECE)]).await;
    assert_eq!(committed.result, Err(CommitError::Quota(quota)));
    assert_eq!(committed.sends[0].envelope().message.content, bytes(2 * PIECE, 7));
    assert_eq!((count(&store, "content_piece"), count(&store, "message")), (3, 0));
    removed_but(&store, 0).await;
}

#[tokio::test]
async fn a_commit_is_refused_if_a_piece_of_it_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
    let other = Connection::open(folder.path().join(DATABASE)).unwrap();
    other
        .execute_batch("CREATE TRIGGER breaks BEFORE INSERT ON content_piece WHEN new.number = 0 BEGIN SELECT raise(ABORT, 'no'); END")
        .unwrap();
    let committed = commit(&store, Commit::new("hog".into()), vec![large("m", 9 * PIECE)]).await;
    assert!(matches!(committed.result, Err(CommitError::Store(_))), "{:?}", committed.result);
    assert_eq!(committed.sends[0].envelope().message.content, bytes(9 * PIECE, 7));
    other.execute_batch("DROP TRIGGER breaks").unwrap();
    commit(&store, Commit::new("hog".into()), vec![large("m", 9 * PIECE)]).await.result.unwrap();
    assert_eq!((count(&store, "content_piece"), count(&store, "message")), (9, 1), "later pieces were not written");
    removed_but(&store, 9).await;
}

#[tokio::test]
async fn what_a_killed_host_has_left_is_removed_and_its_numbers_are_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    drop(opened(folder.path(), &settings(Durability::Os)).unwrap());
    let other = Connection::open(folder.path().join(DATABASE)).unwrap();
    other
        .execute_batch(
            "INSERT INTO content_piece VALUES (41, 0, x'01'), (41, 1, x'02'); INSERT INTO unplaced VALUES (41)",
        )
        .unwrap();
    drop(other);
    let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
    commit(&store, Commit::new("hog".into()), vec![large("m", 2 * PIECE)]).await.result.unwrap();
    removed_but(&store, 2).await;
    assert_eq!(store.queue().message(1).unwrap().unwrap().message.content, bytes(2 * PIECE, 7));
    assert_eq!(store.timers().get("hog", &TimerName::Id("none".to_owned())), Ok(None));
}
