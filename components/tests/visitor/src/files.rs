//! Actions on files: through the standard library, as programs do, and by the functions of WASI, as a hostile one may.

use std::cell::RefCell;

use serde::Deserialize;
use serde_json::{Value, json};
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags};

use crate::told;

/// An action on files. `folder` is the name of a folder that the agent was granted.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what", deny_unknown_fields)]
pub(crate) enum FileAction {
    /// The names of the folders.
    Folders,
    /// The text of a file, read by the standard library.
    Read {
        path: String,
    },
    /// Writes a file by the standard library.
    Write {
        path: String,
        text: String,
    },
    /// The number of entries of a folder, and the first few names.
    List {
        folder: String,
    },
    /// Opens a path, with links followed or not, to read or to write.
    Open {
        folder: String,
        path: String,
        #[serde(default)]
        write: bool,
        #[serde(default)]
        create: bool,
        #[serde(default)]
        no_follow: bool,
    },
    /// Opens a path so often, keeps all, and tells how many there are and the error of the next.
    OpenMany {
        folder: String,
        path: String,
        count: usize,
    },
    /// Opens a folder and keeps it for later messages.
    Hold {
        folder: String,
        path: String,
    },
    /// The text of a file below the folder that is kept.
    HeldRead {
        path: String,
    },
    MakeFolder {
        folder: String,
        path: String,
    },
    RemoveFolder {
        folder: String,
        path: String,
    },
    Unlink {
        folder: String,
        path: String,
    },
    Symlink {
        folder: String,
        target: String,
        path: String,
    },
    ReadLink {
        folder: String,
        path: String,
    },
    Rename {
        folder: String,
        path: String,
        to: String,
        new_path: String,
    },
    Link {
        folder: String,
        path: String,
        to: String,
        new_path: String,
    },
    SetTimes {
        folder: String,
        path: String,
    },
    Stat {
        folder: String,
        path: String,
    },
}

thread_local! {
    static HELD: RefCell<Option<Descriptor>> = const { RefCell::new(None) };
}

fn folder(name: &str) -> Result<Descriptor, String> {
    let found = get_directories().into_iter().find(|(_, seen)| seen == name);
    found.map(|(folder, _)| folder).ok_or_else(|| format!("there is no folder {name}"))
}

fn code<T>(result: Result<T, ErrorCode>) -> Result<T, String> {
    result.map_err(|code| code.name().to_owned())
}

fn open(name: &str, path: &str, open_flags: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, String> {
    code(folder(name)?.open_at(PathFlags::SYMLINK_FOLLOW, path, open_flags, flags))
}

fn read(file: &Descriptor) -> Result<String, String> {
    let (bytes, _) = code(file.read(64 << 10, 0))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn list(name: &str) -> Result<Value, String> {
    let entries = code(folder(name)?.read_directory())?;
    let (mut count, mut names) = (0_u64, Vec::new());
    while let Some(entry) = code(entries.read_directory_entry())? {
        count += 1;
        if names.len() < 10 {
            names.push(entry.name);
        }
    }
    names.sort();
    Ok(json!({ "count": count, "names": names }))
}

fn open_many(name: &str, path: &str, count: usize) -> Result<Value, String> {
    let folder = folder(name)?;
    let mut open = Vec::new();
    for _ in 0..count {
        match code(folder.open_at(PathFlags::empty(), path, OpenFlags::empty(), DescriptorFlags::READ)) {
            Ok(file) => open.push(file),
            Err(error) => return Ok(json!({ "open": open.len(), "error": error })),
        }
    }
    Ok(json!({ "open": open.len() }))
}

pub(crate) fn act(action: FileAction) -> Value {
    let done = |result: Result<(), String>| told(result.map(|()| "done"));
    match action {
        FileAction::Folders => {
            let names: Vec<String> = get_directories().into_iter().map(|(_, name)| name).collect();
            names.into()
        }
        FileAction::Read { path } => told(std::fs::read_to_string(path)),
        FileAction::Write { path, text } => told(std::fs::write(path, text).map(|()| "done")),
        FileAction::List { folder } => told(list(&folder)),
        FileAction::Open { folder: name, path, write, create, no_follow } => {
            let follow = if no_follow { PathFlags::empty() } else { PathFlags::SYMLINK_FOLLOW };
            let open_flags = if create { OpenFlags::CREATE } else { OpenFlags::empty() };
            let flags = if write { DescriptorFlags::WRITE } else { DescriptorFlags::READ };
            let opened = folder(&name).and_then(|folder| code(folder.open_at(follow, &path, open_flags, flags)));
            // Its text shows which file it is.
            told(opened.and_then(|file| if write { Ok("opened".to_owned()) } else { read(&file) }))
        }
        FileAction::OpenMany { folder, path, count } => told(open_many(&folder, &path, count)),
        FileAction::Hold { folder, path } => {
            let opened = open(&folder, &path, OpenFlags::DIRECTORY, DescriptorFlags::READ);
            done(opened.map(|folder| HELD.with_borrow_mut(|held| drop(held.replace(folder)))))
        }
        FileAction::HeldRead { path } => told(HELD.with_borrow(|held| {
            let folder = held.as_ref().ok_or_else(|| "nothing is kept".to_owned())?;
            read(&code(folder.open_at(PathFlags::SYMLINK_FOLLOW, &path, OpenFlags::empty(), DescriptorFlags::READ))?)
        })),
        FileAction::MakeFolder { folder: name, path } => {
            done(folder(&name).and_then(|folder| code(folder.create_directory_at(&path))))
        }
        FileAction::RemoveFolder { folder: name, path } => {
            done(folder(&name).and_then(|folder| code(folder.remove_directory_at(&path))))
        }
        FileAction::Unlink { folder: name, path } => {
            done(folder(&name).and_then(|folder| code(folder.unlink_file_at(&path))))
        }
        FileAction::Symlink { folder: name, target, path } => {
            done(folder(&name).and_then(|folder| code(folder.symlink_at(&target, &path))))
        }
        FileAction::ReadLink { folder: name, path } => {
            told(folder(&name).and_then(|folder| code(folder.readlink_at(&path))))
        }
        FileAction::Rename { folder: name, path, to, new_path } => {
            done(folder(&name).and_then(|from| folder(&to).and_then(|to| code(from.rename_at(&path, &to, &new_path)))))
        }
        FileAction::Link { folder: name, path, to, new_path } => {
            done(folder(&name).and_then(|from| {
                folder(&to).and_then(|to| code(from.link_at(PathFlags::empty(), &path, &to, &new_path)))
            }))
        }
        FileAction::SetTimes { folder: name, path } => done(folder(&name).and_then(|folder| {
            let (accessed, modified) = (NewTimestamp::Now, NewTimestamp::Now);
            code(folder.set_times_at(PathFlags::SYMLINK_FOLLOW, &path, accessed, modified))
        })),
        FileAction::Stat { folder: name, path } => told(
            folder(&name)
                .and_then(|folder| code(folder.stat_at(PathFlags::SYMLINK_FOLLOW, &path)).map(|stat| stat.size)),
        ),
    }
}
