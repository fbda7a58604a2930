//! The change events of the kernel (inotify).

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// The events that are requested for a folder. [`Content`](Self::Content) includes [`Names`](Self::Names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchMask {
    /// Entries that are created, removed or renamed.
    Names,
    /// Writes to the files in it as well.
    Content,
}

impl WatchMask {
    fn flags(self) -> WatchFlags {
        let names = WatchFlags::ONLYDIR
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            // A folder that is replaced keeps its watch on the old one, which reports nothing any more.
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        match self {
            Self::Names => names,
            Self::Content => names | WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB,
        }
    }
}

/// A change in a watched folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileEvent {
    /// An entry of a folder changed.
    Entry {
        /// The watched paths that lead to this folder.
        folders: Vec<PathBuf>,
        /// The entry's file name.
        name: OsString,
        /// The state of the file after the event.
        file: WriteState,
    },
    /// The watched folder itself was removed, moved or unmounted.
    Folder,
    /// The kernel's queue has overflowed: any change may have been lost.
    Overflow,
}

/// The state of writing that an event implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteState {
    /// The file was written to and may still be open.
    Written,
    /// The file was closed after a write, replaced or removed.
    Closed,
    /// The entry is a folder, or only its metadata changed.
    Neither,
}

/// An inotify instance and its watched folders.
pub(super) struct Inotify {
    events: AsyncFd<OwnedFd>,
    folders: HashMap<i32, Vec<PathBuf>>,
    /// Set once the warning about the system's limit was logged, to log it only once.
    warned: bool,
}

impl Inotify {
    /// Opens an inotify instance without watches.
    #[expect(
        deprecated,
        reason = "its replacement is unsafe because a borrowed descriptor may be closed; this one is owned"
    )]
    pub(super) fn open() -> std::io::Result<Self> {
        // Not blocking, since reads wait for readiness; closed on exec, since builds must not inherit it.
        let events = AsyncFd::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)?;
        Ok(Self { events, folders: HashMap::new(), warned: false })
    }

    /// Watches exactly these folders. Watching one again costs a system call, takes up a folder that was created anew
    /// at the same path, and loses no events. Returns `true` if a folder was not watched before. One that cannot be
    /// watched is skipped.
    pub(super) fn watch(&mut self, wanted: &BTreeMap<PathBuf, WatchMask>) -> bool {
        // Two paths may lead to the same folder, whose watch has one set of flags: the last call would decide it.
        let mut watched: HashMap<i32, (WatchMask, Vec<PathBuf>)> = HashMap::new();
        let mut full = None;
        for (folder, closeness) in wanted {
            match inotify::add_watch(&self.events, folder, closeness.flags()) {
                Ok(id) => {
                    let (closest, paths) = watched.entry(id).or_insert((*closeness, Vec::new()));
                    if *closest > *closeness && inotify::add_watch(&self.events, folder, closest.flags()).is_err() {
                        // It was removed in between; the next scan notices.
                        continue;
                    }
                    *closest = (*closest).max(*closeness);
                    paths.push(folder.clone());
                }
                // Goes on: watches of other folders may exist already and cost nothing.
                Err(error @ (Errno::NOSPC | Errno::NOMEM)) => full = Some(error),
                // A folder that is missing or unreadable. Changes in it are found by the periodic scans.
                Err(error) => tracing::debug!(folder = %folder.display(), %error, "a folder is not watched"),
            }
        }
        for id in self.folders.keys().filter(|id| !watched.contains_key(*id)) {
            // Fails for a folder that was removed, whose watch the kernel has dropped itself.
            let _ = inotify::remove_watch(&self.events, *id);
        }
        let more = watched.keys().any(|id| !self.folders.contains_key(id));
        self.folders = watched.into_iter().map(|(id, (_, paths))| (id, paths)).collect();
        if let Some(error) = full
            && !std::mem::replace(&mut self.warned, true)
        {
            tracing::warn!(
                %error,
                "the system watches no more folders for this user (fs.inotify.max_user_watches); changes in the others are found within seconds"
            );
        }
        more
    }

    /// Waits for events and returns all that are pending.
    pub(super) async fn events(&self) -> std::io::Result<Vec<FileEvent>> {
        loop {
            let mut ready = self.events.readable().await?;
            let events = self.read()?;
            if events.is_empty() {
                // Cleared only when all was read, so that no event is left without a wake-up.
                ready.clear_ready();
            } else {
                return Ok(events);
            }
        }
    }

    fn read(&self) -> std::io::Result<Vec<FileEvent>> {
        // Large, because a program that writes in small pieces causes thousands of events a second.
        let mut buffer = [MaybeUninit::uninit(); 32 * 1_024];
        let mut reader = Reader::new(&self.events, &mut buffer);
        let mut events: Vec<FileEvent> = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let event = self.event(event.wd(), event.events(), event.file_name().map(std::ffi::CStr::to_bytes));
                    // Repeated events of one file carry no news.
                    if let Some(event) = event.filter(|event| events.last() != Some(event)) {
                        events.push(event);
                    }
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(events),
                Err(error) => return Err(error.into()),
            }
            if reader.is_buffer_empty() && !events.is_empty() {
                return Ok(events);
            }
        }
    }

    fn event(&self, id: i32, what: ReadFlags, name: Option<&[u8]>) -> Option<FileEvent> {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Some(FileEvent::Overflow);
        }
        // `None` for events of a watch that was removed meanwhile.
        let folders = self.folders.get(&id)?;
        let Some(name) = name else { return Some(FileEvent::Folder) };
        let file = if what.contains(ReadFlags::ISDIR) {
            WriteState::Neither
        } else if what.contains(ReadFlags::MODIFY) {
            WriteState::Written
        } else if what.intersects(ReadFlags::ATTRIB | ReadFlags::CREATE) {
            WriteState::Neither
        } else {
            WriteState::Closed
        };
        Some(FileEvent::Entry { folders: folders.clone(), name: OsStr::from_bytes(name).to_owned(), file })
    }
}

impl std::fmt::Debug for Inotify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inotify").field("folders", &self.folders.len()).finish()
    }
}
