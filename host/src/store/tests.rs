use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Settings with this durability and the defaults beside.
pub(crate) fn settings(durability: Durability) -> desired::Store {
    desired::Store { path: String::new(), durability, history: 100_000, dead_letters: 100_000 }
}

fn open(folder: &tempfile::TempDir, durability: Durability) -> Arc<Store> {
    Store::open(folder.path(), &settings(durability)).unwrap()
}

fn change(writes: &[(&str, Option<&str>)], reads: &[(&str, u64)]) -> StateChange {
    StateChange {
        reads: reads.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect::<HashMap<_, _>>(),
        writes: writes
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.map(|v| v.to_owned().into())))
            .collect::<BTreeMap<_, _>>(),
        version: 0,
        bytes: Arc::new(AtomicU64::new(0)),
        size: None,
        quota: 1 << 20,
    }
}

/// Commits a change of `counter`'s state, and waits.
async fn commit(store: &Store, mut change: StateChange) -> Result<(), CommitError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    change.version = store.next_version();
    let done = Box::new(|committed: Committed| drop(sender.send(committed.result)));
    let mut commit = Commit::new("counter".into(), done);
    commit.state = Some(change);
    store.submit(commit);
    receiver.await.unwrap()
}

#[tokio::test]
async fn what_is_committed_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    let first = change(&[("a", Some("1")), ("b", Some("22"))], &[]);
    let bytes = Arc::clone(&first.bytes);
    commit(&store, first).await.unwrap();
    assert_eq!(bytes.load(Ordering::Relaxed), 5, "two keys and three bytes");
    commit(&store, change(&[("b", None)], &[])).await.unwrap();
    drop(store);
    let store = open(&folder, Durability::Fsync);
    assert_eq!(store.read("counter", "a").unwrap().unwrap().value, b"1");
    assert_eq!(store.read("counter", "b").unwrap(), None);
    assert_eq!(store.state_bytes("counter").unwrap(), 2);
}

#[tokio::test]
async fn a_commit_that_read_what_has_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    commit(&store, change(&[("n", Some("1"))], &[("n", 0)])).await.unwrap();
    let seen = store.read("counter", "n").unwrap().unwrap().version;
    commit(&store, change(&[("n", Some("2"))], &[("n", seen)])).await.unwrap();
    let late = commit(&store, change(&[("n", Some("9"))], &[("n", seen)])).await;
    assert!(matches!(late, Err(CommitError::Conflict)), "{late:?}");
    let blind = commit(&store, change(&[("m", Some("9"))], &[("n", 0)])).await;
    assert!(matches!(blind, Err(CommitError::Conflict)), "{blind:?}");
    assert_eq!(store.read("counter", "n").unwrap().unwrap().value, b"2");
}

#[tokio::test]
async fn keys_come_in_order_a_page_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    let keys = ["a%", "a/1", "a/2", "a/3", "b", "é", "a\u{10ffff}"];
    commit(&store, change(&keys.map(|key| (key, Some("x"))), &[])).await.unwrap();
    let page = |prefix, after, limit| store.keys("counter", prefix, after, limit).unwrap();
    assert_eq!(page("a/", None, 2), ["a/1", "a/2"]);
    assert_eq!(page("a/", Some("a/2"), 2), ["a/3"]);
    assert_eq!(page("a", None, 10), ["a%", "a/1", "a/2", "a/3", "a\u{10ffff}"]);
    assert_eq!(page("", None, 10).len(), 7);
    assert_eq!(page("zzz", None, 10).len(), 0);
}

#[test]
fn a_second_host_is_refused_and_told_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(&folder, Durability::Os);
    let text = Store::open(folder.path(), &settings(Durability::Os)).err().unwrap().to_string();
    assert_eq!(
        text,
        format!(
            "the data folder {} is in use by another host (process {}); stop that one, or choose another folder with `--data DIR`",
            folder.path().display(),
            std::process::id()
        )
    );
}

#[test]
fn a_store_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder, Durability::Os));
    let database = folder.path().join(DATABASE);
    Connection::open(&database).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let text = Store::open(folder.path(), &settings(Durability::Os)).err().unwrap().to_string();
    assert!(text.contains("has format 99, made by a newer version; this one knows formats up to 2"), "{text}");
}

#[tokio::test]
async fn events_are_told_once_kept_and_read_a_page_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    let mut follow = store.follow_events();
    for number in 0..5 {
        let agent = if number == 2 { None } else { Some("echo".to_owned()) };
        let data = serde_json::json!({ "number": number });
        store.keep_event(Event { id: 0, at: 1, agent, kind: "test".to_owned(), data });
    }
    let told: Vec<i64> = {
        let mut told = Vec::new();
        for _ in 0..5 {
            told.push(follow.recv().await.unwrap().id);
        }
        told
    };
    assert_eq!(told, [1, 2, 3, 4, 5], "each is committed when it is told, with its id");
    let ids = |agent: Option<&str>, after, limit| -> Vec<i64> {
        let filter = EventFilter { agent: agent.map(str::to_owned), after, limit };
        store.events(&filter).unwrap().iter().map(|event| event.id).collect()
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
    assert!(store.read("counter", "a").unwrap().is_some());
    drop(store);
    let store = open(&folder, Durability::Memory);
    assert!(store.read("counter", "a").unwrap().is_none());
}
