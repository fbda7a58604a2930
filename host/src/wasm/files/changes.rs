//! The functions that change files and folders: within a message alone, and not by a copy of one.

use std::fs::FileTimes;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{ErrorCode, HostDescriptor, NewTimestamp, PathFlags};
use wasmtime_wasi::runtime::spawn_blocking;

use super::access::converted;
use super::open::open_for_times;
use crate::wasm::call::ctx::Ctx;

type TimesParams = (Resource<Descriptor>, PathFlags, String, NewTimestamp, NewTimestamp);

/// Replaces a function by one that asks whether the guest may change something at a path, and calls the original then.
macro_rules! asked_first {
    ($interface:ident, $name:literal, $original:ident($folder:ident, $path:ident $(, $more:ident: $type:ty)*)) => {
        $interface.func_wrap_async(
            $name,
            |mut store: StoreContextMut<'_, Ctx>,
             ($folder, $path, $($more,)*): (Resource<Descriptor>, String, $($type,)*)| {
                Box::new(async move {
                    let ctx = store.data_mut();
                    if let Err(code) = admitted(ctx, &$folder, &$path)? {
                        return Ok((Err(code),));
                    }
                    let changed = ctx.filesystem().$original($folder, $path, $($more,)*).await;
                    Ok((converted(changed)?,))
                })
            },
        )?;
    };
}

pub(super) fn add_to_linker(linker: &mut Linker<Ctx>, name: &str) -> wasmtime::Result<()> {
    let mut interface = linker.instance(name)?;
    asked_first!(interface, "[method]descriptor.create-directory-at", create_directory_at(folder, path));
    asked_first!(interface, "[method]descriptor.remove-directory-at", remove_directory_at(folder, path));
    asked_first!(interface, "[method]descriptor.unlink-file-at", unlink_file_at(folder, path));
    interface.func_wrap_async(
        "[method]descriptor.symlink-at",
        |mut store: StoreContextMut<'_, Ctx>, (folder, target, path): (Resource<Descriptor>, String, String)| {
            Box::new(async move {
                let ctx = store.data_mut();
                // Of what is made, and not of what it points to.
                if let Err(code) = admitted(ctx, &folder, &path)? {
                    return Ok((Err(code),));
                }
                Ok((converted(ctx.filesystem().symlink_at(folder, target, path).await)?,))
            })
        },
    )?;
    asked_first!(
        interface,
        "[method]descriptor.rename-at",
        rename_at(folder, path, new_folder: Resource<Descriptor>, new_path: String)
    );
    type LinkParams = (Resource<Descriptor>, PathFlags, String, Resource<Descriptor>, String);
    interface.func_wrap_async(
        "[method]descriptor.link-at",
        |mut store: StoreContextMut<'_, Ctx>, (folder, flags, path, new_folder, new_path): LinkParams| {
            Box::new(async move {
                let ctx = store.data_mut();
                if let Err(code) = admitted(ctx, &new_folder, &new_path)? {
                    return Ok((Err(code),));
                }
                let linked = ctx.filesystem().link_at(folder, flags, path, new_folder, new_path).await;
                Ok((converted(linked)?,))
            })
        },
    )?;
    interface.func_wrap_async(
        "[method]descriptor.set-times-at",
        |mut store: StoreContextMut<'_, Ctx>, params: TimesParams| {
            Box::new(async move { Ok((set_times_at(store.data_mut(), params).await?,)) })
        },
    )?;
    type OwnTimes = (Resource<Descriptor>, NewTimestamp, NewTimestamp);
    interface.func_wrap_async(
        "[method]descriptor.set-times",
        |mut store: StoreContextMut<'_, Ctx>, (file, accessed, modified): OwnTimes| {
            Box::new(async move {
                let ctx = store.data_mut();
                // A file that is open for reading alone has times that can be set, and a copy may have opened it.
                let open = match ctx.table.get(&file)? {
                    Descriptor::Dir(dir) => Some(dir.clone()),
                    Descriptor::File(_) => None,
                };
                let may = match open {
                    Some(dir) => ctx.admits_change(&dir, ""),
                    None if ctx.handles_message() && ctx.host().admits_change("the times of an open file") => Ok(()),
                    None => Err(ErrorCode::ReadOnly),
                };
                if let Err(code) = may {
                    return Ok((Err(code),));
                }
                Ok((converted(ctx.filesystem().set_times(file, accessed, modified).await)?,))
            })
        },
    )
}

/// Decides whether the guest may change something at a path.
fn admitted(ctx: &Ctx, folder: &Resource<Descriptor>, path: &str) -> wasmtime::Result<Result<(), ErrorCode>> {
    Ok(match ctx.dir(folder)? {
        Ok(dir) => ctx.admits_change(&dir, path),
        Err(code) => Err(code),
    })
}

/// Sets the times of a path. The original opens it, and would wait for the other end of a pipe.
async fn set_times_at(
    ctx: &mut Ctx,
    (folder, flags, path, accessed, modified): TimesParams,
) -> wasmtime::Result<Result<(), ErrorCode>> {
    if let Err(code) = admitted(ctx, &folder, &path)? {
        return Ok(Err(code));
    }
    if !flags.contains(PathFlags::SYMLINK_FOLLOW) {
        // Opens nothing.
        return converted(ctx.filesystem().set_times_at(folder, flags, path, accessed, modified).await);
    }
    let Ok(dir) = ctx.dir(&folder)? else { return Ok(Err(ErrorCode::NotDirectory)) };
    let mut times = FileTimes::new();
    if let Some(time) = time(accessed) {
        times = times.set_accessed(time);
    }
    if let Some(time) = time(modified) {
        times = times.set_modified(time);
    }
    let set = spawn_blocking(move || match open_for_times(&dir, path.as_ref())? {
        Some(file) => file.set_times(times).map(|()| true),
        None => Ok(false),
    });
    Ok(match set.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(ErrorCode::NotPermitted),
        Err(error) => Err(error.into()),
    })
}

/// Returns a time that is to be set; `None` for one that stays.
fn time(given: NewTimestamp) -> Option<SystemTime> {
    match given {
        NewTimestamp::NoChange => None,
        NewTimestamp::Now => Some(SystemTime::now()),
        // One that no system has is left as it was.
        NewTimestamp::Timestamp(at) => {
            UNIX_EPOCH.checked_add(Duration::new(at.seconds, at.nanoseconds % 1_000_000_000))
        }
    }
}
