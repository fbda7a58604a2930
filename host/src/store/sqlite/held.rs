//! The data folder as it was opened, to be compared with what its path leads to now.
//!
//! A folder that is removed or exchanged under a running host leaves it with files that nothing else will ever read,
//! and lets another host start beside it. So the files are compared before anything is acknowledged, and once a second
//! at rest.

use std::fs::{self, File, Metadata};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::folder_files::{DATABASE, LOCK};
use crate::store::error::StoreError;

/// A file as the system tells it from all others.
type FolderIdentity = (u64, u64);

fn identity(metadata: &Metadata) -> FolderIdentity {
    (metadata.dev(), metadata.ino())
}

/// The files that have to stay.
pub(in crate::store) struct Held {
    folder: PathBuf,
    files: [(PathBuf, FolderIdentity); 2],
    /// The database's log, which comes with the first commit and then stays.
    log: (PathBuf, OnceLock<FolderIdentity>),
}

impl Held {
    /// Notes the files of a folder whose lock and database are open.
    pub(in crate::store) fn new(folder: &Path, lock: &File) -> Result<Self, StoreError> {
        let wrong = |cause| StoreError::Folder { path: folder.to_owned(), cause };
        let database = folder.join(DATABASE);
        let lock = identity(&lock.metadata().map_err(wrong)?);
        let opened = identity(&fs::metadata(&database).map_err(wrong)?);
        let held = Self {
            folder: folder.to_owned(),
            files: [(folder.join(LOCK), lock), (database, opened)],
            log: (folder.join(format!("{DATABASE}-wal")), OnceLock::new()),
        };
        // The folder may have been exchanged while it was being opened.
        held.check().map_err(|why| wrong(std::io::Error::other(why)))?;
        Ok(held)
    }

    /// Compares the files with what their paths lead to now: a call of the system for each.
    ///
    /// # Errors
    /// A file was exchanged or removed; the error is a text for a person.
    pub(in crate::store) fn check(&self) -> Result<(), String> {
        let lost = |path: &Path, found: Option<&Metadata>| {
            let what = if found.is_some() { "is another file now" } else { "is not there any more" };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!(
                "the data folder {} is not the one that this host opened: `{name}` {what}; nothing is acknowledged any more",
                self.folder.display()
            )
        };
        for (path, opened) in &self.files {
            let found = fs::metadata(path).ok();
            if found.as_ref().map(identity) != Some(*opened) {
                return Err(lost(path, found.as_ref()));
            }
        }
        let (path, opened) = &self.log;
        match (fs::metadata(path).ok(), opened.get()) {
            (Some(found), _) if *opened.get_or_init(|| identity(&found)) == identity(&found) => Ok(()),
            // SQLite creates the log with the first commit.
            (None, None) => Ok(()),
            (found, _) => Err(lost(path, found.as_ref())),
        }
    }
}

/// A claim on the path of a data folder against other hosts, for as long as it lives: the lock is in the folder, so it
/// does not hold once the folder is exchanged. It is an abstract socket, which the kernel removes with the process.
pub(in crate::store) struct Claim {
    _name: Option<UnixDatagram>,
}

impl Claim {
    /// Takes the path for this process.
    ///
    /// # Errors
    /// Another host has it, which opened it when it led to another folder.
    pub(in crate::store) fn take(folder: &Path) -> Result<Self, StoreError> {
        let Some(name) = name(folder) else { return Ok(Self { _name: None }) };
        match UnixDatagram::bind_addr(&name) {
            Ok(name) => Ok(Self { _name: Some(name) }),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                Err(StoreError::PathInUse { path: folder.to_owned() })
            }
            // A system without such names has the lock alone.
            Err(_) => Ok(Self { _name: None }),
        }
    }
}

/// The name for a path: of the folder that it is in, so that two containers whose paths read alike do not meet.
fn name(folder: &Path) -> Option<SocketAddr> {
    use std::os::unix::ffi::OsStrExt;

    // Not resolved: the claim is on the path as given, wherever it leads later.
    let absolute = std::path::absolute(folder).ok()?;
    let (parent, last) = (absolute.parent()?, absolute.file_name()?);
    let (device, inode) = identity(&fs::metadata(parent).ok()?);
    // Hashed, because an abstract name has at most 107 bytes and a path may have more.
    let mut hash = Sha256::new();
    hash.update(device.to_le_bytes());
    hash.update(inode.to_le_bytes());
    hash.update(last.as_bytes());
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    SocketAddr::from_abstract_name(format!("caxton-data-{hash}")).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use caxton_control::desired::Durability;

    use crate::store::StoreError;
    use crate::store::tests::{kept, message, opened, settings};

    /// A way to lose a folder.
    type Exchange = fn(&Path);

    fn aside(folder: &Path) -> std::path::PathBuf {
        folder.with_extension("aside")
    }

    fn exchange(folder: &Path, name: &str, with_copy: bool) {
        let (path, aside) = (folder.join(name), folder.join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        if with_copy {
            std::fs::copy(&aside, &path).unwrap();
        }
    }

    #[tokio::test]
    async fn nothing_is_acknowledged_once_the_folder_is_not_what_it_was() {
        let exchanges: [(&str, Exchange); 9] = [
            ("`lock` is not there", |folder| std::fs::remove_dir_all(folder).unwrap()),
            ("`lock` is not there", |folder| std::fs::rename(folder, aside(folder)).unwrap()),
            ("`lock` is not there", |folder| {
                std::fs::rename(folder, aside(folder)).unwrap();
                std::fs::create_dir(folder).unwrap();
            }),
            ("`lock` is another file", |folder| {
                std::fs::rename(folder, aside(folder)).unwrap();
                std::fs::create_dir(folder).unwrap();
                for name in ["lock", "caxton.db"] {
                    std::fs::copy(aside(folder).join(name), folder.join(name)).unwrap();
                }
            }),
            ("`lock` is not there", |folder| exchange(folder, "lock", false)),
            ("`caxton.db` is not there", |folder| exchange(folder, "caxton.db", false)),
            ("`caxton.db` is another file", |folder| exchange(folder, "caxton.db", true)),
            ("`caxton.db-wal` is not there", |folder| exchange(folder, "caxton.db-wal", false)),
            ("`caxton.db-wal` is another file", |folder| exchange(folder, "caxton.db-wal", true)),
        ];
        for (why, exchange) in exchanges {
            for durability in [Durability::Fsync, Durability::Os] {
                let parent = tempfile::tempdir().unwrap();
                let folder = parent.path().join("data");
                let store = opened(&folder, &settings(durability)).unwrap();
                kept(&store, message("m-1", "http:POST /", "desk")).await;
                assert_eq!(store.lost(), None);
                exchange(&folder);
                let refused = store.queue().set_paused("desk".to_owned(), true).await.unwrap_err().to_string();
                assert!(refused.contains(why), "{why}: {refused}");
                assert!(store.until_lost().await.contains(why));
                // Also what is told before it is safe, and all that comes later.
                assert!(store.flush().await.is_err() && store.empty_log().await.is_err(), "{why}");
            }
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_lost_at_rest_is_noticed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let store = opened(&folder, &settings(Durability::Os)).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(store.until_lost().await.contains("is not there any more"));
    }

    #[tokio::test]
    async fn a_second_store_is_refused_on_the_path_while_the_first_lives() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        let first = opened(&folder, &settings(Durability::Os)).unwrap();
        assert!(matches!(opened(&folder, &settings(Durability::Os)), Err(StoreError::InUse { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        let second = opened(&folder, &settings(Durability::Os));
        assert!(matches!(second, Err(StoreError::PathInUse { .. })), "the first has not noticed yet");
        drop(first);
        opened(&folder, &settings(Durability::Os)).unwrap();
    }
}
