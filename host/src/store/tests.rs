mod copies;
mod placed;
mod unusable;

use caxton_control::Performative;
use caxton_control::mailbox::Priority;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::api_types::StoreCheck;
use crate::clock;
use crate::conversation::Conversations;
use crate::message::{Deliver, Envelope, Expiry, Message, Outgoing, Value};
use crate::store::turn::Turn;
use rusqlite::Connection;

/// Settings with this durability and the defaults beside.
pub(crate) fn settings(durability: Durability) -> desired::StoreSpec {
    desired::StoreSpec {
        path: String::new(),
        durability,
        history: 100_000,
        history_max_bytes: 1 << 30,
        dead_letters: 100_000,
        dead_letters_max_bytes: 1 << 30,
    }
}

/// A database with the tables of the newest format.
pub(crate) fn database() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    super::schema::MIGRATIONS.iter().for_each(|step| connection.execute_batch(step).unwrap());
    connection
}

/// A message of an id, which is also its conversation's.
pub(crate) fn message(id: &str, sender: &str, receiver: &str) -> Envelope {
    let message = Message {
        id: id.to_owned(),
        performative: Performative::Inform,
        sender: sender.to_owned(),
        receiver: receiver.to_owned(),
        content: Vec::new(),
        content_type: String::new(),
        ontology: None,
        protocol: None,
        conversation_id: id.to_owned(),
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        priority: Priority::Normal,
        sent_at: 1,
        attempt: 1,
        headers: Vec::new(),
    };
    Envelope::new(message)
}

/// A mailbox that takes everything and keeps nothing.
pub(crate) struct Anywhere;

impl Deliver for Anywhere {
    fn put(&self, _: Box<Envelope>) -> bool {
        false
    }
    fn work(self: Arc<Self>) {}
    fn reserve_beyond(&self) {}
    fn release(&self) {}
    fn other(&self, _: &str) -> Option<Arc<dyn Deliver>> {
        None
    }
}

/// Commits a message that is sent, and gives it as it is kept.
pub(crate) async fn kept(store: &Store, envelope: Envelope) -> Envelope {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = Box::new(|committed: Committed| sender.send(committed.sends[0].envelope().seq).unwrap());
    let sent = Outgoing::new(Arc::new(Anywhere), Box::new(envelope));
    store.submit(CommitRequest::new(Commit::new("".into()), vec![sent], done));
    let seq = receiver.await.unwrap().expect("it has a sequence number");
    store.queue().message(seq).unwrap().expect("it is kept")
}

/// Changes the database beside all order and all records.
pub(crate) async fn plant(store: &Store, sql: &'static str) {
    // Else what was asked for before would come after it.
    store.flush().await.unwrap();
    let other = Connection::open(&*store.database).unwrap();
    other.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    other.execute_batch(sql).unwrap();
}

/// Returns the names of the open and of the ended conversations in the database, after a flush.
pub(crate) async fn conversation_names(store: &Store) -> (Vec<String>, Vec<String>) {
    store.flush().await.unwrap();
    store
        .with_reader(|connection| {
            let names = |ended: &str| -> rusqlite::Result<Vec<String>> {
                let sql = format!("SELECT name FROM conversation WHERE ended IS {ended} NULL ORDER BY name");
                connection.prepare(&sql)?.query_map([], |row| row.get(0))?.collect()
            };
            Ok((names("")?, names("NOT")?))
        })
        .unwrap()
}

/// Ends conversations as the host does.
pub(crate) async fn end_conversations(store: &Store, expired: Vec<EndedConversation>) {
    for ended in expired {
        let write = store.change(Turn::AfterAll, (ended, false), |(ended, keeps_name), reader, _, record| {
            *keeps_name = tables::conversations::keeps_name(reader, ended)?;
            tables::conversations::push_end(record, ended, *keeps_name, 7);
            Ok(())
        });
        write.await.unwrap();
    }
}

/// Opens a store with the real judge of commits.
pub(crate) fn opened(folder: &Path, settings: &desired::StoreSpec) -> Result<Arc<Store>, StoreError> {
    Store::open(folder, settings, Conversations::load).map(|(store, _)| store)
}

pub(super) fn open(folder: &tempfile::TempDir, durability: Durability) -> Arc<Store> {
    opened(folder.path(), &settings(durability)).unwrap()
}

pub(super) fn change(writes: &[(&str, Option<&str>)], reads: &[(&str, u64)]) -> StateChange {
    StateChange {
        reads: reads.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
        writes: writes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.map(|v| Value::lasting(v.to_owned().into()))))
            .collect::<BTreeMap<_, _>>(),
        expired: Vec::new(),
        adds: BTreeMap::new(),
        version: 0,
        quota: 1 << 20,
    }
}

/// Commits a change of `counter`'s state, and waits. Returns the size of the state.
pub(super) async fn commit(store: &Store, mut change: StateChange) -> Result<Option<u64>, CommitError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    change.version = store.state().next_version();
    let done = Box::new(|committed: Committed| drop(sender.send(committed.result.map(|()| committed.state_bytes))));
    let mut commit = Commit::new("counter".into());
    commit.state = Some(change);
    store.submit(CommitRequest::new(commit, Vec::new(), done));
    receiver.await.unwrap()
}

#[tokio::test]
async fn what_is_committed_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    let first = change(&[("a", Some("1")), ("b", Some("22"))], &[]);
    assert_eq!(commit(&store, first).await, Ok(Some(5)), "two keys and three bytes");
    commit(&store, change(&[("b", None)], &[])).await.unwrap();
    drop(store);
    let store = open(&folder, Durability::Fsync);
    assert_eq!(store.state().read("counter", "a").unwrap().unwrap().value, b"1");
    assert_eq!(store.state().read("counter", "b").unwrap(), None);
    assert_eq!(store.state().bytes("counter").unwrap(), 2);
}

#[tokio::test]
async fn a_log_that_is_emptied_leaves_all_in_the_database_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
    let log = folder.path().join(format!("{DATABASE}-wal"));
    assert!(fs::metadata(&log).unwrap().len() > 0);
    // A thread that has read before holds a connection.
    assert!(store.state().read("counter", "a").unwrap().is_some());
    store.empty_log().await.unwrap();
    assert_eq!(fs::metadata(&log).unwrap().len(), 0);
    let copy = folder.path().join("copy.db");
    fs::copy(folder.path().join(DATABASE), &copy).unwrap();
    let found = Connection::open(copy).unwrap().query_row("SELECT value FROM state", [], |row| row.get(0));
    assert_eq!(found, Ok(b"1".to_vec()));
    commit(&store, change(&[("a", Some("2"))], &[])).await.unwrap();
    assert_eq!(store.state().read("counter", "a").unwrap().unwrap().value, b"2", "it goes on");
}

#[tokio::test]
async fn a_log_is_emptied_also_while_it_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    let log = folder.path().join(format!("{DATABASE}-wal"));
    let value = "x".repeat(100_000);
    // A copy begins some milliseconds after a commit; SQLite refuses to empty a log that is copied.
    for turn in 0..300 {
        commit(&store, change(&[("a", Some(&value))], &[])).await.unwrap();
        store.empty_log().await.unwrap_or_else(|error| panic!("{error}, {turn}"));
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
    }
}

#[tokio::test]
async fn what_is_added_is_added_to_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    let add = |key: &str, by, sum| {
        let adds = [(key.to_owned(), Add { by, sum })].into();
        StateChange { adds, ..change(&[], &[]) }
    };
    let kept = || store.state().read("counter", "n").unwrap().unwrap();
    commit(&store, add("n", 40, 40)).await.unwrap();
    commit(&store, add("n", 2, 42)).await.unwrap();
    let (first, bytes) = (kept(), store.state().bytes("counter").unwrap());
    assert_eq!((first.value.as_slice(), bytes), (b"42".as_slice(), 3));
    // Foretold from a commit that was refused: who read that sum is in conflict.
    let foretold = first.version + 1;
    commit(&store, add("n", -50, 7)).await.unwrap();
    assert_eq!((kept().value.as_slice(), kept().version), (b"-8".as_slice(), foretold + 1));
    let misled = commit(&store, change(&[("m", Some("1"))], &[("n", foretold)])).await;
    assert!(matches!(&misled, Err(CommitError::Conflict(key)) if key == "n"), "{misled:?}");
    commit(&store, change(&[("n", Some("x"))], &[])).await.unwrap();
    let none = commit(&store, add("n", 1, 1)).await;
    assert!(matches!(&none, Err(CommitError::NotANumber(key)) if key == "n"), "{none:?}");
}

#[tokio::test]
async fn a_commit_that_read_what_has_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    commit(&store, change(&[("n", Some("1"))], &[("n", 0)])).await.unwrap();
    let seen = store.state().read("counter", "n").unwrap().unwrap().version;
    commit(&store, change(&[("n", Some("2"))], &[("n", seen)])).await.unwrap();
    let late = commit(&store, change(&[("n", Some("9"))], &[("n", seen)])).await;
    assert!(matches!(&late, Err(CommitError::Conflict(key)) if key == "n"), "{late:?}");
    let blind = commit(&store, change(&[("m", Some("9"))], &[("n", 0)])).await;
    assert!(matches!(&blind, Err(CommitError::Conflict(_))), "{blind:?}");
    assert_eq!(store.state().read("counter", "n").unwrap().unwrap().value, b"2");
}

#[tokio::test]
async fn keys_come_in_order_a_page_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    let keys = ["a%", "a/1", "a/2", "a/3", "b", "é", "a\u{10ffff}"];
    commit(&store, change(&keys.map(|key| (key, Some("x"))), &[])).await.unwrap();
    let page = |prefix, after, limit| store.state().keys("counter", prefix, after, limit).unwrap();
    assert_eq!(page("a/", None, 2), ["a/1", "a/2"]);
    assert_eq!(page("a/", Some("a/2"), 2), ["a/3"]);
    assert_eq!(page("a", None, 10), ["a%", "a/1", "a/2", "a/3", "a\u{10ffff}"]);
    assert_eq!(page("", None, 10).len(), 7);
    assert_eq!(page("zzz", None, 10).len(), 0);
}

/// A change that gives keys a time to live: so many milliseconds from now, less than none for one that is over.
pub(super) fn expiring(writes: &[(&str, i64)], reads: &[(&str, u64)]) -> StateChange {
    let value = |ms: i64| {
        let at = clock::now_ms().saturating_add_signed(ms);
        Value { bytes: "1".into(), expiry: Some(Expiry { at, given: None }) }
    };
    let writes = writes.iter().map(|(key, ms)| ((*key).to_owned(), Some(value(*ms)))).collect();
    StateChange { writes, ..change(&[], reads) }
}

pub(super) const HOUR: i64 = 3_600_000;

#[tokio::test]
async fn a_key_whose_time_is_over_is_read_by_nobody_and_then_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    commit(&store, expiring(&[("a", HOUR), ("b", -1), ("c", -1)], &[])).await.unwrap();
    commit(&store, change(&[("d", Some("1"))], &[])).await.unwrap();
    let is_there = |store: &Store, key: &str| store.state().read("counter", key).unwrap().is_some();
    assert_eq!(["a", "b", "c", "d"].map(|key| is_there(&store, key)), [true, false, false, true]);
    assert_eq!(store.state().keys("counter", "", None, 9).unwrap(), ["a", "d"]);
    assert_eq!(store.state().keys("counter", "", None, 1).unwrap(), ["a"], "a page is full of what is there");
    assert_eq!(store.state().bytes("counter").unwrap(), 8, "until they are removed they take room");
    let entries = store.state().entries("counter", "", None, 9).unwrap();
    assert_eq!(entries[0].expires_at, store.state().read("counter", "a").unwrap().unwrap().expires_at);
    assert!(entries[0].expires_at.is_some() && entries[1].expires_at.is_none());
    // Kept over a restart.
    drop(store);
    let store = open(&folder, Durability::Os);
    assert_eq!(["a", "b", "c", "d"].map(|key| is_there(&store, key)), [true, false, false, true]);
    let now = clock::now_ms();
    let agent: Arc<str> = "counter".into();
    assert_eq!(
        store.state().expired(now, 1).unwrap().into_values().map(|keys| keys.len()).sum::<usize>(),
        1,
        "it is bounded"
    );
    let found = store.state().expired(now, 9).unwrap();
    assert_eq!(found[&agent].len(), 2);
    // One is written meanwhile, and stays.
    commit(&store, change(&[("c", Some("22"))], &[("c", 0)])).await.unwrap();
    let bytes = Arc::new(AtomicU64::new(0));
    store.state().remove_expired(Arc::clone(&agent), found[&agent].clone(), Arc::clone(&bytes)).await.unwrap();
    assert_eq!(["a", "b", "c", "d"].map(|key| is_there(&store, key)), [true, false, true, true]);
    assert_eq!((store.state().bytes("counter").unwrap(), bytes.load(Ordering::Relaxed)), (7, 7));
    assert!(store.state().expired(now, 9).unwrap().is_empty());
    assert!(store.check().unwrap().ok);
}

#[tokio::test]
async fn a_key_that_expires_before_the_commit_counts_as_it_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    // Seen in time, and over by now: as if it had been committed then.
    commit(&store, expiring(&[("a", -1)], &[])).await.unwrap();
    let seen = store.version.load(Ordering::SeqCst);
    commit(&store, change(&[("other", Some("1"))], &[("a", seen)])).await.unwrap();
    // Seen as gone, and not written since.
    commit(&store, change(&[("other", Some("2"))], &[("a", 0)])).await.unwrap();
    // Whoever saw it in time and whoever saw it gone do not both write it.
    commit(&store, change(&[("a", Some("new"))], &[("a", 0)])).await.unwrap();
    let late = commit(&store, change(&[("a", Some("late"))], &[("a", seen)])).await;
    assert_eq!(late, Err(CommitError::Conflict("a".to_owned())));
    let gone = commit(&store, change(&[("other", Some("3"))], &[("a", 0)])).await;
    assert_eq!(gone, Err(CommitError::Conflict("a".to_owned())));
    assert_eq!(store.state().read("counter", "a").unwrap().unwrap().value, b"new");
    // One that is there is not taken for one that is gone.
    commit(&store, expiring(&[("b", HOUR)], &[])).await.unwrap();
    let blind = commit(&store, change(&[("other", Some("4"))], &[("b", 0)])).await;
    assert_eq!(blind, Err(CommitError::Conflict("b".to_owned())));
}

#[tokio::test]
async fn keys_of_the_format_before_times_to_live_stay() {
    let folder = tempfile::tempdir().unwrap();
    let older = Connection::open(folder.path().join(DATABASE)).unwrap();
    let before = super::schema::MIGRATIONS.iter().position(|step| step.contains("expires_at")).unwrap();
    super::schema::MIGRATIONS[..before].iter().for_each(|step| older.execute_batch(step).unwrap());
    older.pragma_update(None, "user_version", i64::try_from(before).unwrap()).unwrap();
    older
        .execute_batch(
            "INSERT INTO state VALUES ('counter', 'a', x'31', 7);
             INSERT INTO state_size VALUES ('counter', 2);
             UPDATE meta SET value = 7 WHERE key = 'version';",
        )
        .unwrap();
    drop(older);
    let store = open(&folder, Durability::Os);
    let found = store.state().read("counter", "a").unwrap().unwrap();
    assert_eq!((&*found.value, found.version, found.expires_at), (&b"1"[..], 7, None));
    commit(&store, expiring(&[("a", HOUR)], &[("a", 7)])).await.unwrap();
    assert!(store.state().read("counter", "a").unwrap().unwrap().expires_at.is_some());
    assert!(store.check().unwrap().ok);
}

#[tokio::test]
async fn events_are_told_once_kept_and_read_a_page_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    let mut follow = store.events().follow();
    for number in 0..5 {
        let agent = if number == 2 { None } else { Some("echo".to_owned()) };
        let data = serde_json::json!({ "number": number });
        store.events().keep(Event { id: 0, at: 1, agent, kind: "test".to_owned(), data });
    }
    let received: Vec<i64> = {
        let mut received = Vec::new();
        for _ in 0..5 {
            received.push(follow.recv().await.unwrap().id);
        }
        received
    };
    assert_eq!(received, [1, 2, 3, 4, 5], "each is committed when it is told, with its id");
    let ids = |agent: Option<&str>, after, limit| -> Vec<i64> {
        let filter = EventFilter { agent: agent.map(str::to_owned), after, limit };
        store.events().list(&filter).unwrap().iter().map(|event| event.id).collect()
    };
    assert_eq!(ids(None, 0, 2), [4, 5], "the newest");
    assert_eq!(ids(None, 1, 2), [2, 3], "the next");
    assert_eq!(ids(Some("echo"), 1, 10), [2, 4, 5]);
}

#[tokio::test]
async fn memory_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Memory);
    commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
    assert!(store.state().read("counter", "a").unwrap().is_some());
    drop(store);
    let store = open(&folder, Durability::Memory);
    assert!(store.state().read("counter", "a").unwrap().is_none());
}
