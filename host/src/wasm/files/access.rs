//! The decisions about files: what a guest may open, and what it may change.

use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::{Descriptor, Dir};
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsResult};

use super::folders::GuestFolder;
use super::listing::FolderListing;
use crate::bounds::quoted;
use crate::message::CommitMode;
use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::outbound::DeniedAccess;

/// The files, folders and streams that a guest may have open at once.
const MAX_OPEN: usize = 128;
/// The bytes that the host holds for each: what is read ahead of a file, or a part of the list of a folder.
const BYTES: u64 = 64 << 10;
/// The open files of a guest that are part of what an instance is counted with.
const UNCOUNTED: usize = 4;

impl Ctx {
    /// Returns the folders as descriptors of the guest.
    pub(in crate::wasm) fn granted_folders(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let folders = Arc::clone(&self.reach.folders);
        let give =
            |folder: &GuestFolder| Ok((self.table.push(Descriptor::Dir(folder.dir.clone()))?, folder.name.clone()));
        folders.iter().map(give).collect()
    }

    /// Returns `true` if the guest may open another file. Takes time in proportion to what it has open.
    pub(super) fn admits_file(&mut self) -> bool {
        let is_open = |entry: &dyn std::any::Any| {
            entry.is::<Descriptor>()
                || entry.is::<FolderListing>()
                || entry.is::<DynInputStream>()
                || entry.is::<DynOutputStream>()
        };
        let count = self.table.iter_mut().filter(|entry| is_open(&**entry)).count() + 1;
        let is_within_all = self.reach.open_files.set(count);
        let is_admitted = count <= MAX_OPEN && is_within_all;
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
    pub(super) fn shown_path(&self, dir: &Dir, path: &str) -> String {
        let folder = self.reach.folders.iter().find(|folder| Arc::ptr_eq(&folder.dir.dir, &dir.dir));
        let base = folder.map_or("", |folder| folder.name.trim_end_matches('/'));
        quoted(&format!("{base}/{path}"))
    }

    /// Returns `true` while the guest handles a message or a request.
    pub(super) fn handles_message(&self) -> bool {
        // A migration may be repeated, and is rehearsed.
        self.work.as_ref().is_some_and(|work| !matches!(work.commit_mode, CommitMode::InSteps(_)))
    }

    /// Decides whether the guest may change something below a folder now.
    pub(super) fn admits_change(&self, dir: &Dir, path: &str) -> Result<(), ErrorCode> {
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
    pub(super) fn dir(&self, descriptor: &Resource<Descriptor>) -> wasmtime::Result<Result<Dir, ErrorCode>> {
        Ok(match self.table.get(descriptor)? {
            Descriptor::Dir(dir) => Ok(dir.clone()),
            Descriptor::File(_) => Err(ErrorCode::NotDirectory),
        })
    }
}

/// Converts the result of an original function.
pub(super) fn converted<T>(result: FsResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(error.downcast()?)),
    }
}
