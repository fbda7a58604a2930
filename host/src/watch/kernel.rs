//! Events of the kernel about folders (inotify).

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// How closely a folder is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Closeness {
    /// Which names it has.
    Names,
    /// Writes to the files in it too.
    Content,
}

impl Closeness {
    fn flags(self) -> WatchFlags {
        let names = WatchFlags::ONLYDIR
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        match self {
            Self::Names => names,
            Self::Content => names | WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB,
        }
    }
}

/// Something that happened in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// To the entry of this name, in all folders that are this one.
    Entry {
        /// The folders, as they were given; two paths may lead to one folder.
        folders: Vec<PathBuf>,
        /// The entry.
        name: OsString,
        /// What its file is now, as far as writing goes.
        file: Handled,
    },
    /// To a watched folder itself: it was removed, moved or unmounted.
    Folder,
    /// More than the kernel keeps: anything may have happened.
    Overflow,
}

/// What an event says of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handled {
    /// It was written to, and is not closed.
    Written,
    /// It was closed after a write, or is another file or none by now.
    Closed,
    /// It is a folder, or only its metadata changed.
    Neither,
}

/// The folders that are watched.
pub(super) struct Kernel {
    events: AsyncFd<OwnedFd>,
    folders: HashMap<i32, Vec<PathBuf>>,
    /// Whether it was said that the system allows no more.
    said: bool,
}

impl Kernel {
    /// A kernel's queue that watches nothing yet.
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, for descriptors that are closed while it has them; one that it owns is not"
    )]
    pub(super) fn open() -> std::io::Result<Self> {
        let events = AsyncFd::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)?;
        Ok(Self { events, folders: HashMap::new(), said: false })
    }

    /// Watches these folders and no others. To watch one again costs a system call, takes up a folder that was made
    /// anew at the same path, and loses nothing. Says whether there are folders among them that were not watched before.
    pub(super) fn watch(&mut self, wanted: &BTreeMap<PathBuf, Closeness>) -> bool {
        // Two paths may lead to one folder, and the last call would decide how closely that is watched.
        let mut watched: HashMap<i32, (Closeness, Vec<PathBuf>)> = HashMap::new();
        let mut full = None;
        for (folder, closeness) in wanted {
            match inotify::add_watch(&self.events, folder, closeness.flags()) {
                Ok(id) => {
                    let (closest, paths) = watched.entry(id).or_insert((*closeness, Vec::new()));
                    if *closest > *closeness && inotify::add_watch(&self.events, folder, closest.flags()).is_err() {
                        // It has gone meanwhile; the next look finds that.
                        continue;
                    }
                    *closest = (*closest).max(*closeness);
                    paths.push(folder.clone());
                }
                Err(error @ (Errno::NOSPC | Errno::NOMEM)) => full = Some(error),
                // One that is not there, or may not be read: looks find what happens in it.
                Err(error) => tracing::debug!(folder = %folder.display(), %error, "a folder is not watched"),
            }
        }
        for id in self.folders.keys().filter(|id| !watched.contains_key(*id)) {
            // A folder that is gone is not watched any more anyway.
            let _ = inotify::remove_watch(&self.events, *id);
        }
        let more = watched.keys().any(|id| !self.folders.contains_key(id));
        self.folders = watched.into_iter().map(|(id, (_, paths))| (id, paths)).collect();
        if let Some(error) = full
            && !std::mem::replace(&mut self.said, true)
        {
            tracing::warn!(
                %error,
                "the system watches no more folders for this user (fs.inotify.max_user_watches); changes in the others are found within seconds"
            );
        }
        more
    }

    /// Waits for events and gives all there are.
    pub(super) async fn events(&self) -> std::io::Result<Vec<Event>> {
        loop {
            let mut ready = self.events.readable().await?;
            let events = self.read()?;
            if events.is_empty() {
                ready.clear_ready();
            } else {
                return Ok(events);
            }
        }
    }

    fn read(&self) -> std::io::Result<Vec<Event>> {
        // Many events at a time: a program that writes in small pieces makes thousands a second.
        let mut buffer = [MaybeUninit::uninit(); 32 * 1_024];
        let mut reader = Reader::new(&self.events, &mut buffer);
        let mut events: Vec<Event> = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let event = self.event(event.wd(), event.events(), event.file_name().map(std::ffi::CStr::to_bytes));
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

    fn event(&self, id: i32, what: ReadFlags, name: Option<&[u8]>) -> Option<Event> {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Some(Event::Overflow);
        }
        // Of a watch that was given up.
        let folders = self.folders.get(&id)?;
        let Some(name) = name else { return Some(Event::Folder) };
        let file = if what.contains(ReadFlags::ISDIR) {
            Handled::Neither
        } else if what.contains(ReadFlags::MODIFY) {
            Handled::Written
        } else if what.intersects(ReadFlags::ATTRIB | ReadFlags::CREATE) {
            Handled::Neither
        } else {
            Handled::Closed
        };
        Some(Event::Entry { folders: folders.clone(), name: OsStr::from_bytes(name).to_owned(), file })
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("folders", &self.folders.len()).finish()
    }
}
