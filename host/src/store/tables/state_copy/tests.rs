use std::sync::atomic::Ordering;

use caxton_control::desired::Durability;

use super::*;
use crate::store::Store;
use crate::store::sqlite::schema::MIGRATIONS;
use crate::store::tests::{HOUR, change, commit, expiring, open, opened, settings};
use crate::store::{DATABASE, OfflineStore, StateChange, restore};
use rusqlite::Connection;

fn counter() -> Arc<str> {
    "counter".into()
}

/// The keys of an agent with their values.
fn state(store: &Store) -> Vec<(String, String)> {
    let keys = store.state().keys("counter", "", None, 99).unwrap();
    let value = |key: &str| String::from_utf8(store.state().read("counter", key).unwrap().unwrap().value).unwrap();
    keys.into_iter().map(|key| (key.clone(), value(&key))).collect()
}

fn pairs(keys: &[(&str, &str)]) -> Vec<(String, String)> {
    keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A copy for the rollout 8.
fn copy(revision: u64, holds: Vec<u32>, unfinished: bool) -> KeepState {
    KeepState { revision, holds, rollout: 8, unfinished }
}

/// Restores the state; gives the keys and the size as the agent is told it.
async fn put_back(store: &Store, revision: u64, keep: Option<(u64, Vec<u32>)>) -> Result<(u64, u64), CommitError> {
    let bytes = Arc::new(AtomicU64::new(u64::MAX));
    let keep = keep.map(|(revision, holds)| copy(revision, holds, false));
    let restored = store.state().restore(counter(), revision, keep, Arc::clone(&bytes)).await?;
    Ok((restored.keys, bytes.load(Ordering::Relaxed)))
}

/// Changes that are made one after another.
type Changes = Vec<StateChange>;

#[tokio::test]
async fn keys_that_are_written_or_removed_after_a_copy_are_counted() {
    let cases: [(&str, Changes, u64); 8] = [
        ("nothing", vec![], 0),
        ("one is changed", vec![change(&[("a", Some("2"))], &[])], 1),
        ("one is changed twice", vec![change(&[("a", Some("2"))], &[]), change(&[("a", Some("3"))], &[])], 1),
        ("one is new, one is removed", vec![change(&[("n", Some("1")), ("b", None)], &[])], 2),
        ("a new one is removed again", vec![change(&[("n", Some("1"))], &[]), change(&[("n", None)], &[])], 0),
        ("the time of a new one is over", vec![expiring(&[("n", -1)], &[])], 0),
        ("a new one has time", vec![expiring(&[("n", HOUR)], &[])], 1),
        ("the time of one that had none is over", vec![expiring(&[("a", -1)], &[])], 1),
    ];
    for (what, changes, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, Durability::Os);
        commit(&store, change(&[("a", Some("1")), ("b", Some("22"))], &[])).await.unwrap();
        store.state().copy(counter(), copy(3, vec![1], false)).await.unwrap();
        for change in changes {
            commit(&store, change).await.unwrap();
        }
        assert_eq!(store.state().written_since("counter", 3).unwrap(), expected, "{what}");
        drop(store);
        let store = open(&folder, Durability::Os);
        assert_eq!(store.state().written_since("counter", 3).unwrap(), expected, "{what}, after a restart");
        assert_eq!(store.state().written_since("counter", 4).unwrap(), 0, "there is no such copy");
        assert_eq!(store.check().unwrap().defects, [], "{what}");
    }
}

#[tokio::test]
async fn a_state_is_restored_with_new_versions_and_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    let other: Arc<str> = "other".into();
    commit(&store, change(&[("a", Some("1")), ("b", Some("22"))], &[])).await.unwrap();
    let seen = store.state().read("counter", "a").unwrap().unwrap().version;
    let kept = store.state().copy(counter(), copy(1, vec![1, 2], false)).await.unwrap();
    let expected =
        StateCopy { revision: 1, holds: vec![1, 2], at: kept.at, keys: 2, bytes: 5, unfinished: false, rollout: 8 };
    assert_eq!((&kept, store.state().copies("counter").unwrap()), (&expected, vec![expected.clone()]));
    commit(&store, change(&[("a", Some("333")), ("b", None), ("c", Some("4"))], &[])).await.unwrap();
    let newer = store.state().read("counter", "a").unwrap().unwrap().version;
    assert_eq!(put_back(&store, 1, Some((2, vec![3]))).await, Ok((2, 5)));
    assert_eq!(state(&store), pairs(&[("a", "1"), ("b", "22")]));
    // Whoever read before it is told so: of a key that is as it was, that was removed, that was not there.
    for (key, seen) in [("a", seen), ("a", newer), ("c", newer), ("b", 0)] {
        let late = commit(&store, change(&[("late", Some("1"))], &[(key, seen)])).await;
        assert_eq!(late, Err(CommitError::Conflict(key.to_owned())), "{key}@{seen}");
    }
    let written = |revision| store.state().written_since("counter", revision).unwrap();
    assert_eq!((written(1), written(2)), (0, 0), "nobody wrote what was restored");
    let now = store.state().read("counter", "a").unwrap().unwrap().version;
    let within = StateChange { quota: 6, ..change(&[("a", Some("11"))], &[("a", now)]) };
    commit(&store, within).await.unwrap();
    let beyond = StateChange { quota: 6, ..change(&[("a", Some("111"))], &[]) };
    assert_eq!(commit(&store, beyond).await, Err(CommitError::Quota(6)));
    assert_eq!((written(1), written(2), store.state().bytes("counter").unwrap()), (1, 1, 6));
    // There and back, and over a restart.
    assert_eq!(put_back(&store, 2, Some((1, vec![1]))).await, Ok((2, 6)));
    assert_eq!(state(&store), pairs(&[("a", "333"), ("c", "4")]));
    drop(store);
    let store = open(&folder, Durability::Fsync);
    assert_eq!(state(&store), pairs(&[("a", "333"), ("c", "4")]));
    assert_eq!(put_back(&store, 1, None).await, Ok((2, 6)));
    assert_eq!(state(&store), pairs(&[("a", "11"), ("b", "22")]));
    let copies: Vec<_> = store.state().copies("counter").unwrap().iter().map(|c| (c.revision, c.bytes)).collect();
    assert_eq!((copies, store.state().copies(&other).unwrap()), (vec![(1, 6), (2, 6)], vec![]));
    assert_eq!(store.size().unwrap().agents[0].state_copy_bytes, 12);
    assert_eq!(store.check().unwrap().defects, []);
}

#[tokio::test]
async fn what_a_migration_wrote_is_not_written_since() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    commit(&store, change(&[("a", Some("1")), ("b", Some("1")), ("c", Some("1"))], &[])).await.unwrap();
    let kept = store.state().copy(counter(), copy(4, vec![1], true)).await.unwrap();
    store.state().copy("done".into(), copy(1, vec![], false)).await.unwrap();
    commit(&store, change(&[("a", Some("2")), ("b", None), ("d", Some("2"))], &[])).await.unwrap();
    drop(store);
    // A host that was killed meanwhile finds what to go back to.
    let store = open(&folder, Durability::Fsync);
    assert_eq!(store.state().unfinished_copies().unwrap(), [("counter".to_owned(), kept)]);
    store.state().finish_copy(counter(), 4).await.unwrap();
    assert_eq!(store.state().unfinished_copies().unwrap(), []);
    assert_eq!(store.state().written_since("counter", 4).unwrap(), 0);
    commit(&store, change(&[("d", Some("3")), ("e", Some("1"))], &[])).await.unwrap();
    assert_eq!(store.state().written_since("counter", 4).unwrap(), 2);
    // A migration that broke off leaves nothing.
    store.state().copy(counter(), copy(4, vec![1], true)).await.unwrap();
    commit(&store, change(&[("a", Some("9")), ("c", None)], &[])).await.unwrap();
    assert_eq!(put_back(&store, 4, None).await, Ok((4, 8)));
    assert_eq!(state(&store), pairs(&[("a", "2"), ("c", "1"), ("d", "3"), ("e", "1")]));
    assert_eq!(
        (store.state().unfinished_copies().unwrap(), store.state().written_since("counter", 4)),
        (vec![], Ok(0))
    );
}

#[tokio::test]
async fn keys_that_expire_meanwhile_stay_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    commit(&store, expiring(&[("over", -1), ("short", HOUR), ("long", HOUR)], &[])).await.unwrap();
    let at = store.state().read("counter", "long").unwrap().unwrap().expires_at;
    assert_eq!(store.state().copy(counter(), copy(1, vec![], false)).await.unwrap().keys, 2);
    // As after some time.
    crate::store::tests::plant(
        &store,
        "UPDATE state_copy_key SET expires_at = 1 WHERE key = 'short'; UPDATE state SET expires_at = 1 WHERE key = 'short'",
    )
    .await;
    assert_eq!(store.state().written_since("counter", 1).unwrap(), 0);
    assert_eq!(put_back(&store, 1, None).await, Ok((1, 5)));
    assert_eq!(state(&store), pairs(&[("long", "1")]));
    assert_eq!(store.state().read("counter", "long").unwrap().unwrap().expires_at, at);
    assert!(store.state().expired(clock::now_ms(), 9).unwrap().is_empty(), "nothing is left to be removed");
    assert_eq!(store.check().unwrap().defects, []);
}

#[tokio::test]
async fn a_copy_has_what_waits_to_be_written_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    let (before, kept, after) = tokio::join!(
        biased;
        commit(&store, change(&[("a", Some("1"))], &[])),
        store.state().copy(counter(), copy(1, vec![1], false)),
        commit(&store, change(&[("a", Some("2"))], &[]))
    );
    before.and(after).unwrap();
    assert_eq!(kept.unwrap().keys, 1);
    assert_eq!((state(&store), store.state().written_since("counter", 1)), (pairs(&[("a", "2")]), Ok(1)));
    // The same for what is restored: a write that comes after it stays.
    let (restored, after) = tokio::join!(
        biased;
        put_back(&store, 1, None),
        commit(&store, change(&[("b", Some("22"))], &[]))
    );
    assert_eq!((restored, after), (Ok((1, 5)), Ok(Some(5))));
    assert_eq!(state(&store), pairs(&[("a", "1"), ("b", "22")]));
    assert_eq!(store.state().written_since("counter", 1).unwrap(), 1);
}

#[tokio::test]
async fn copies_are_replaced_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    let kept = || -> Vec<(u64, u64)> {
        store.state().copies("counter").unwrap().iter().map(|copy| (copy.revision, copy.keys)).collect()
    };
    let missing = "no copy of the state of counter@1 is kept";
    assert_eq!(put_back(&store, 1, Some((2, vec![]))).await, Err(CommitError::Store(missing.to_owned())));
    assert_eq!(kept(), [], "nothing is kept then either");
    store.state().copy(counter(), copy(1, vec![], false)).await.unwrap();
    commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
    store.state().copy(counter(), copy(2, vec![], false)).await.unwrap();
    assert_eq!(kept(), [(2, 1), (1, 0)], "also of an agent that keeps nothing");
    store.state().copy(counter(), copy(1, vec![7], true)).await.unwrap();
    assert_eq!(kept(), [(1, 1), (2, 1)]);
    assert!(put_back(&store, 1, Some((1, vec![]))).await.unwrap_err().to_string().contains("in place of the copy"));
    store.state().copy("other".into(), copy(1, vec![], false)).await.unwrap();
    store.state().forget_copies(counter(), vec![1, 9]);
    store.flush().await.unwrap();
    assert_eq!(kept(), [(2, 1)]);
    assert!(put_back(&store, 1, None).await.is_err());
    store.rollouts().keep_ledger(counter(), None);
    store.flush().await.unwrap();
    assert_eq!((kept(), store.state().copies("other").unwrap().len()), (vec![], 1));
    assert_eq!(state(&store), pairs(&[("a", "1")]), "the state is the agent's");
    assert_eq!(store.check().unwrap().defects, []);
}

#[tokio::test]
async fn copies_live_as_long_as_the_state() {
    for (durability, lives) in [(Durability::Fsync, true), (Durability::Os, true), (Durability::Memory, false)] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, durability);
        commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
        store.state().copy(counter(), copy(1, vec![1], true)).await.unwrap();
        commit(&store, change(&[("a", Some("2"))], &[])).await.unwrap();
        assert_eq!(put_back(&store, 1, Some((2, vec![2]))).await, Ok((1, 2)), "{durability:?}");
        drop(store);
        let store = open(&folder, durability);
        assert_eq!(store.state().copies("counter").unwrap().len(), if lives { 2 } else { 0 }, "{durability:?}");
        assert_eq!(state(&store).len(), usize::from(lives), "{durability:?}");
    }
}

#[tokio::test]
async fn a_backup_has_the_copies_and_a_store_of_the_format_before_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
    store.state().copy(counter(), copy(1, vec![1], false)).await.unwrap();
    let backup = folder.path().join("backup.db");
    std::io::copy(&mut store.copy().unwrap(), &mut std::fs::File::create(&backup).unwrap()).unwrap();
    store.state().forget_copies(counter(), vec![1]);
    drop(store);
    restore(folder.path(), &backup, true).unwrap();
    let at_rest = OfflineStore::open(folder.path()).unwrap();
    assert_eq!(at_rest.size().unwrap().agents[0].state_copy_bytes, 2);
    assert_eq!(at_rest.check().defects, []);
    drop(at_rest);
    assert_eq!(put_back(&open(&folder, Durability::Os), 1, None).await, Ok((1, 2)));

    let folder = tempfile::tempdir().unwrap();
    let older = Connection::open(folder.path().join(DATABASE)).unwrap();
    let before = MIGRATIONS.iter().position(|step| step.contains("state_copy")).unwrap();
    MIGRATIONS[..before].iter().for_each(|step| older.execute_batch(step).unwrap());
    older.pragma_update(None, "user_version", i64::try_from(before).unwrap()).unwrap();
    let planted =
        "INSERT INTO state VALUES ('counter', 'a', x'31', 7, NULL); INSERT INTO state_size VALUES ('counter', 2);
                   UPDATE meta SET value = 7 WHERE key = 'version';";
    older.execute_batch(planted).unwrap();
    drop(older);
    // Without a host what it lacks is not looked for, and it can be copied.
    let at_rest = OfflineStore::open(folder.path()).unwrap();
    let refused = at_rest.size().unwrap_err().to_string();
    let formats =
        format!("has format {before}, made by an older version; a host brings it to format {}", MIGRATIONS.len());
    assert!(refused.contains(&formats), "{refused}");
    assert!(at_rest.current().is_err());
    at_rest.copy_to(&folder.path().join("backup.db")).unwrap();
    drop(at_rest);
    let store = opened(folder.path(), &settings(Durability::Os)).unwrap();
    assert_eq!(store.state().copies("counter").unwrap(), []);
    assert_eq!(store.state().copy(counter(), copy(1, vec![1], false)).await.unwrap().bytes, 2);
    assert_eq!((put_back(&store, 1, None).await, state(&store)), (Ok((1, 2)), pairs(&[("a", "1")])));
    assert_eq!(store.check().unwrap().defects, []);
}
