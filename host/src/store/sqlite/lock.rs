//! The locks that keep other hosts from a data folder.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;

use crate::store::error::{StoreError, lacks_room};
use crate::store::sqlite::folder_files::LOCK;
use crate::store::sqlite::held;

/// The locks that keep other hosts from the folder. They end with the process, however that ends.
pub(crate) struct Lock {
    pub(in crate::store) file: File,
    _path: held::Claim,
}

impl Lock {
    /// Takes a folder for this process, and creates it if there is none.
    pub(crate) fn take(folder: &Path) -> Result<Self, StoreError> {
        lock(folder)
    }
}

/// Takes the folder for this process.
pub(in crate::store) fn lock(folder: &Path) -> Result<Lock, StoreError> {
    let wrong = |cause| StoreError::Folder { path: folder.to_owned(), cause };
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    }
    // Not truncated before the lock is held: it may name the process of another host.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK))
        .map_err(wrong)?;
    // A lock of the kernel and not a file with a process id, which would outlive `kill -9`.
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
    // After the lock, whose holder the file names by its process id.
    let path = held::Claim::take(folder)?;
    match write() {
        // The number is for whoever meets the lock, which holds without it. A store on a full disk has to be opened to be
        // compacted.
        Err(error) if lacks_room(&error) => {}
        written => written.map_err(wrong)?,
    }
    Ok(Lock { file, _path: path })
}
