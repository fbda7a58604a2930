//! The folders that guests see: what of `wasi:filesystem` differs from the engine's own.
//!
//! The engine keeps paths within their folder (cap-std). Here are the rest of the bounds: a file of another kind than a
//! regular one is not opened, since a pipe would hold a thread of the host for as long as nobody is at its other end; a
//! folder is listed in parts, since it may have a million entries; and nothing is changed outside of a message, or by a copy
//! of one.

mod changes;
mod listing;
mod open;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use rustix::process::{Resource as Limited, getrlimit};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, Dir, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{self, ErrorCode, HostDescriptor};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsResult};
use wasmtime_wasi::{FsPerms, OpenMode};

use self::listing::FolderListing;
use crate::bounds::quoted;
use crate::folders::OpenFolder;
use crate::message::CommitMode;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::denials::WASI;
use crate::wasm::call::outbound::DeniedAccess;

/// The files, folders and streams that a guest may have open at once.
const MAX_OPEN: usize = 128;
/// The bytes that the host holds for each: what is read ahead of a file, or a part of the list of a folder.
const BYTES: u64 = 64 << 10;
/// The open files of a guest that are part of what an instance is counted with.
const UNCOUNTED: usize = 4;

/// A folder as a guest sees it.
#[derive(Clone)]
pub(in crate::wasm) struct GuestFolder {
    name: String,
    dir: Dir,
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
    fn set(&mut self, count: usize) {
        if count >= self.0 {
            ALL_OPEN.fetch_add(count - self.0, Ordering::Relaxed);
        } else {
            ALL_OPEN.fetch_sub(self.0 - count, Ordering::Relaxed);
        }
        self.0 = count;
    }
}

impl Drop for OpenFiles {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Ctx {
    /// Returns the folders as descriptors of the guest.
    pub(in crate::wasm) fn granted_folders(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let folders = Arc::clone(&self.folders);
        let give =
            |folder: &GuestFolder| Ok((self.table.push(Descriptor::Dir(folder.dir.clone()))?, folder.name.clone()));
        folders.iter().map(give).collect()
    }

    /// Returns `true` if the guest may open another file. Takes time in proportion to what it has open.
    fn admits_file(&mut self) -> bool {
        let is_open = |entry: &dyn std::any::Any| {
            entry.is::<Descriptor>()
                || entry.is::<FolderListing>()
                || entry.is::<DynInputStream>()
                || entry.is::<DynOutputStream>()
        };
        let count = self.table.iter_mut().filter(|entry| is_open(&**entry)).count() + 1;
        self.open_files.set(count);
        let is_admitted = count <= MAX_OPEN && ALL_OPEN.load(Ordering::Relaxed) <= *MAX_ALL_OPEN;
        if !is_admitted {
            self.deny(DeniedAccess::OpenFiles, || {
                format!(
                    "it opens too many files: it may have {MAX_OPEN} open at once, and all agents a quarter of those \
                         that the host may have"
                )
            });
            return false;
        }
        let held = count.saturating_sub(UNCOUNTED) as u64 * BYTES;
        // Within a call it only grows, as for other resources.
        if held > self.resources.bytes() {
            self.resources.hold(held);
        }
        true
    }

    /// Returns the path by which the guest sees a file.
    fn shown_path(&self, dir: &Dir, path: &str) -> String {
        let folder = self.folders.iter().find(|folder| Arc::ptr_eq(&folder.dir.dir, &dir.dir));
        let base = folder.map_or("", |folder| folder.name.trim_end_matches('/'));
        quoted(&format!("{base}/{path}"))
    }

    /// Returns `true` while the guest handles a message or a request.
    fn handles_message(&self) -> bool {
        // A migration may be repeated, and is rehearsed.
        self.work.as_ref().is_some_and(|work| !matches!(work.commit_mode, CommitMode::InSteps(_)))
    }

    /// Decides whether the guest may change something below a folder now.
    fn admits_change(&self, dir: &Dir, path: &str) -> Result<(), ErrorCode> {
        let shown = self.shown_path(dir, path);
        if dir.perms.write_not_permitted() {
            self.deny(DeniedAccess::Changes, || {
                format!(
                    "it wanted to change `{shown}`, which was denied: `allow.files` grants the folder without \
                         `write = true`"
                )
            });
            return Err(ErrorCode::ReadOnly);
        }
        if !self.handles_message() {
            self.deny(DeniedAccess::Changes, || {
                format!("it wanted to change `{shown}`, which was denied: an agent changes files while it handles a message \
                         or a request, and not while it starts, checks itself, saves or converts its state")
            });
            return Err(ErrorCode::ReadOnly);
        }
        // A copy of a message changes nothing.
        if self.host().admits_change(&shown) { Ok(()) } else { Err(ErrorCode::ReadOnly) }
    }

    /// Returns the folder of a descriptor.
    fn dir(&self, descriptor: &Resource<Descriptor>) -> wasmtime::Result<Result<Dir, ErrorCode>> {
        Ok(match self.table.get(descriptor)? {
            Descriptor::Dir(dir) => Ok(dir.clone()),
            Descriptor::File(_) => Err(ErrorCode::NotDirectory),
        })
    }
}

/// Converts the result of an original function.
fn converted<T>(result: FsResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(error.downcast()?)),
    }
}

/// Replaces functions of `wasi:filesystem`. Called after the originals are defined.
pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    // The originals are defined already, and defining them again is an error otherwise.
    linker.allow_shadowing(true);
    let name = format!("wasi:filesystem/types@{WASI}");
    open::add_to_linker(linker, &name)?;
    listing::add_to_linker(linker, &name)?;
    changes::add_to_linker(linker, &name)?;
    let mut interface = linker.instance(&name)?;
    interface.func_wrap(
        "[method]descriptor.read-via-stream",
        |mut store: StoreContextMut<'_, Ctx>, (file, offset): (Resource<Descriptor>, types::Filesize)| {
            let ctx = store.data_mut();
            if !ctx.admits_file() {
                return Ok((Err(ErrorCode::Quota),));
            }
            Ok((converted(ctx.filesystem().read_via_stream(file, offset))?,))
        },
    )?;
    interface.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut store: StoreContextMut<'_, Ctx>, (file, offset): (Resource<Descriptor>, types::Filesize)| {
            let ctx = store.data_mut();
            if !ctx.admits_file() {
                return Ok((Err(ErrorCode::Quota),));
            }
            Ok((converted(ctx.filesystem().write_via_stream(file, offset))?,))
        },
    )?;
    interface.func_wrap(
        "[method]descriptor.append-via-stream",
        |mut store: StoreContextMut<'_, Ctx>, (file,): (Resource<Descriptor>,)| {
            let ctx = store.data_mut();
            if !ctx.admits_file() {
                return Ok((Err(ErrorCode::Quota),));
            }
            Ok((converted(ctx.filesystem().append_via_stream(file))?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
