//! The source files of builds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use caxton_control::config::nearest;
use caxton_control::files::SourceChanges;

use super::pattern::Pattern;

/// The bound of source files of one build, to bound the time of a scan: a pattern with more is a mistake. The rest is
/// ignored.
const MAX_FILES: usize = 100_000;

/// The state of a source file. The change time is left out: it changes with permissions and hard links, while the
/// content stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SourceStamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
}

impl SourceStamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The states of the sources of one build.
pub(super) type SourceStamps = BTreeMap<PathBuf, SourceStamp>;

/// Returns the differences between two states.
pub(super) fn changed(before: &SourceStamps, now: &SourceStamps) -> SourceChanges {
    let mut changed = SourceChanges::default();
    for (path, mark) in now {
        match before.get(path) {
            Some(known) if known == mark => {}
            Some(_) => _ = changed.edited.insert(path.clone()),
            None => _ = changed.added_or_removed.insert(path.clone()),
        }
    }
    changed.added_or_removed.extend(before.keys().filter(|path| !now.contains_key(*path)).cloned());
    changed
}

/// Files and folders that are excluded from all sources, by device and inode: the output of builds and the host's data.
/// As sources they would make a build start itself, or start with every message.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExcludedFiles(HashSet<(u64, u64)>);

impl ExcludedFiles {
    /// Collects those that exist at these paths.
    pub(crate) fn new<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let found = paths.into_iter().filter_map(|path| fs::metadata(path).ok());
        Self(found.map(|found| (found.dev(), found.ino())).collect())
    }

    fn has(&self, metadata: &Metadata) -> bool {
        self.0.contains(&(metadata.dev(), metadata.ino()))
    }
}

/// The result of reading sources.
#[derive(Debug, Default)]
pub(crate) struct SourceTree {
    /// The source files with their states.
    pub(super) files: SourceStamps,
    /// The folders that were searched.
    pub(super) folders: BTreeSet<PathBuf>,
    /// The folders on the current way, by device and inode, to stop at links that form a cycle.
    ancestors: Vec<(u64, u64)>,
}

impl SourceTree {
    /// Adds the sources of a pattern. Returns their number.
    pub(crate) fn add(&mut self, pattern: &Pattern, excluded: &ExcludedFiles) -> usize {
        let Ok(base) = fs::metadata(&pattern.base) else { return 0 };
        if base.is_dir() {
            return self.walk(pattern, Path::new(""), &base, excluded);
        }
        let is_source = pattern.matches(Path::new("")) && !excluded.has(&base);
        if is_source {
            self.files.insert(pattern.base.clone(), SourceStamp::of(&base));
        }
        usize::from(is_source)
    }

    fn walk(&mut self, pattern: &Pattern, below: &Path, folder: &Metadata, excluded: &ExcludedFiles) -> usize {
        let id = (folder.dev(), folder.ino());
        // A folder on the current way is a link back to it.
        if excluded.has(folder) || self.ancestors.contains(&id) || self.folders.len() >= MAX_FILES {
            return 0;
        }
        let path = pattern.base.join(below);
        // A folder that cannot be read has no sources: a build would not see them either.
        let Ok(entries) = fs::read_dir(&path) else { return 0 };
        self.folders.insert(path);
        self.ancestors.push(id);
        let mut found = 0;
        for entry in entries.flatten() {
            let below = below.join(entry.file_name());
            // Skips an entry that was removed meanwhile, or a dangling link.
            let Ok(metadata) = fs::metadata(entry.path()) else { continue };
            if metadata.is_dir() {
                if !pattern.is_excluded(&below) {
                    found += self.walk(pattern, &below, &metadata, excluded);
                }
            } else if metadata.is_file()
                && pattern.matches(&below)
                && !excluded.has(&metadata)
                && self.files.len() < MAX_FILES
            {
                self.files.insert(entry.path(), SourceStamp::of(&metadata));
                found += 1;
            }
        }
        self.ancestors.pop();
        found
    }
}

/// Returns a warning and a hint if no alternative of a pattern matches a file; `None` if one does.
pub(crate) fn no_match_warning(patterns: &[Pattern], dir: &Path, excluded: &ExcludedFiles) -> Option<(String, String)> {
    let pattern = patterns.first()?;
    let mut tree = SourceTree::default();
    // One alternative that matches is enough: others may match files that are created later.
    if patterns.iter().any(|pattern| tree.add(pattern, excluded) > 0) {
        return None;
    }
    let written = &pattern.text;
    if !pattern.base.exists() {
        let message = format!(
            "the pattern `{written}` of build.watch matches no file: {} is not there",
            shown(&pattern.base, dir)
        );
        let help = suggestion(pattern, dir).unwrap_or_else(|| {
            "paths begin in the folder of the declaration; it is followed as soon as it is there".to_owned()
        });
        return Some((message, help));
    }
    let all = Pattern::parse("**", &pattern.base).ok().and_then(|mut all| all.pop());
    let files = all.map_or(0, |all| SourceTree::default().add(&all, excluded));
    let base = shown(&pattern.base, dir);
    let message = format!("the pattern `{written}` of build.watch matches no file in {base}");
    let help = if files == 0 {
        "there is no source in it: what builds fill (target, dist, node_modules, …) counts if the pattern names it"
            .to_owned()
    } else {
        format!("`{}` would match {files}", pattern_for(&base))
    };
    Some((message, help))
}

fn pattern_for(base: &str) -> String {
    if base == "." { "**".to_owned() } else { format!("{base}/**") }
}

/// Returns the path as it would be written in a declaration in `dir`.
fn shown(path: &Path, dir: &Path) -> String {
    match path.strip_prefix(dir) {
        Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

/// Returns a suggestion if the first missing part of the path resembles an existing name.
fn suggestion(pattern: &Pattern, dir: &Path) -> Option<String> {
    let mut missing = pattern.base.as_path();
    // The outermost missing part is the one that was mistyped.
    while !missing.parent()?.exists() {
        missing = missing.parent()?;
    }
    let parent = missing.parent()?;
    let names: Vec<String> =
        fs::read_dir(parent).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = nearest(missing.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    let base = parent.join(near).join(pattern.base.strip_prefix(missing).ok()?);
    let base = shown(&base, dir);
    Some(format!("did you mean `{}`?", pattern.written_from(base.trim_end_matches('/'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in
            ["src/main.rs", "src/deep/er/a.rs", "src/target/made.rs", "lib/b.rs", "agent.wasm", "data/caxton.db"]
        {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        folder
    }

    fn sources(dir: &Path, pattern: &str, excluded: &[&str]) -> Vec<String> {
        let excluded: Vec<PathBuf> = excluded.iter().map(|path| dir.join(path)).collect();
        let mut tree = SourceTree::default();
        for pattern in Pattern::parse(pattern, dir).unwrap() {
            tree.add(&pattern, &ExcludedFiles::new(&excluded));
        }
        tree.files.keys().map(|path| shown(path, dir)).collect()
    }

    #[test]
    fn sources_are_found_through_folders_and_links() {
        let folder = project();
        let dir = folder.path();
        std::os::unix::fs::symlink("..", dir.join("src/up")).unwrap();
        std::os::unix::fs::symlink("../lib", dir.join("src/linked")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("src/broken")).unwrap();
        for (pattern, expected) in [
            ("src/*/er", vec![]),
            ("src/deep", vec!["src/deep/er/a.rs"]),
            ("lib/b.rs", vec!["lib/b.rs"]),
            ("lib/none.rs", vec![]),
            ("none", vec![]),
        ] {
            assert_eq!(sources(dir, pattern, &[]), expected, "{pattern}");
        }
        let found = sources(dir, "src/**/*.rs", &[]);
        for path in ["src/main.rs", "src/deep/er/a.rs", "src/linked/b.rs"] {
            assert!(found.contains(&path.to_owned()), "{path}: {found:?}");
        }
        assert!(!found.iter().any(|path| path.contains("target")), "{found:?}");
    }

    #[test]
    fn outputs_and_host_data_are_excluded() {
        let folder = project();
        let found = sources(folder.path(), "**", &["agent.wasm", "data"]);
        assert_eq!(found, ["lib/b.rs", "src/deep/er/a.rs", "src/main.rs"]);
    }

    #[test]
    fn every_kind_of_change_is_found() {
        let folder = project();
        let dir = folder.path();
        let marks = || {
            let mut tree = SourceTree::default();
            tree.add(&Pattern::parse("src", dir).unwrap()[0], &ExcludedFiles::default());
            tree.files
        };
        let names = |before: &SourceStamps| -> Vec<String> {
            let mut names: Vec<String> = changed(before, &marks()).files().map(|path| shown(path, dir)).collect();
            names.sort();
            names
        };
        let mut before = marks();
        assert_eq!(names(&before), Vec::<String>::new());
        for (what, change) in [
            ("written", &(|| fs::write(dir.join("src/main.rs"), "other").unwrap()) as &dyn Fn()),
            ("replaced", &|| fs::rename(dir.join("lib/b.rs"), dir.join("src/main.rs")).unwrap()),
            ("removed", &|| fs::remove_file(dir.join("src/main.rs")).unwrap()),
            ("made", &|| fs::write(dir.join("src/main.rs"), "new").unwrap()),
        ] {
            change();
            assert_eq!(names(&before), ["src/main.rs"], "{what}");
            before = marks();
        }
        fs::remove_dir_all(dir.join("src")).unwrap();
        assert_eq!(names(&before), ["src/deep/er/a.rs", "src/main.rs"]);
    }

    #[test]
    fn patterns_without_a_match_get_a_suggestion() {
        let folder = project();
        let dir = folder.path();
        let warning =
            |pattern: &str| no_match_warning(&Pattern::parse(pattern, dir).unwrap(), dir, &ExcludedFiles::default());
        assert_eq!(warning("src/**"), None);
        assert_eq!(warning("src/*.{toml,rs}"), None, "one alternative is enough");
        for (pattern, message, help) in [
            ("srcs/**", "srcs is not there", "did you mean `src/**`?"),
            ("scr/deep/**", "scr/deep is not there", "did you mean `src/deep/**`?"),
            ("src/mian.rs", "src/mian.rs is not there", "did you mean `src/main.rs`?"),
            ("elsewhere/**", "elsewhere is not there", "it is followed as soon as it is there"),
            ("src/*.go", "matches no file in src", "`src/**` would match 2"),
            ("*.go", "matches no file in .", "`**` would match"),
            ("src/target/**/*.go", "matches no file in src/target", "`src/target/**` would match 1"),
        ] {
            let (said, helps) = warning(pattern).unwrap();
            assert!(said.contains(message) && said.contains(pattern), "{pattern}: {said}");
            assert!(helps.contains(help), "{pattern}: {helps}");
        }
    }
}
