//! Tests of checks, copies and the log of the database.

use super::*;
use crate::api_types::Compaction;

#[tokio::test]
async fn a_check_finds_what_does_not_agree() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
    assert_eq!(store.check().unwrap(), StoreCheck { ok: true, defects: Vec::new() });
    drop(store);
    for (plant, code, count) in [
        (
            "INSERT INTO ack VALUES (1, 0, 0, 1), (2, 0, 0, 1); UPDATE meta SET value = 9 WHERE key = 'seq'",
            "ack-without-message",
            2,
        ),
        (
            "INSERT INTO attempt VALUES (3, 1, 0, '{\"number\":1,\"at\":1,\"revision\":\"a@1\",\"code\":\"trap\",\"error\":\"\",\"took_us\":1,\"cpu_us\":1}')",
            "attempt-without-message",
            1,
        ),
        ("INSERT INTO snapshot VALUES ('counter', 7, 0, x'00', 3, NULL, 0)", "unknown-snapshot", 1),
        ("UPDATE snapshot SET revision = 1", "snapshot-without-handoff", 1),
        ("UPDATE state SET value = x'3131'", "state-size", 1),
        ("UPDATE state SET version = 99", "version-beyond-counter", 1),
        (
            "INSERT INTO state_copy VALUES (1, 'counter', 1, '[1]', 0, 1, 2, 99, 0, 0, 1);
             INSERT INTO state_copy_key VALUES (1, 'a', x'31', 99, NULL)",
            "version-beyond-counter",
            3,
        ),
        ("UPDATE state_copy_key SET value = x'3131'", "state-copy-not-whole", 1),
        ("UPDATE state_copy SET holds = 'one'", "unreadable-state-copy", 1),
        ("DELETE FROM state_copy", "state-copy-of-none", 1),
        ("UPDATE state SET placed = 7", "content-missing", 1),
        (
            "DELETE FROM ack; DELETE FROM attempt; DELETE FROM snapshot; DELETE FROM state_copy_key;
          UPDATE state SET value = x'31', version = 1, placed = NULL;
          INSERT INTO message VALUES (20, 'counter', 'c', 1, NULL, NULL, x'ff', x'00', 0, NULL)",
            "unreadable-message",
            1,
        ),
    ] {
        let at_rest = OfflineStore::open(folder.path()).unwrap();
        at_rest.connection().execute_batch(plant).unwrap();
        let found = at_rest.check();
        let defect = found.defects.iter().find(|defect| defect.code == code);
        assert_eq!(defect.map(|defect| defect.count), Some(count), "{plant}: {found:?}");
        assert!(!found.ok);
    }
    let found = OfflineStore::open(folder.path()).unwrap().check();
    let codes: Vec<&str> = found.defects.iter().map(|defect| defect.code.as_str()).collect();
    assert_eq!(codes, ["place-beyond-counter", "unreadable-message"]);
}

#[tokio::test]
async fn a_copy_has_what_was_committed_and_can_be_put_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
    let copy = folder.path().join("backup.db");
    std::io::copy(&mut store.copy().unwrap(), &mut File::create(&copy).unwrap()).unwrap();
    commit(&store, change(&[("a", Some("2"))], &[("a", 1)])).await.unwrap();
    assert_eq!(
        fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("copy-"))
            .count(),
        0,
        "nothing is left behind"
    );
    let refused = restore(folder.path(), &copy, true).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    drop(store);
    assert!(matches!(restore(folder.path(), &copy, false), Err(StoreError::Exists { .. })));
    let text = folder.path().join("text");
    fs::write(&text, "").unwrap();
    assert!(matches!(restore(folder.path(), &text, true), Err(StoreError::NoStore { .. })));
    let old = restore(folder.path(), &copy, true).unwrap().unwrap();
    assert_eq!(old, folder.path().join("caxton.db.old"));
    let store = open(&folder, Durability::Fsync);
    assert_eq!(store.state().read("counter", "a").unwrap().unwrap().value, b"1");
    assert!(store.check().unwrap().ok);
    drop(store);
    let old: String = Connection::open(old)
        .unwrap()
        .query_row("SELECT value FROM state", [], |row| {
            row.get::<_, Vec<u8>>(0).map(|value| String::from_utf8(value).unwrap())
        })
        .unwrap();
    assert_eq!(old, "2", "what was there is kept");
}

#[tokio::test]
async fn compacting_gives_back_what_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Os);
    let large = "x".repeat(500_000);
    commit(&store, change(&[("a", Some(&large)), ("b", Some("1"))], &[])).await.unwrap();
    commit(&store, change(&[("a", None)], &[])).await.unwrap();
    // By another thread, whose connection is closed by the time that the store is compacted.
    let others = Arc::clone(&store);
    let removed = tokio::task::spawn_blocking(move || {
        std::thread::scope(|scope| {
            let removing = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(others.remove_unplaced())
            };
            scope.spawn(removing).join().unwrap()
        })
    });
    removed.await.unwrap().unwrap();
    assert!(store.size().unwrap().free_bytes > 400_000);
    assert_eq!(store.size().unwrap().agents[0].state_bytes, 2);
    assert!(store.size().unwrap().commits.unwrap().count >= 2);
    drop(store);
    let at_rest = OfflineStore::open(folder.path()).unwrap();
    let Compaction { before, after, .. } = at_rest.compact().unwrap();
    assert!(before > 500_000 && before - after > 450_000, "{before} {after}");
    assert_eq!((at_rest.size().unwrap().free_bytes, at_rest.size().unwrap().commits), (0, None));
    drop(at_rest);
    assert_eq!(open(&folder, Durability::Os).state().read("counter", "b").unwrap().unwrap().value, b"1");
}

#[tokio::test]
async fn what_is_being_written_is_safe_when_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
    store.wait_durable().await;
    // Another program's transaction holds up the next.
    let other = Connection::open(folder.path().join(DATABASE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = store.progress.begun();
    let committed = tokio::spawn({
        let store = Arc::clone(&store);
        async move { commit(&store, change(&[("a", Some("2"))], &[])).await }
    });
    while store.progress.begun() == begun {
        tokio::task::yield_now().await;
    }
    let mut safe = Box::pin(store.wait_durable());
    assert!(futures::poll!(safe.as_mut()).is_pending());
    other.execute_batch("COMMIT").unwrap();
    safe.await;
    assert_eq!(store.state().read("counter", "a").unwrap().unwrap().value, b"2");
    committed.await.unwrap().unwrap();
}

#[tokio::test]
async fn once_its_log_is_gone_nothing_is_committed_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    commit(&store, change(&[("b", Some("1"))], &[])).await.unwrap();
    // SQLite goes on with the file that it has open, which nobody will ever read.
    std::fs::remove_file(folder.path().join(format!("{DATABASE}-wal"))).unwrap();
    for _ in 0..2 {
        let refused = commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap_err().to_string();
        assert!(refused.contains("`caxton.db-wal` is not there any more"), "{refused}");
    }
    let unread = store.state().read("counter", "a").unwrap_err();
    assert!(unread.contains("is not there any more"), "{unread}");
    store.wait_durable().await;
}

#[tokio::test]
async fn only_what_a_backup_made_takes_the_place_of_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Durability::Fsync);
    commit(&store, change(&[("a", Some("1"))], &[])).await.unwrap();
    let copy = folder.path().join("backup.db");
    std::io::copy(&mut store.copy().unwrap(), &mut File::create(&copy).unwrap()).unwrap();
    drop(store);
    for (tampering, why) in [
        ("PRAGMA application_id = 7", "its application id is 7"),
        ("CREATE TRIGGER t AFTER INSERT ON message BEGIN DELETE FROM state; END", "its trigger `t`"),
        (
            "CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n",
            "its view `v`",
        ),
        (
            "DROP TABLE paused; CREATE VIEW paused AS WITH RECURSIVE n(agent) AS (SELECT 1 UNION ALL SELECT agent FROM n) \
          SELECT agent FROM n",
            "its view `paused`",
        ),
        ("CREATE TABLE more (a)", "its table `more`"),
        ("DROP INDEX event_agent", "it has no index `event_agent`"),
        ("ALTER TABLE event ADD COLUMN more", "its table `event`"),
        ("PRAGMA user_version = 3", "its application id is"),
        ("PRAGMA user_version = 0", "is not a copy of a store"),
    ] {
        let tampered = folder.path().join("tampered.db");
        fs::copy(&copy, &tampered).unwrap();
        Connection::open(&tampered).unwrap().execute_batch(tampering).unwrap();
        let refused = restore(folder.path(), &tampered, true).unwrap_err().to_string();
        assert!(refused.contains(why), "{tampering}: {refused}");
    }
    // The damage is found before the tables are looked at.
    let damaged = folder.path().join("damaged.db");
    let mut bytes = fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xff);
    fs::write(&damaged, bytes).unwrap();
    assert!(restore(folder.path(), &damaged, true).is_err());
    let store = open(&folder, Durability::Fsync);
    assert_eq!(store.state().read("counter", "a").unwrap().unwrap().value, b"1", "the store is as it was");
    drop(store);
    restore(folder.path(), &copy, true).unwrap();
}
