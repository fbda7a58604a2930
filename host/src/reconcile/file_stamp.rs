//! The detection of changed files and of files that are still being written.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use caxton_control::files::{FileState, FileWriter};
use parking_lot::Mutex;

/// Files that were not written for this long are not searched among the open files, because that search reads all of
/// `/proc`.
const RECENT: Duration = Duration::from_secs(15);

/// The state of a file. It changes whenever the file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileStamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    // Programs can set the modification time, but not this one.
    changed: (i64, i64),
}

impl FileStamp {
    /// Returns the state in this metadata.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Reads the state of a file, following links; `None` if it cannot be read.
    pub(crate) fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    /// Returns the time since the file was written or replaced, by the clock of its file system; `None` if that is
    /// ahead of the host's.
    pub(crate) fn age(&self) -> Option<Duration> {
        // The later of both: a rename into place changes only the second, and some tools set the first back.
        let (seconds, nanos) = self.modified.max(self.changed);
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds.try_into().ok()?, nanos.try_into().ok()?))?;
        SystemTime::now().duration_since(at).ok()
    }
}

/// The files that were written to and not closed since, by their real paths. The watcher adds entries and the
/// reconciler reads them. The lock is held for one entry at a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenWrites(Arc<Mutex<HashSet<PathBuf>>>);

impl OpenWrites {
    /// Notes that a file is being written (`open`), or no longer.
    pub(crate) fn note(&self, path: &Path, open: bool) {
        let mut writing = self.0.lock();
        if !open {
            writing.remove(path);
        } else if !writing.contains(path) {
            writing.insert(path.to_owned());
        }
    }

    /// Forgets all files, after events were lost: a missed close would block a file for ever.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
    }

    fn has(&self, path: &Path) -> bool {
        let writing = self.0.lock();
        // Most of the time the set is empty, and resolving the path is saved.
        !writing.is_empty() && fs::canonicalize(path).is_ok_and(|real| writing.contains(&real))
    }
}

/// A reader of files that finds out at most once which files processes have open.
#[derive(Debug, Default)]
pub(crate) struct FileProbe {
    writing: OpenWrites,
    open_files: Option<HashSet<(u64, u64)>>,
    found: HashMap<PathBuf, Option<FileState<FileStamp>>>,
}

impl FileProbe {
    /// Creates a reader without any results yet.
    pub(crate) fn new(writing: &OpenWrites) -> Self {
        Self { writing: writing.clone(), ..Self::default() }
    }

    /// Returns the state of a file; `None` if there is none. A file in the state `known` counts as complete: it was
    /// accepted before.
    pub(crate) fn at(&mut self, path: &Path, known: Option<&FileStamp>) -> Option<FileState<FileStamp>> {
        if let Some(found) = self.found.get(path) {
            return found.clone();
        }
        let found = FileStamp::now(path).map(|stamp| self.found(path, stamp, known));
        self.found.insert(path.to_owned(), found.clone());
        found
    }

    fn found(&mut self, path: &Path, stamp: FileStamp, known: Option<&FileStamp>) -> FileState<FileStamp> {
        let age = stamp.age();
        // Accepted before, so that the search for writers is saved.
        if known == Some(&stamp) {
            return FileState { stamp, age, writer: FileWriter::None };
        }
        // A file from the future counts as recent: its clock says nothing.
        let recent = age.is_none_or(|age| age < RECENT);
        let has_open = |open: &HashSet<(u64, u64)>| open.contains(&(stamp.device, stamp.inode));
        let open = self.writing.has(path) || recent && has_open(self.open_files.get_or_insert_with(open_for_writing));
        FileState { stamp, age, writer: if open { FileWriter::Open } else { FileWriter::None } }
    }
}

/// Returns the files that are open for writing, by device and inode, as far as this process may see: those of the same
/// user, or all for the superuser. Costs a system call for each open file of the machine.
fn open_for_writing() -> HashSet<(u64, u64)> {
    let mut open = HashSet::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|process| process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)) {
        // A process of another user, or one that has ended meanwhile.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten().map(|descriptor| descriptor.path()) {
            // The mode of the link shows how the file was opened.
            let writes = fs::symlink_metadata(&descriptor).is_ok_and(|link| link.mode() & 0o200 != 0);
            if writes
                && let Ok(file) = fs::metadata(&descriptor)
                && file.is_file()
            {
                open.insert((file.dev(), file.ino()));
            }
        }
    }
    open
}

/// Logs the reason why a changed file is not read yet, and the remedy.
pub(super) fn log_late_write(file: &str) {
    tracing::info!(
        "{file} has changed and is open for writing in another program; it is taken up when that program closes it, \
         or 10 s after its last write"
    );
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn look(path: &Path, writing: &OpenWrites) -> FileWriter {
        FileProbe::new(writing).at(path, None).unwrap().writer
    }

    #[test]
    fn files_open_for_writing_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("b"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let writing = OpenWrites::default();
        assert_eq!(FileProbe::new(&writing).at(&path, None), None);
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        assert_eq!((look(&path, &writing), look(&link, &writing)), (FileWriter::Open, FileWriter::Open));
        let half = FileStamp::now(&path).unwrap();
        drop(file);
        assert_eq!(look(&path, &writing), FileWriter::None);
        // A file that is open for reading only does not count.
        let reader = fs::File::open(&path).unwrap();
        assert_eq!(look(&path, &writing), FileWriter::None);
        drop(reader);
        // A writer that this process cannot see.
        let real = fs::canonicalize(&path).unwrap();
        writing.note(&real, true);
        assert_eq!((look(&path, &writing), look(&link, &writing)), (FileWriter::Open, FileWriter::Open));
        assert_eq!(FileProbe::new(&writing).at(&path, Some(&half)).unwrap().writer, FileWriter::None, "known already");
        writing.note(&real, false);
        assert_eq!(look(&path, &writing), FileWriter::None);
    }

    #[test]
    fn writes_and_replacements_change_the_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "one").unwrap();
        let first = FileStamp::now(&path).unwrap();
        assert_eq!(FileStamp::now(&path), Some(first));
        fs::write(&path, "three").unwrap();
        let second = FileStamp::now(&path).unwrap();
        assert_ne!(first, second);
        // The same size, and an old modification time.
        fs::write(&other, "seven").unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        fs::File::options().write(true).open(&other).unwrap().set_modified(long_ago).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_ne!(FileStamp::now(&path), Some(second));
        assert!(FileStamp::now(&path).unwrap().age().unwrap() < Duration::from_secs(3_600), "it was replaced just now");
    }
}
