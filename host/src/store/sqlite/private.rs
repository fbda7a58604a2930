//! The permissions of the files in a data folder: messages and logs are for the owner's eyes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The files and folders of a host in its data folder, by the beginnings of their names. A data folder may have others,
/// which are not the host's.
const OURS: [&str; 8] = ["caxton.db", "lock", "token", "host.", "logs", "components", "cache", "copy-"];

/// Takes the permissions of others from what a host keeps in its data folder, however it came there. What cannot be
/// changed stays: a file system without modes has none to set.
pub(in crate::store) fn close(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if OURS.iter().any(|ours| name.as_encoded_bytes().starts_with(ours.as_bytes())) {
            close_all(&entry.path());
        }
    }
}

/// Takes the permissions of others from a file, or from a folder and the files in it.
fn close_all(path: &Path) {
    // Of the link itself: the file that a link names may be anybody's.
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if metadata.is_symlink() {
        return;
    }
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & 0o700));
    }
    if metadata.is_dir() {
        fs::read_dir(path).into_iter().flatten().flatten().for_each(|entry| close_all(&entry.path()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_keeps_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("logs")).unwrap();
        for name in ["caxton.db", "caxton.db-wal", "logs/echo.log", "notes"] {
            fs::write(path(name), "").unwrap();
            fs::set_permissions(path(name), Permissions::from_mode(0o664)).unwrap();
        }
        fs::set_permissions(path("logs"), Permissions::from_mode(0o775)).unwrap();
        std::os::unix::fs::symlink(path("notes"), path("host.json")).unwrap();
        close(folder.path());
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(["caxton.db", "caxton.db-wal", "logs/echo.log"].map(mode), [0o600; 3]);
        assert_eq!(mode("logs"), 0o700);
        assert_eq!(mode("notes"), 0o664, "neither by its name nor by a link");
    }
}
