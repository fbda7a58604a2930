//! The folders of a revision, and the files that its guests have open.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use rustix::process::{Resource as Limited, getrlimit};
use wasmtime_wasi::filesystem::Dir;
use wasmtime_wasi::{FsPerms, OpenMode};

use crate::folders::OpenFolder;

/// A folder as a guest sees it.
#[derive(Clone)]
pub(in crate::wasm) struct GuestFolder {
    /// The path by which it sees it.
    pub(super) name: String,
    pub(super) dir: Dir,
}

/// The folders of a revision, which its instances share.
pub(in crate::wasm) type GuestFolders = Arc<[GuestFolder]>;

/// Takes the folders of a revision.
pub(in crate::wasm) fn guest_folders(folders: Vec<OpenFolder>) -> GuestFolders {
    let take = |OpenFolder { name, folder, is_writable }| {
        let (perms, mode) = match is_writable {
            true => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
            false => (FsPerms::ReadOnly, OpenMode::READ),
        };
        // Not on the thread of the caller: a disk may be slow.
        GuestFolder { name, dir: Dir::new(folder, perms, mode, false) }
    };
    folders.into_iter().map(take).collect()
}

/// The files that all guests together have open.
static ALL_OPEN: AtomicUsize = AtomicUsize::new(0);
/// The most of them: a part of the files that the process may have, as connections and the store need some as well.
static MAX_ALL_OPEN: LazyLock<usize> = LazyLock::new(|| {
    let limit = getrlimit(Limited::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 4).unwrap_or(usize::MAX)
});

/// The files that one guest has open, as of its last look.
#[derive(Debug, Default)]
pub(in crate::wasm) struct OpenFiles(usize);

impl OpenFiles {
    /// Notes how many it has open. Returns `true` if all guests together have not too many.
    pub(super) fn set(&mut self, count: usize) -> bool {
        if count >= self.0 {
            ALL_OPEN.fetch_add(count - self.0, Ordering::Relaxed);
        } else {
            ALL_OPEN.fetch_sub(self.0 - count, Ordering::Relaxed);
        }
        self.0 = count;
        ALL_OPEN.load(Ordering::Relaxed) <= *MAX_ALL_OPEN
    }
}

impl Drop for OpenFiles {
    fn drop(&mut self) {
        self.set(0);
    }
}
