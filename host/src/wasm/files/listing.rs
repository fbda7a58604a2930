//! The lists of folders, which are read in parts.

use std::collections::VecDeque;
use std::sync::Arc;

use cap_primitives::fs::{DirEntry, FileType, FileTypeExt, ReadDir, read_base_dir};
use parking_lot::Mutex;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};
use wasmtime_wasi::runtime::spawn_blocking;

use crate::wasm::call::ctx::Ctx;

/// The entries that are read at once. Names have up to 255 bytes, so that a part has some 64 KiB at most.
const PART: usize = 200;

/// An entry, or the reason why it cannot be told.
type Listed = Result<DirectoryEntry, ErrorCode>;

/// The list of a folder that a guest goes through.
pub(super) struct FolderListing {
    // Locked by the thread that reads the next part, while the guest waits for it.
    left: Arc<Mutex<ReadDir>>,
    read: VecDeque<Listed>,
    is_over: bool,
}

pub(super) fn add_to_linker(linker: &mut Linker<Ctx>, name: &str) -> wasmtime::Result<()> {
    let mut interface = linker.instance(name)?;
    interface.resource(
        "directory-entry-stream",
        ResourceType::host::<FolderListing>(),
        |mut store: StoreContextMut<'_, Ctx>, rep| {
            store.data_mut().table.delete(Resource::<FolderListing>::new_own(rep))?;
            Ok(())
        },
    )?;
    interface.func_wrap_async(
        "[method]descriptor.read-directory",
        |mut store: StoreContextMut<'_, Ctx>, (folder,): (Resource<Descriptor>,)| {
            Box::new(async move { Ok((read_directory(store.data_mut(), &folder).await?,)) })
        },
    )?;
    interface.func_wrap_async(
        "[method]directory-entry-stream.read-directory-entry",
        |mut store: StoreContextMut<'_, Ctx>, (listing,): (Resource<FolderListing>,)| {
            Box::new(async move { Ok((next_entry(store.data_mut(), &listing).await?,)) })
        },
    )
}

async fn read_directory(
    ctx: &mut Ctx,
    folder: &Resource<Descriptor>,
) -> wasmtime::Result<Result<Resource<FolderListing>, ErrorCode>> {
    let dir = match ctx.dir(folder)? {
        Ok(dir) => dir,
        Err(code) => return Ok(Err(code)),
    };
    if !ctx.admits_file() {
        return Ok(Err(ErrorCode::Quota));
    }
    match spawn_blocking(move || read_base_dir(&dir.dir)).await {
        Ok(entries) => {
            let listing = FolderListing { left: Arc::new(Mutex::new(entries)), read: VecDeque::new(), is_over: false };
            Ok(Ok(ctx.table.push(listing)?))
        }
        Err(error) => Ok(Err(error.into())),
    }
}

async fn next_entry(
    ctx: &mut Ctx,
    listing: &Resource<FolderListing>,
) -> wasmtime::Result<Result<Option<DirectoryEntry>, ErrorCode>> {
    let state = ctx.table.get_mut(listing)?;
    if state.read.is_empty() && !state.is_over {
        let left = Arc::clone(&state.left);
        let part: VecDeque<Listed> =
            spawn_blocking(move || left.lock().by_ref().take(PART).map(listed).collect()).await;
        let state = ctx.table.get_mut(listing)?;
        state.is_over = part.len() < PART;
        state.read = part;
    }
    Ok(ctx.table.get_mut(listing)?.read.pop_front().transpose())
}

fn listed(entry: std::io::Result<DirEntry>) -> Listed {
    let entry = entry?;
    let type_ = entry.file_type().map_or(DescriptorType::Unknown, kind);
    let name = entry.file_name().into_string().map_err(|_| ErrorCode::IllegalByteSequence)?;
    Ok(DirectoryEntry { type_, name })
}

fn kind(kind: FileType) -> DescriptorType {
    match kind {
        kind if kind.is_dir() => DescriptorType::Directory,
        kind if kind.is_symlink() => DescriptorType::SymbolicLink,
        kind if kind.is_file() => DescriptorType::RegularFile,
        kind if kind.is_fifo() => DescriptorType::Fifo,
        kind if kind.is_socket() => DescriptorType::Socket,
        kind if kind.is_char_device() => DescriptorType::CharacterDevice,
        kind if kind.is_block_device() => DescriptorType::BlockDevice,
        _ => DescriptorType::Unknown,
    }
}
