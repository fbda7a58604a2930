//! Copies of the bytes of revisions that are kept, since their files may hold others by now.
//!
//! The name of a copy is the digest of its bytes. A copy gets its name once all of it is on disk, so that one that
//! exists is complete.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_control::Digest;
use caxton_control::policy::{SIGNATURE_ENDING, SignatureCheck};

use super::signatures::check_signatures;
use crate::wasm::digest;

/// The folder of copies within the data folder.
#[derive(Debug, Clone)]
pub(super) struct ComponentArchive(Arc<Path>);

impl ComponentArchive {
    /// Returns the archive in this data folder. The folder is created with the first copy.
    pub(super) fn new(data: &Path) -> Self {
        Self(data.join("components").into())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.0.join(format!("{digest}.wasm"))
    }

    /// Returns the path of the copy with this digest, if there is one.
    pub(super) fn kept(&self, of: Digest) -> Option<PathBuf> {
        Some(self.path(of)).filter(|kept| kept.exists())
    }

    /// Returns a path to the bytes with this digest: the copy, which is made if the file still holds them, or else the
    /// file. Blocks.
    pub(super) fn keep(&self, of: Digest, file: &Path) -> PathBuf {
        if let Some(kept) = self.kept(of) {
            return kept;
        }
        let kept = self.path(of);
        match fs::read(file) {
            // Other errors of the file are reported when it is loaded.
            Ok(bytes) if digest(&bytes) == of => match self.write(&kept, &bytes) {
                Ok(()) => kept,
                Err(error) => {
                    tracing::warn!(%error, "a component's bytes are not kept: there is no undo to them once its file changes");
                    file.to_owned()
                }
            },
            Ok(_) | Err(_) => file.to_owned(),
        }
    }

    /// Returns the path to the signatures of the bytes with this digest.
    pub(super) fn signatures(&self, of: Digest) -> PathBuf {
        self.0.join(format!("{of}{SIGNATURE_ENDING}"))
    }

    /// Keeps the signatures in a file beside the copy with this digest, if they are of these bytes. Blocks.
    pub(super) fn keep_signatures(&self, of: Digest, file: &Path) {
        // A file that changes meanwhile is read as it is then, and checked again with each use.
        let is_signed = matches!(check_signatures(file, of), SignatureCheck::Signed(_));
        let kept = self.signatures(of);
        if let (true, Ok(text)) = (is_signed, fs::read(file))
            && fs::read(&kept).ok().as_ref() != Some(&text)
            && let Err(error) = self.write(&kept, &text)
        {
            tracing::warn!(%error, "a component's signature is not kept: there is no undo to it once its file changes");
        }
    }

    fn write(&self, kept: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        // Unique, because two revisions with the same bytes may be kept at the same time.
        let temporary = self.0.join(format!("{}.tmp", uuid::Uuid::now_v7()));
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
        let named = written.and_then(|()| fs::rename(&temporary, kept));
        if named.is_err() {
            // The disk may be full, and the part of a copy would take up room for nothing.
            let _ = fs::remove_file(&temporary);
        }
        named?;
        // The name is durable only with its folder.
        File::open(&self.0)?.sync_all()
    }

    /// Removes all other copies, and with `all` the temporary files that a killed host has left.
    pub(super) fn retain(&self, used: &HashSet<Digest>, all: bool) {
        let endings = [".wasm", SIGNATURE_ENDING];
        let names: HashSet<String> =
            used.iter().flat_map(|digest| endings.map(|ending| format!("{digest}{ending}"))).collect();
        let Ok(files) = fs::read_dir(&self.0) else { return };
        for file in files.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            // With `all` nothing is being written yet.
            let unfinished = name.ends_with(".tmp") && all;
            if unfinished || (endings.iter().any(|ending| name.ends_with(ending)) && !names.contains(&name)) {
                // A file that cannot be removed now is found again at the next start.
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_outlive_their_file_until_nobody_uses_them() {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, file) = (ComponentArchive::new(folder.path()), folder.path().join("agent.wasm"));
        let [one, two] = [digest(b"one"), digest(b"two")];
        fs::write(&file, "one").unwrap();
        let kept = bytes.keep(one, &file);
        fs::write(&file, "two").unwrap();
        assert_eq!(bytes.keep(one, &file), kept);
        assert_eq!(fs::read(&kept).unwrap(), b"one");
        assert_eq!(bytes.keep(digest(b"three"), &file), file, "the file holds other bytes");
        let second = bytes.keep(two, &file);
        fs::write(folder.path().join("components/half.tmp"), "tw").unwrap();
        bytes.retain(&[two].into(), false);
        assert_eq!((kept.exists(), second.exists()), (false, true));
        bytes.retain(&[two].into(), true);
        let left = fs::read_dir(folder.path().join("components")).unwrap().count();
        assert_eq!(left, 1, "nothing unfinished is left");
    }
}
