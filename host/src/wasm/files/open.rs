//! The opening of files and folders below those that were granted.

use std::fs::File as StdFile;
use std::io;
use std::path::Path;

use cap_primitives::fs::{FollowSymlinks, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::OpenMode;
use wasmtime_wasi::filesystem::{Descriptor, Dir, File};
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasmtime_wasi::runtime::spawn_blocking;

use crate::wasm::call::ctx::Ctx;
use crate::wasm::call::outbound::DeniedAccess;

type Params = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);

/// The result of opening a path.
enum OpenedPath {
    Folder(StdFile),
    File(StdFile),
    /// A file of another kind, such as a pipe or a device.
    Other,
}

pub(super) fn add_to_linker(linker: &mut Linker<Ctx>, name: &str) -> wasmtime::Result<()> {
    linker.instance(name)?.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: StoreContextMut<'_, Ctx>, params: Params| {
            Box::new(async move { Ok((open_at(store.data_mut(), params).await?,)) })
        },
    )
}

/// Opens a path like the original, but for files that are not regular, and within bounds.
async fn open_at(
    ctx: &mut Ctx,
    (folder, path_flags, path, open_flags, flags): Params,
) -> wasmtime::Result<Result<Resource<Descriptor>, ErrorCode>> {
    let dir = match ctx.dir(&folder)? {
        Ok(dir) => dir,
        Err(code) => return Ok(Err(code)),
    };
    let (options, mode) = match options(path_flags, open_flags, flags) {
        Ok(asked) => asked,
        Err(code) => return Ok(Err(code)),
    };
    if mode.contains(OpenMode::WRITE)
        && let Err(code) = ctx.admits_change(&dir, &path)
    {
        return Ok(Err(code));
    }
    if !ctx.admits_file() {
        return Ok(Err(ErrorCode::Quota));
    }
    let (shown, base) = (ctx.shown_path(&dir, &path), dir.clone());
    let opened = spawn_blocking(move || open(&dir, path.as_ref(), &options)).await;
    let is_folder = open_flags.contains(OpenFlags::DIRECTORY);
    // Permissions are those of the folder that was granted, also below it.
    let descriptor = match opened {
        Ok(OpenedPath::Folder(folder)) => Descriptor::Dir(Dir::new(folder, base.perms, mode, false)),
        Ok(OpenedPath::File(_)) if is_folder => return Ok(Err(ErrorCode::NotDirectory)),
        Ok(OpenedPath::File(file)) => Descriptor::File(File::new(file, base.perms, mode, false)),
        Ok(OpenedPath::Other) => {
            ctx.deny(DeniedAccess::FileKind, || {
                format!("it opened `{shown}`, which was denied: it is neither a file nor a folder, but a pipe, a socket or a \
                         device")
            });
            return Ok(Err(ErrorCode::NotPermitted));
        }
        Err(error) => return Ok(Err(error.into())),
    };
    Ok(Ok(ctx.table.push(descriptor)?))
}

/// Returns what the guest asks for as options of the system, and whether it reads and writes.
fn options(path: PathFlags, open: OpenFlags, flags: DescriptorFlags) -> Result<(OpenOptions, OpenMode), ErrorCode> {
    let is_synced = DescriptorFlags::FILE_INTEGRITY_SYNC
        | DescriptorFlags::DATA_INTEGRITY_SYNC
        | DescriptorFlags::REQUESTED_WRITE_SYNC;
    if flags.intersects(is_synced) {
        return Err(ErrorCode::Unsupported);
    }
    let changes = open.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE);
    if open.contains(OpenFlags::DIRECTORY) && (changes || open.contains(OpenFlags::EXCLUSIVE)) {
        return Err(ErrorCode::Invalid);
    }
    let (mut options, mut mode) = (OpenOptions::new(), OpenMode::empty());
    if open.contains(OpenFlags::CREATE) {
        if open.contains(OpenFlags::EXCLUSIVE) {
            options.create_new(true);
        } else {
            options.create(true);
        }
    }
    options.truncate(open.contains(OpenFlags::TRUNCATE));
    if changes || flags.contains(DescriptorFlags::WRITE) {
        options.write(true);
        mode |= OpenMode::WRITE;
    }
    // Something has to be asked of the system, also if the guest asks for nothing.
    if flags.contains(DescriptorFlags::READ) || !flags.contains(DescriptorFlags::WRITE) {
        options.read(true);
        mode |= OpenMode::READ;
    }
    let follows = path.contains(PathFlags::SYMLINK_FOLLOW);
    options._cap_fs_ext_follow(if follows { FollowSymlinks::Yes } else { FollowSymlinks::No });
    // A pipe would else be waited for until somebody opens its other end, and a terminal become that of the host.
    options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    Ok((options, mode))
}

/// Opens a path within a folder. Blocks on the disk.
fn open(dir: &Dir, path: &Path, options: &OpenOptions) -> io::Result<OpenedPath> {
    let opened = match cap_primitives::fs::open(&dir.dir, path, options) {
        Ok(opened) => opened,
        // A pipe that nobody reads, or a socket.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return Ok(OpenedPath::Other);
        }
        Err(error) => return Err(error),
    };
    // Asked of what was opened and not of the path, at which something else may stand by now.
    let kind = opened.metadata()?.file_type();
    Ok(match kind {
        kind if kind.is_dir() => OpenedPath::Folder(opened),
        kind if kind.is_file() => OpenedPath::File(opened),
        _ => OpenedPath::Other,
    })
}

/// Opens a file or a folder to set its times.
pub(super) fn open_for_times(dir: &Dir, path: &Path) -> io::Result<Option<StdFile>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    match open(dir, path, &options)? {
        OpenedPath::Folder(file) | OpenedPath::File(file) => Ok(Some(file)),
        OpenedPath::Other => Ok(None),
    }
}
