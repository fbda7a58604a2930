//! What has to be watched so that a name is followed, through whatever links it leads.
//!
//! A path leads through folders and links to a file. Each of these entries can be exchanged for another: a link to
//! another release, a folder by a rename. So each folder on the way is watched for the names that matter in it:
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

/// As many links as Linux follows for one path.
const MAX_LINKS: u32 = 40;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, or something that may not be looked at.
    Missing,
    /// A folder.
    Folder,
    /// Anything that is neither folder nor link.
    File,
    /// A link to this.
    Link(PathBuf),
}

impl Kind {
    /// What is there now.
    pub(super) fn now(path: &Path) -> Self {
        match std::fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Self::Folder,
            Ok(found) if found.is_symlink() => std::fs::read_link(path).map_or(Self::Missing, Self::Link),
            Ok(_) => Self::File,
            Err(_) => Self::Missing,
        }
    }
}

/// The names that matter, by their folders.
pub(super) struct Places<'a> {
    /// The folders on the way, none of them a link, with the names that matter in each.
    pub(super) names: BTreeMap<PathBuf, BTreeSet<OsString>>,
    /// The real paths of the files that were asked for, also of those that are not there yet in a folder that is.
    pub(super) files: BTreeSet<PathBuf>,
    kind: &'a dyn Fn(&Path) -> Kind,
    /// Thousands of components may be in one folder.
    known: HashMap<PathBuf, Kind>,
}

impl<'a> Places<'a> {
    /// No places yet; `kind` says what is at a path that leads through no link.
    pub(super) fn new(kind: &'a dyn Fn(&Path) -> Kind) -> Self {
        Self { names: BTreeMap::new(), files: BTreeSet::new(), kind, known: HashMap::new() }
    }

    /// Adds what matters for an absolute path. Returns the real path of what is there.
    pub(super) fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut left: Vec<OsString> = parts(path).rev().collect();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            self.note(&at, &part);
            let kind = self.known.entry(next.clone()).or_insert_with_key(|path| (self.kind)(path));
            match kind {
                Kind::Missing => {
                    if left.is_empty() {
                        self.files.insert(next);
                    }
                    return None;
                }
                Kind::Folder => at = next,
                Kind::File => {
                    if left.is_empty() {
                        self.files.insert(next.clone());
                    }
                    at = next;
                }
                Kind::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
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
        let tree: HashMap<PathBuf, Kind> = tree
            .iter()
            .map(|line| match line.split_once(" -> ") {
                Some((path, target)) => (PathBuf::from(path), Kind::Link(PathBuf::from(target))),
                None if line.ends_with('/') => (PathBuf::from(line.trim_end_matches('/')), Kind::Folder),
                None => (PathBuf::from(line), Kind::File),
            })
            .collect();
        let kind = |path: &Path| tree.get(path).cloned().unwrap_or(Kind::Missing);
        let mut places = Places::new(&kind);
        let real = places.follow(Path::new(path)).map(|path| path.display().to_string());
        let names = places.names.iter().map(|(folder, names)| {
            let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
            format!("{}: {}", folder.display(), names.join(" "))
        });
        (real, names.collect())
    }

    #[test]
    fn each_entry_on_the_way_matters() {
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
