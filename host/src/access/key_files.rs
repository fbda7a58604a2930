//! The keys of agents' routes: shared keys and JWK sets, read from files and variables of the environment.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use caxton_control::access::KeySource;
use parking_lot::Mutex;

use super::jwt::KeySet;

/// The interval at which a file is looked at again. A look is one call of the system.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The least bytes of a shared key: a shorter one could be guessed.
const MIN_KEY: usize = 32;
/// The largest file of keys.
const MAX_FILE: u64 = 1 << 20;

/// A key or a set of keys.
#[derive(Clone)]
pub(super) enum Keys {
    /// A key that a caller and the host share.
    Shared(Arc<Vec<u8>>),
    /// The public keys of an issuer.
    Set(Arc<KeySet>),
}

/// The kind of keys in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum FileKind {
    Shared,
    Set,
}

/// The state of a file when it was read.
type FileState = (u64, Option<SystemTime>);

/// A file of keys as it was read last.
struct KnownFile {
    looked_at: Instant,
    state: Option<FileState>,
    /// The keys that were read last without an error.
    keys: Result<Keys, String>,
}

/// The files of keys. One that changes is taken up within a second; a broken one leaves the keys before it in force.
pub(super) struct KeyFiles {
    /// The folder of the declaration, from which paths start.
    folder: PathBuf,
    // Locked for a look-up, and once a second for each file also while it is looked at.
    files: Mutex<HashMap<(PathBuf, FileKind), KnownFile>>,
}

impl KeyFiles {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), files: Mutex::default() }
    }

    /// Returns the key of a caller.
    ///
    /// # Errors
    /// The reason why there is none, for the log.
    pub(super) fn shared(&self, source: &KeySource) -> Result<Arc<Vec<u8>>, String> {
        match source {
            KeySource::Variable(name) => {
                let key = std::env::var(name).map_err(|_| format!("the variable {name} is not set"))?;
                shared_key(key.into_bytes()).map_err(|why| format!("the variable {name}: {why}")).map(Arc::new)
            }
            KeySource::File(path) => match self.read(path, FileKind::Shared)? {
                Keys::Shared(key) => Ok(key),
                Keys::Set(_) => unreachable!("files are known by their kind"),
            },
        }
    }

    /// Returns the key set of a file.
    ///
    /// # Errors
    /// The reason why there is none, for the log.
    pub(super) fn set(&self, path: &str) -> Result<Arc<KeySet>, String> {
        match self.read(path, FileKind::Set)? {
            Keys::Set(set) => Ok(set),
            Keys::Shared(_) => unreachable!("files are known by their kind"),
        }
    }

    fn read(&self, path: &str, kind: FileKind) -> Result<Keys, String> {
        let path = self.folder.join(path);
        let mut files = self.files.lock();
        let now = Instant::now();
        let key = (path, kind);
        if let Some(known) = files.get_mut(&key) {
            if now.saturating_duration_since(known.looked_at) < LOOK_INTERVAL {
                return known.keys.clone();
            }
            known.looked_at = now;
            let state = file_state(&key.0);
            // Keys that could not be read are tried again, whatever the file is.
            if state == known.state && known.keys.is_ok() {
                return known.keys.clone();
            }
        }
        let state = file_state(&key.0);
        let read = read_keys(&key.0, kind);
        let before = files.remove(&key).and_then(|known| known.keys.ok());
        let keys = match (read, before) {
            (Err(why), Some(before)) => {
                tracing::error!("{why}; the keys that were read before stay in force");
                Ok(before)
            }
            // Logged here and not where a caller is refused: once for a look, however many come.
            (Err(why), None) => {
                tracing::error!("{why}; callers whose keys these are will be refused");
                Err(why)
            }
            (Ok(read), _) => Ok(read),
        };
        files.insert(key, KnownFile { looked_at: now, state, keys: keys.clone() });
        keys
    }
}

fn file_state(path: &Path) -> Option<FileState> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}

fn read_keys(path: &Path, kind: FileKind) -> Result<Keys, String> {
    let wrong = |why: String| format!("{}: {why}", path.display());
    let length = fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if length > MAX_FILE {
        return Err(wrong(format!("a file of keys has {MAX_FILE} bytes at the most; it has {length}")));
    }
    let bytes = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    match kind {
        FileKind::Shared => shared_key(bytes).map(|key| Keys::Shared(Arc::new(key))),
        FileKind::Set => KeySet::parse(&bytes).map(|set| Keys::Set(Arc::new(set))),
    }
    .map_err(wrong)
}

/// Returns a key without the line feed that an editor adds.
fn shared_key(mut key: Vec<u8>) -> Result<Vec<u8>, String> {
    while key.pop_if(|byte| matches!(byte, b'\n' | b'\r')).is_some() {}
    if key.len() < MIN_KEY {
        return Err(format!("a key has {MIN_KEY} bytes or more; it has {}", key.len()));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_broken_files_leave_them() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFiles::new(folder.path());
        let source = KeySource::File("shop.key".to_owned());
        assert!(keys.shared(&source).unwrap_err().contains("shop.key"));
        let path = folder.path().join("shop.key");
        fs::write(&path, "a".repeat(32) + "\n").unwrap();
        let look_again = || keys.files.lock().values_mut().for_each(|known| known.looked_at -= LOOK_INTERVAL);
        look_again();
        assert_eq!(*keys.shared(&source).unwrap(), vec![b'a'; 32]);
        fs::write(&path, "short").unwrap();
        look_again();
        assert_eq!(*keys.shared(&source).unwrap(), vec![b'a'; 32], "the key before stays in force");
        fs::write(&path, "b".repeat(40)).unwrap();
        look_again();
        assert_eq!(*keys.shared(&source).unwrap(), vec![b'b'; 40]);
        let error = keys.shared(&KeySource::Variable("CERTAINLY_NOT_SET".to_owned())).unwrap_err();
        assert_eq!(error, "the variable CERTAINLY_NOT_SET is not set");
    }
}
