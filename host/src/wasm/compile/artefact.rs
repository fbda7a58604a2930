//! The cache of compiled components on disk.
//!
//! An artefact is machine code: a user who can write one runs code in the host. So the folder is accessible to its
//! owner only, every artefact carries a MAC under a key beside it, and a name is written once (temporary file, sync,
//! rename). The name contains the component's digest and wasmtime's compatibility hash, so that another version,
//! machine or setting finds no artefact instead of a wrong one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use caxton_control::Digest;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::wasm::compile::engine_kind::EngineKind;

type Sealer = Hmac<Sha256>;

/// The length of the key and of the MAC in bytes.
const KEY_BYTES: usize = 32;

/// The compatibility of the engine of each kind; `None` for one that cannot be created.
pub(in crate::wasm) type KnownEngines = [Option<String>; EngineKind::ALL.len()];

/// The cache's folder.
pub(in crate::wasm) struct Artefacts {
    pub(in crate::wasm) folder: PathBuf,
    /// Set if other hosts use the folder too.
    pub(in crate::wasm) shared: bool,
    /// The compatibility of the engines whose artefacts are used, computed once.
    pub(in crate::wasm) engines: OnceLock<KnownEngines>,
    key: [u8; KEY_BYTES],
    pub(in crate::wasm) compiler: Vec<OsString>,
}

impl Artefacts {
    /// Opens the folder. Creates it and its key if they are missing.
    pub(in crate::wasm) fn open(folder: PathBuf, compiler: Vec<OsString>, shared: bool) -> io::Result<Self> {
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // An existing folder may have been created with other permissions.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        // After the permissions: a key that others could read would let them seal artefacts.
        let key = key(&folder)?;
        Ok(Self { folder, shared, engines: OnceLock::new(), key, compiler })
    }

    /// Returns the path of the artefact of a component for an engine.
    pub(in crate::wasm) fn path(&self, digest: Digest, engine: &Engine) -> PathBuf {
        self.folder.join(format!("{digest}-{}.cwasm", compatibility(engine)))
    }

    /// Returns a temporary path in the folder, for [`keep`](Self::keep).
    pub(in crate::wasm) fn temporary(&self) -> PathBuf {
        self.folder.join(format!("{}.tmp", uuid::Uuid::now_v7()))
    }

    /// Seals the compiler's output in `temporary` and renames it.
    pub(in crate::wasm) fn keep(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        let file = File::open(temporary)?;
        // Sealed under the final name, which the MAC covers.
        let seal = self.seal(path, &file)?;
        file.sync_all()?;
        let seal_temporary = temporary.with_extension("seal");
        // Read-only from the start, and new: an existing file could be one that another process holds open.
        let mut seal_file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&seal_temporary)?;
        seal_file.write_all(&seal)?;
        seal_file.sync_all()?;
        fs::set_permissions(temporary, fs::Permissions::from_mode(0o400))?;
        // The seal first: an artefact without one would be rejected by a host that finds it in between.
        fs::rename(seal_temporary, seal_path(path))?;
        fs::rename(temporary, path)?;
        // Renames are durable only with their folder.
        File::open(&self.folder)?.sync_all()
    }

    /// Loads a stored artefact; `None` if there is none that can be trusted. One with a wrong seal is removed with a
    /// warning.
    pub(in crate::wasm) fn find(&self, engine: &Engine, path: &Path) -> Option<Component> {
        // Asked first, because a missing artefact is usual and deserves no warning.
        if !path.exists() {
            return None;
        }
        match self.load(engine, path) {
            Ok(component) => {
                if self.shared {
                    mark_used(path);
                }
                Some(component)
            }
            Err(why) => {
                tracing::warn!(artefact = %path.display(), why, "a compiled component is not used and made again");
                // Ignored: an artefact that cannot be removed is replaced by the rename after compiling.
                let _ = fs::remove_file(path);
                let _ = fs::remove_file(seal_path(path));
                None
            }
        }
    }

    /// Loads an artefact.
    ///
    /// # Errors
    /// The seal does not match, or the engine has no room for the component's instances.
    pub(in crate::wasm) fn load(&self, engine: &Engine, path: &Path) -> Result<Component, String> {
        // Read and not mapped: a file that is cut while it is mapped ends the process. And once, so that what is loaded
        // is what was verified.
        let artefact = fs::read(path).map_err(|error| error.to_string())?;
        // A missing seal is an empty one, which no MAC matches.
        let sealed = fs::read(seal_path(path)).unwrap_or_default();
        // `verify_slice` compares in constant time.
        if self.mac(path, artefact.as_slice()).is_ok_and(|mac| mac.verify_slice(&sealed).is_ok()) {
            deserialize(engine, &artefact).map_err(|error| format!("{error:#}"))
        } else {
            Err("its seal does not fit".to_owned())
        }
    }

    fn seal(&self, path: &Path, file: &File) -> io::Result<Vec<u8>> {
        Ok(self.mac(path, file)?.finalize().into_bytes().to_vec())
    }

    /// The MAC covers the name too, so that an artefact cannot stand in for another.
    fn mac(&self, path: &Path, mut file: impl Read) -> io::Result<Sealer> {
        let mut mac = Sealer::new_from_slice(&self.key).expect("every length of key will do");
        mac.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        // Separates the name from the content.
        mac.update(&[0]);
        // Read in pieces, because artefacts of large components take tens of megabytes.
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(mac),
                n => mac.update(&buffer[..n]),
            }
        }
    }
}

/// Returns the part of an artefact's name that identifies the engine it was compiled for.
pub(in crate::wasm) fn compatibility(engine: &Engine) -> String {
    // Hosts that share the folder must agree on the name.
    let mut hash = Fnv::default();
    engine.precompile_compatibility_hash().hash(&mut hash);
    format!("{:016x}", hash.0)
}

pub(in crate::wasm) fn seal_path(path: &Path) -> PathBuf {
    path.with_extension("seal")
}

/// Marks an artefact as used. Fails silently in a folder of another user, which is not cleaned up either.
pub(in crate::wasm) fn mark_used(path: &Path) {
    let _ = File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
}

#[allow(unsafe_code, reason = "loading machine code is what an artefact cache is for; see the module's text")]
fn deserialize(engine: &Engine, artefact: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes were written by wasmtime, and their MAC was verified just now, in memory that nobody else writes
    // to. Only the owner of the folder holds the key.
    unsafe { Component::deserialize(engine, artefact) }
}

/// Reads the key of the folder, or creates one.
fn key(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join("key");
    loop {
        match File::open(&path) {
            Ok(mut file) => {
                let mut key = [0; KEY_BYTES];
                match file.read_exact(&mut key) {
                    Ok(()) => return Ok(key),
                    // A half-written key sealed nothing that could be trusted.
                    Err(_) => fs::remove_file(&path)?,
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: [u8; KEY_BYTES] = rand::random();
                let temporary = folder.join(format!("key.{}", uuid::Uuid::now_v7()));
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(&temporary)?;
                file.write_all(&key)?;
                file.sync_all()?;
                // The link fails if another host was first; its key is read in the next turn of the loop.
                let linked = fs::hard_link(&temporary, &path);
                fs::remove_file(&temporary)?;
                match linked {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// FNV-1a, which is the same in every build, unlike the hasher of std.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
