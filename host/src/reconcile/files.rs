//! What the components' files hold, without reading one twice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_control::plan::{Component, Wanted};

use super::Reconciler;
use crate::wasm::{MAX_COMPONENT, digest};
use crate::watch::Followed;

/// Which state of a file a digest was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The files that were looked at.
#[derive(Debug, Default)]
pub(crate) struct Files {
    known: HashMap<PathBuf, (Option<Stamp>, Component)>,
    /// Those looked at since `begin`: many agents may share one.
    fresh: HashSet<PathBuf>,
}

impl Files {
    /// From now on, each file is looked at once more.
    pub(crate) fn begin(&mut self) {
        self.fresh.clear();
    }

    /// What a component's file holds. `shown` is the path as the declaration has it, for messages.
    pub(crate) fn look(&mut self, path: &Path, shown: &str) -> Component {
        if !self.fresh.insert(path.to_owned())
            && let Some((_, component)) = self.known.get(path)
        {
            return component.clone();
        }
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                let why = match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        format!("the component {shown} is not there; build it (`caxton up --build`) or mend the path")
                    }
                    _ => format!("the component {shown} cannot be read: {error}"),
                };
                return self.keep(path, None, Component::Unusable(why));
            }
        };
        let stamp = Stamp::of(&metadata);
        if let Some((Some(known), component)) = self.known.get(path)
            && *known == stamp
        {
            return component.clone();
        }
        let component = if !metadata.is_file() {
            Component::Unusable(format!("the component {shown} is not a file"))
        } else if metadata.len() > MAX_COMPONENT {
            Component::Unusable(format!(
                "the component {shown} has {} bytes, more than {MAX_COMPONENT}",
                metadata.len()
            ))
        } else {
            match std::fs::read(path) {
                Ok(bytes) => Component::Found(digest(&bytes)),
                Err(error) => Component::Unusable(format!("the component {shown} cannot be read: {error}")),
            }
        };
        self.keep(path, Some(stamp), component)
    }

    fn keep(&mut self, path: &Path, stamp: Option<Stamp>, component: Component) -> Component {
        self.known.insert(path.to_owned(), (stamp, component.clone()));
        component
    }
}

impl Reconciler {
    /// Tells which files matter now.
    pub(super) fn follow(&self) {
        let agents = self.declared.desired.agents.values();
        let now = Followed::new(&self.source.file, &self.declared.dir, agents);
        self.followed.send_if_modified(|before| {
            let changed = **before != now;
            if changed {
                *before = Arc::new(now);
            }
            changed
        });
    }

    /// Looks at the components' files: of agents that are new or that watch theirs, or of `all`.
    pub(super) fn look_at_components(&mut self, all: bool) {
        let mut wanted = BTreeMap::new();
        self.files.begin();
        // Specs that did not change keep their identity, so that comparing ten thousand costs nothing.
        for (name, spec) in &self.declared.desired.agents {
            let before = self.wanted.get(name);
            let spec = match before {
                Some(before) if before.spec == *spec => Arc::clone(&before.spec),
                Some(_) | None => Arc::clone(spec),
            };
            let path = self.declared.dir.join(&spec.component);
            let component = match before {
                Some(before)
                    if !all
                        && !spec.reload.watch
                        && before.spec.component == spec.component
                        && matches!(before.component, Component::Found(_)) =>
                {
                    before.component.clone()
                }
                Some(_) | None => self.files.look(&path, &spec.component),
            };
            let now = Wanted { spec, component };
            let same = |before: &Wanted| Arc::ptr_eq(&before.spec, &now.spec) && before.component == now.component;
            if !before.is_some_and(same) {
                self.standing.mark(name);
            }
            wanted.insert(name.clone(), now);
        }
        let before = std::mem::replace(&mut self.wanted, wanted);
        let gone = before.keys().filter(|name| !self.wanted.contains_key(*name));
        gone.for_each(|name| self.standing.mark(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_holds_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let mut files = Files::default();
        let look = |files: &mut Files| {
            files.begin();
            files.look(&path, "a.wasm")
        };
        let missing = "the component a.wasm is not there; build it (`caxton up --build`) or mend the path";
        assert_eq!(look(&mut files), Component::Unusable(missing.to_owned()));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(look(&mut files), Component::Found(digest(b"one")));
        std::fs::write(&path, "two").unwrap();
        assert_eq!(look(&mut files), Component::Found(digest(b"two")));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(look(&mut files), Component::Unusable(_)));
        std::fs::create_dir(&path).unwrap();
        assert_eq!(look(&mut files), Component::Unusable("the component a.wasm is not a file".to_owned()));
    }
}
