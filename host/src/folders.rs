//! The folders that agents are granted (`allow.files`): checked with the declaration, and opened when a revision starts.
//!
//! A revision holds its folders open. What stands at their paths later is no matter: whoever replaces a folder by a link
//! moves no agent to another place.

use std::fs::File;
use std::io;
use std::path::Path;

use caxton_control::AgentSpec;
use caxton_control::folder::FolderGrant;
use rustix::fs::{Access, AtFlags, Mode, OFlags};

/// A folder that is open.
#[derive(Debug)]
pub(crate) struct OpenFolder {
    /// The path by which the agent sees it.
    pub(crate) name: String,
    /// The folder.
    pub(crate) folder: File,
    /// Set if the agent may change what is in it.
    pub(crate) is_writable: bool,
}

/// The reason why a folder cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` {reason}")]
pub(crate) struct FolderFault {
    /// The path as written.
    pub(crate) path: String,
    /// The reason, which follows the path in a sentence.
    pub(crate) reason: String,
}

/// Opens a folder. A relative path starts from `dir`.
pub(crate) fn open(grant: &FolderGrant, dir: &Path) -> Result<OpenFolder, FolderFault> {
    let fault = |reason: String| FolderFault { path: grant.folder().to_owned(), reason };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(dir.join(grant.folder()), flags, Mode::empty()).map_err(|error| {
        let error = io::Error::from(error);
        fault(match error.kind() {
            io::ErrorKind::NotFound => "does not exist".to_owned(),
            io::ErrorKind::NotADirectory => "is not a folder".to_owned(),
            io::ErrorKind::PermissionDenied => "may not be read by the user of the host".to_owned(),
            _ => format!("cannot be opened: {error}"),
        })
    })?;
    if grant.is_writable() && rustix::fs::accessat(&folder, ".", Access::WRITE_OK, AtFlags::empty()).is_err() {
        return Err(fault("may not be written to by the user of the host".to_owned()));
    }
    let (name, is_writable) = (grant.name().to_owned(), grant.is_writable());
    Ok(OpenFolder { name, folder: File::from(folder), is_writable })
}

/// Opens all folders of an agent.
///
/// # Errors
/// The first that cannot be opened.
pub(crate) fn open_all(spec: &AgentSpec, dir: &Path) -> Result<Vec<OpenFolder>, FolderFault> {
    spec.allow.files.iter().map(|grant| open(grant, dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_cannot_be_opened_say_why() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("there")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let open = |folder: &str| open(&FolderGrant::new(folder.to_owned(), None, true).unwrap(), dir.path());
        assert_eq!(open("there").unwrap().name, "/there");
        for (folder, expected) in [("gone", "`gone` does not exist"), ("file", "`file` is not a folder")] {
            assert_eq!(open(folder).unwrap_err().to_string(), expected);
        }
    }
}
