//! The eviction of compiled components from disk.
//!
//! A folder in the host's data folder contains only what this host uses. A folder shared by several hosts
//! (`CAXTON_CACHE`) belongs to none of them: a host marks the artefacts it uses by their modification time, and no host
//! removes one that was marked within [`SHARED_FOR`].

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use caxton_control::Digest;
use wasmtime::Engine;

use crate::wasm::compile::artefact::{Artefacts, KnownEngines, compatibility, mark_used, seal_path};
use crate::wasm::compile::engine;
use crate::wasm::compile::engine_kind::EngineKind;
use crate::wasm::compile::runtime::Runtime;

/// The time for which an unused artefact stays in a shared folder. A host that was stopped for longer has to compile
/// again.
const SHARED_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The age from which an unfinished file in a shared folder counts as left by a killed host: compiling takes five
/// minutes at most.
const UNFINISHED_FOR: Duration = Duration::from_secs(24 * 3_600);

/// The kind of a file in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CacheEntryKind<'a> {
    /// A compiled component of this digest, for engines of this compatibility.
    Artefact { digest: &'a str, engine: &'a str },
    /// A temporary file, or a seal without an artefact.
    Unfinished,
    /// The key, the seal of an existing artefact, or a file of other origin.
    Other,
}

/// Returns the kind of a file by its name. `sealed` tells if the artefact of a seal exists.
fn kind_of(name: &str, sealed: impl Fn(&str) -> bool) -> CacheEntryKind<'_> {
    if let Some((digest, engine)) = name.strip_suffix(".cwasm").and_then(|stem| stem.split_once('-')) {
        return CacheEntryKind::Artefact { digest, engine };
    }
    let orphan = name.strip_suffix(".seal").is_some_and(|stem| !sealed(stem));
    if orphan || name.ends_with(".tmp") || name.starts_with("key.") {
        CacheEntryKind::Unfinished
    } else {
        CacheEntryKind::Other
    }
}

impl Runtime {
    /// Removes compiled components that are neither among these digests nor in use; in a shared folder only those that
    /// no host has used for long. With `starting`, no compilation is under way yet. Blocks on the file system.
    pub(crate) fn remove_unused(&self, used: &HashSet<Digest>, starting: bool) {
        let engines = self.artefacts.engines.get_or_init(|| self.compatibilities());
        // Held throughout: a load or a compilation that starts now waits, so that its artefact is not removed in
        // between.
        let mut programs = self.programs.lock();
        let mut used: HashSet<String> = used.iter().map(ToString::to_string).collect();
        programs.retain(|(digest, _), slot| {
            // A second reference means that the program is being made.
            let in_use = Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|program| program.strong_count() > 0);
            if in_use {
                // A program in use may have left the settings already; its artefact serves the next start of the same
                // bytes.
                used.insert(digest.to_string());
            }
            in_use
        });
        // Only logged: a full folder costs disk space, and the host runs as well with it.
        if let Err(error) = self.artefacts.evict(&used, engines, starting) {
            tracing::warn!(%error, "compiled components that nothing uses stay on the disk");
        }
    }

    /// Returns the compatibility of the engines of all kinds; `None` for one that cannot be created.
    fn compatibilities(&self) -> KnownEngines {
        EngineKind::ALL.map(|kind| {
            if kind == EngineKind::Plain {
                return self.compiled(kind).ok().map(|compiled| compatibility(&compiled.engine));
            }
            // A pool of one, dropped at once: its size does not affect the compatibility.
            Engine::new(&engine::config(kind, Some((1, 1)))).ok().as_ref().map(compatibility)
        })
    }
}

impl Artefacts {
    /// Removes unused files.
    fn evict(&self, used: &HashSet<String>, engines: &KnownEngines, starting: bool) -> io::Result<()> {
        let now = SystemTime::now();
        for file in fs::read_dir(&self.folder)?.flatten() {
            let path = file.path();
            let name = file.file_name().to_string_lossy().into_owned();
            let older = |limit: Duration| {
                // A time in the future comes from a clock that was set back, and does not count as old.
                let changed = fs::metadata(&path).and_then(|metadata| metadata.modified());
                changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > limit))
            };
            match kind_of(&name, |stem| self.folder.join(format!("{stem}.cwasm")).exists()) {
                CacheEntryKind::Artefact { digest, engine } => {
                    // An engine whose compatibility is unknown keeps all artefacts.
                    let fits = engines.iter().any(|known| known.as_deref().is_none_or(|known| known == engine));
                    let is_used = used.contains(digest) && fits;
                    // The mark alone keeps other hosts from removing it, and they cannot see what this one uses.
                    if self.shared && is_used {
                        mark_used(&path);
                    }
                    if !is_used && (!self.shared || older(SHARED_FOR)) {
                        // The seal last: one that is left without its artefact is found as unfinished next time.
                        fs::remove_file(&path)?;
                        let _ = fs::remove_file(seal_path(&path));
                    }
                }
                // An unshared folder is written by this host only, and at its start not even by it.
                CacheEntryKind::Unfinished if (starting && !self.shared) || older(UNFINISHED_FOR) => {
                    let _ = fs::remove_file(&path);
                }
                CacheEntryKind::Unfinished | CacheEntryKind::Other => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;

    fn artefacts(folder: &Path, shared: bool) -> Artefacts {
        Artefacts::open(folder.to_owned(), Vec::new(), shared).unwrap()
    }

    fn put(folder: &Path, names: &[&str], age: Duration) {
        for name in names {
            let file = File::create(folder.join(name)).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
    }

    fn left(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    const ALL: [&str; 9] = [
        "aa-1.cwasm",
        "aa-1.seal",
        "aa-9.cwasm",
        "aa-9.seal",
        "bb-1.cwasm",
        "bb-1.seal",
        "cc-1.seal",
        "key.5",
        "x.tmp",
    ];
    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn evict(folder: &Path, shared: bool, starting: bool) {
        let engines = ["1", "2", "3", "4"].map(|engine| Some(engine.to_owned()));
        artefacts(folder, shared).evict(&["aa".to_owned()].into(), &engines, starting).unwrap();
    }

    #[test]
    fn an_unshared_folder_keeps_only_used_artefacts() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), &ALL, Duration::ZERO);
        evict(folder.path(), false, false);
        assert_eq!(left(folder.path()), ["aa-1.cwasm", "aa-1.seal", "cc-1.seal", "key", "key.5", "x.tmp"]);
        evict(folder.path(), false, true);
        assert_eq!(left(folder.path()), ["aa-1.cwasm", "aa-1.seal", "key"], "nothing unfinished survives a start");
    }

    #[test]
    fn a_shared_folder_keeps_artefacts_of_other_hosts() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), &ALL, 29 * DAY);
        put(folder.path(), &["cc-1.seal", "key.5", "x.tmp"], Duration::from_secs(600));
        evict(folder.path(), true, true);
        assert_eq!(left(folder.path()).len(), ALL.len() + 1, "{:?}", left(folder.path()));
        // The artefact that this host uses was marked; the others have expired.
        for name in ["aa-9.cwasm", "bb-1.cwasm"] {
            put(folder.path(), &[name], 31 * DAY);
        }
        put(folder.path(), &["cc-1.seal", "key.5", "x.tmp"], 2 * DAY);
        evict(folder.path(), true, true);
        assert_eq!(left(folder.path()), ["aa-1.cwasm", "aa-1.seal", "key"]);
        let marked = fs::metadata(folder.path().join("aa-1.cwasm")).unwrap().modified().unwrap();
        assert!(marked.elapsed().unwrap() < DAY, "it is marked each time");
    }

    #[test]
    fn files_are_classified_by_name() {
        for (name, sealed, kind) in [
            ("aa-1.cwasm", true, CacheEntryKind::Artefact { digest: "aa", engine: "1" }),
            ("aa-1.seal", true, CacheEntryKind::Other),
            ("aa-1.seal", false, CacheEntryKind::Unfinished),
            ("0199.seal", false, CacheEntryKind::Unfinished),
            ("0199.tmp", false, CacheEntryKind::Unfinished),
            ("key", false, CacheEntryKind::Other),
            ("key.0199", false, CacheEntryKind::Unfinished),
            ("README", false, CacheEntryKind::Other),
            ("strange.cwasm", false, CacheEntryKind::Other),
        ] {
            assert_eq!(kind_of(name, |_| sealed), kind, "{name}");
        }
    }
}
