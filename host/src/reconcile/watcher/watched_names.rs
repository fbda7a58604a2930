//! The folders to watch to notice every change of the file that a path leads to, through links.
//!
//! A path leads through folders and links to a file. Each of these entries can be replaced: a link by one to another
//! release, a folder by a rename. So each folder on the way is watched for the names that matter in it:
//!
//! ```text
//! /srv/app/caxton.toml -> ..data/caxton.toml      /        srv
//! /srv/app/..data      -> ..2026-11-30            /srv     app
//!                                                 /srv/app caxton.toml, ..data, ..2026-11-30
//!                                                 /srv/app/..2026-11-30 caxton.toml
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// The bound of links in one path, the same as in Linux.
const MAX_LINKS: u32 = 40;

/// The kind of entry at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// A path with nothing at it, or with something that cannot be read.
    Missing,
    Folder,
    /// An entry that is neither a folder nor a link.
    File,
    /// A symbolic link with its target.
    Link(PathBuf),
}

impl EntryKind {
    /// Reads the kind of the entry at `path` without following a link.
    pub(super) fn now(path: &Path) -> Self {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Self::Folder,
            Ok(found) if found.is_symlink() => std::fs::read_link(path).map_or(Self::Missing, Self::Link),
            Ok(_) => Self::File,
            Err(_) => Self::Missing,
        }
    }
}

/// The names to watch, by their folders.
pub(super) struct WatchedNames<'a> {
    /// The folders on the way with the names that matter in each. None of them is a link.
    pub(super) names: BTreeMap<PathBuf, BTreeSet<OsString>>,
    /// The real paths of the files. A file that does not exist yet is included if its folder does.
    pub(super) files: BTreeSet<PathBuf>,
    kind_of: &'a dyn Fn(&Path) -> EntryKind,
    /// The kinds that were read already. Thousands of components may share a folder.
    kinds: HashMap<PathBuf, EntryKind>,
}

impl<'a> WatchedNames<'a> {
    /// Creates an empty collection. `kind` reads the entry at a path that leads through no links.
    pub(super) fn new(kind_of: &'a dyn Fn(&Path) -> EntryKind) -> Self {
        Self { names: BTreeMap::new(), files: BTreeSet::new(), kind_of, kinds: HashMap::new() }
    }

    /// Adds the folders and names of an absolute path. Returns the real path if the file exists.
    pub(super) fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut left: Vec<OsString> = parts(path).rev().collect();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            // Resolved here, after the links before it: `..` behind a link means the parent of its target.
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            self.note(&at, &part);
            let kind = self.kinds.entry(next.clone()).or_insert_with_key(|path| (self.kind_of)(path));
            match kind {
                EntryKind::Missing => {
                    if left.is_empty() {
                        self.files.insert(next);
                    }
                    return None;
                }
                EntryKind::Folder => at = next,
                EntryKind::File => {
                    if left.is_empty() {
                        self.files.insert(next.clone());
                    }
                    at = next;
                }
                EntryKind::Link(target) => {
                    links += 1;
                    // A cycle of links ends here, with the names seen so far watched.
                    if links > MAX_LINKS {
                        return None;
                    }
                    // A relative target starts from the folder of the link, which `at` still is.
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    left.extend(parts(target).rev());
                }
            }
        }
        Some(at)
    }

    fn note(&mut self, folder: &Path, name: &OsStr) {
        if let Some(names) = self.names.get_mut(folder) {
            // Checked first, because most names are known already and `insert` would need a copy.
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        } else {
            self.names.insert(folder.to_owned(), BTreeSet::from([name.to_owned()]));
        }
    }
}

/// The names of a path, `..` included.
fn parts(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of links (`path -> target`), files, and folders (with a slash at the end).
    fn follow(tree: &[&str], path: &str) -> (Option<String>, Vec<String>) {
        let tree: HashMap<PathBuf, EntryKind> = tree
            .iter()
            .map(|line| match line.split_once(" -> ") {
                Some((path, target)) => (PathBuf::from(path), EntryKind::Link(PathBuf::from(target))),
                None if line.ends_with('/') => (PathBuf::from(line.trim_end_matches('/')), EntryKind::Folder),
                None => (PathBuf::from(line), EntryKind::File),
            })
            .collect();
        let kind = |path: &Path| tree.get(path).cloned().unwrap_or(EntryKind::Missing);
        let mut places = WatchedNames::new(&kind);
        let real = places.follow(Path::new(path)).map(|path| path.display().to_string());
        let names = places.names.iter().map(|(folder, names)| {
            let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
            format!("{}: {}", folder.display(), names.join(" "))
        });
        (real, names.collect())
    }

    #[test]
    fn every_entry_on_a_path_is_watched() {
        let config_map =
            ["/c/", "/c/caxton.toml -> ..data/caxton.toml", "/c/..data -> ..1", "/c/..1/", "/c/..1/caxton.toml"];
        let current = ["/s/", "/s/current -> releases/1", "/s/releases/", "/s/releases/1/", "/s/releases/1/a.wasm"];
        for (tree, path, real, names) in [
            (&["/a/", "/a/b"][..], "/a/b", Some("/a/b"), vec!["/: a", "/a: b"]),
            (
                &config_map,
                "/c/caxton.toml",
                Some("/c/..1/caxton.toml"),
                vec!["/: c", "/c: ..1 ..data caxton.toml", "/c/..1: caxton.toml"],
            ),
            (
                &current,
                "/s/current/a.wasm",
                Some("/s/releases/1/a.wasm"),
                vec!["/: s", "/s: current releases", "/s/releases: 1", "/s/releases/1: a.wasm"],
            ),
            // Not there yet: what will make it be there matters.
            (&["/a/"], "/a/b/c/d.wasm", None, vec!["/: a", "/a: b"]),
            (&["/a/", "/a/l -> /x/y"], "/a/l", None, vec!["/: a x", "/a: l"]),
            (&["/a/", "/a/l -> ../b/f", "/b/", "/b/f"], "/a/./l", Some("/b/f"), vec!["/: a b", "/a: l", "/b: f"]),
            (&["/a/", "/a/b/", "/c/", "/c/f"], "/a/b/../../c/f", Some("/c/f"), vec!["/: a c", "/a: b", "/c: f"]),
            // In a circle.
            (&["/l -> m", "/m -> l"], "/l", None, vec!["/: l m"]),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            assert_eq!(follow(tree, path), (real.map(str::to_owned), names), "{path}");
        }
    }
}
