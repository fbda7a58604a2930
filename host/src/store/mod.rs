//! What is kept: agents' state and snapshots, revisions, events. An embedded SQLite in the data folder.
//!
//! ```text
//! commit --> queue --> the writer: begin, all that waits, commit (one fsync) --> answers
//! read   --> a connection of the reader's own thread, never behind the writer
//! ```
//! One writer makes one commit of whatever came while the last fsync ran; nobody waits for company. Nobody
//! hears "committed" before the data is as safe as `store.durability` asks.

mod query;
mod schema;
mod writer;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_control::desired::Durability;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::FlockOperation;

pub(crate) use query::EventFilter;
pub(crate) use writer::{Commit, CommitError, Event, RevisionRecord, Snapshot};

/// The database within the data folder.
const DATABASE: &str = "caxton.db";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The data folder cannot be made or written to.
    #[error("the data folder {} cannot be used: {source}; choose another with `--data DIR` or `store.path`", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another host has it.
    #[error("the data folder {} is in use by another host{}; stop that one, or choose another folder with `--data DIR`", path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other host, as it wrote itself down.
        pid: Option<u32>,
    },
    /// A newer program made it.
    #[error("the store {} has format {found}, made by a newer version; this one knows formats up to {known}: use the newer version, or another folder with `--data DIR`", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The newest format known.
        known: i64,
    },
    /// The database cannot be opened or read.
    #[error("the store {} cannot be used: {source}; if it is damaged, move it away and begin anew", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

/// The data folder, held against other hosts, with its database.
pub(crate) struct Store {
    folder: PathBuf,
    database: PathBuf,
    /// Tells this store's connections from those of another in the same process.
    id: u64,
    writer: writer::Writer,
    /// Held for as long as the store is open.
    _lock: File,
}

impl Store {
    /// Opens the store in a folder, making both when they are not there.
    pub(crate) fn open(folder: &Path, durability: Durability) -> Result<Arc<Self>, StoreError> {
        let lock = lock(folder)?;
        let database = folder.join(DATABASE);
        if durability == Durability::Memory {
            // What a host with this setting kept before is not to come back.
            for suffix in ["", "-wal", "-shm"] {
                let _ = fs::remove_file(folder.join(format!("{DATABASE}{suffix}")));
            }
        }
        let connection = schema::open(&database, durability)?;
        let wrong = |source| StoreError::Database { path: database.clone(), source };
        let writer = writer::Writer::start(connection).map_err(wrong)?;
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Arc::new(Self { folder: folder.to_owned(), database, id, writer, _lock: lock }))
    }

    /// The data folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.database, flags)?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(connection)
    }
}

/// Takes the folder for this process. The lock ends with the process, however it ends.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let wrong = |source| StoreError::Folder { path: folder.to_owned(), source };
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join("lock"))
        .map_err(wrong)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        return Err(StoreError::InUse { path: folder.to_owned(), pid: text.trim().parse().ok() });
    }
    let write = || -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(&file, "{}", std::process::id())
    };
    let mut write = write;
    write().map_err(wrong)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn commit(writes: &[(&str, Option<&str>)], reads: &[(&str, u64)]) -> Commit {
        Commit {
            agent: "counter".into(),
            reads: reads.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect::<HashMap<_, _>>(),
            writes: writes
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.map(|v| v.as_bytes().to_vec())))
                .collect::<BTreeMap<_, _>>(),
            state_bytes: Arc::new(AtomicU64::new(0)),
            quota: 1 << 20,
        }
    }

    #[tokio::test]
    async fn what_is_committed_is_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Durability::Fsync).unwrap();
        let first = commit(&[("a", Some("1")), ("b", Some("22"))], &[]);
        let bytes = Arc::clone(&first.state_bytes);
        store.commit(first).await.unwrap();
        assert_eq!(bytes.load(Ordering::Relaxed), 5, "two keys and three bytes");
        store.commit(commit(&[("b", None)], &[])).await.unwrap();
        drop(store);
        let store = Store::open(folder.path(), Durability::Fsync).unwrap();
        assert_eq!(store.read("counter", "a").unwrap().unwrap().value, b"1");
        assert_eq!(store.read("counter", "b").unwrap(), None);
        assert_eq!(store.state_bytes("counter").unwrap(), 2);
    }

    #[tokio::test]
    async fn a_commit_that_read_what_has_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Durability::Os).unwrap();
        store.commit(commit(&[("n", Some("1"))], &[("n", 0)])).await.unwrap();
        let seen = store.read("counter", "n").unwrap().unwrap().version;
        store.commit(commit(&[("n", Some("2"))], &[("n", seen)])).await.unwrap();
        let late = store.commit(commit(&[("n", Some("9"))], &[("n", seen)])).await;
        assert!(matches!(late, Err(CommitError::Conflict)), "{late:?}");
        let blind = store.commit(commit(&[("m", Some("9"))], &[("n", 0)])).await;
        assert!(matches!(blind, Err(CommitError::Conflict)), "{blind:?}");
        assert_eq!(store.read("counter", "n").unwrap().unwrap().value, b"2");
    }

    #[tokio::test]
    async fn keys_come_in_order_a_page_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Durability::Os).unwrap();
        let keys = ["a%", "a/1", "a/2", "a/3", "b", "é", "a\u{10ffff}"];
        store.commit(commit(&keys.map(|key| (key, Some("x"))), &[])).await.unwrap();
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
        let _first = Store::open(folder.path(), Durability::Os).unwrap();
        let text = Store::open(folder.path(), Durability::Os).err().unwrap().to_string();
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
        drop(Store::open(folder.path(), Durability::Os).unwrap());
        let database = folder.path().join(DATABASE);
        Connection::open(&database).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let text = Store::open(folder.path(), Durability::Os).err().unwrap().to_string();
        assert!(text.contains("has format 99, made by a newer version; this one knows formats up to 1"), "{text}");
    }

    #[tokio::test]
    async fn events_are_told_once_kept_and_read_a_page_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Durability::Os).unwrap();
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
        let store = Store::open(folder.path(), Durability::Memory).unwrap();
        store.commit(commit(&[("a", Some("1"))], &[])).await.unwrap();
        assert!(store.read("counter", "a").unwrap().is_some());
        drop(store);
        let store = Store::open(folder.path(), Durability::Memory).unwrap();
        assert!(store.read("counter", "a").unwrap().is_none());
    }
}
