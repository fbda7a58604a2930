//! Following files: the declaration, components, and the sources that components are built from.
//!
//! Folders are watched rather than files, since editors and builds put new files in place of old ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caxton_control::AgentSpec;
use globset::{Glob, GlobSet, GlobSetBuilder};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::build;
use crate::control::Wake;

/// How long files have to be at rest before they are looked at: a save or a build writes more than once.
const REST: Duration = Duration::from_millis(60);
/// Folders that builds fill; a change in one is no change of a source.
const NOT_SOURCES: &[&str] = &["target", "node_modules", "dist", ".git", ".venv", "__pycache__"];

/// What is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    /// The declaration's file.
    pub(crate) file: PathBuf,
    /// The folder of the file.
    pub(crate) dir: PathBuf,
    /// Components of agents that follow theirs.
    pub(crate) components: BTreeSet<PathBuf>,
    /// Build commands with the globs of their sources.
    pub(crate) builds: BTreeMap<String, BTreeSet<String>>,
}

impl Followed {
    /// What these agents want followed.
    pub(crate) fn new<'a>(file: &Path, dir: &Path, agents: impl Iterator<Item = &'a Arc<AgentSpec>>) -> Self {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let mut followed = Self { file: absolute, dir: dir.to_owned(), ..Self::default() };
        for spec in agents {
            if spec.reload.watch {
                followed.components.insert(dir.join(&spec.component));
            }
            if let Some(build) = &spec.build {
                followed.builds.entry(build.command.clone()).or_default().extend(build.watch.iter().cloned());
            }
        }
        followed
    }

    /// The folders to watch, with whether what is below them counts too.
    fn folders(&self, sources: bool) -> BTreeMap<PathBuf, bool> {
        let mut folders = BTreeMap::new();
        let files = std::iter::once(&self.file).chain(&self.components);
        for folder in files.filter_map(|file| file.parent()) {
            folders.entry(folder.to_owned()).or_insert(false);
        }
        if sources {
            for glob in self.builds.values().flatten() {
                folders.insert(self.dir.join(fixed_part(glob)), true);
            }
        }
        folders
    }

    fn source_globs(&self) -> Vec<(String, GlobSet)> {
        let mut sets = Vec::new();
        for (command, globs) in &self.builds {
            let mut set = GlobSetBuilder::new();
            for glob in globs {
                match Glob::new(glob) {
                    Ok(glob) => {
                        set.add(glob);
                    }
                    Err(error) => tracing::error!(glob, %error, "sources cannot be followed"),
                }
            }
            if let Ok(set) = set.build() {
                sets.push((command.clone(), set));
            }
        }
        sets
    }
}

/// The folders of a glob before its first wildcard.
fn fixed_part(glob: &str) -> PathBuf {
    let parts = glob.split('/');
    let fixed: PathBuf = parts.take_while(|part| !part.contains(['*', '?', '[', '{'])).collect();
    // A glob without wildcards names a file; its folder is watched.
    if fixed.as_os_str() == glob { fixed.parent().map(Path::to_owned).unwrap_or_default() } else { fixed }
}

/// Follows files until `stop`: wakes the reconciler, and builds when `sources` says so.
pub(crate) async fn run(
    mut followed: watch::Receiver<Arc<Followed>>,
    sources: bool,
    wakes: mpsc::Sender<Wake>,
    stop: CancellationToken,
) {
    let (sender, mut changed) = mpsc::unbounded_channel::<PathBuf>();
    let report = move |event: notify::Result<Event>| match event {
        Ok(event) if is_change(&event.kind) => {
            for path in event.paths {
                // The receiver is gone only when the host stops.
                let _ = sender.send(path);
            }
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "following files"),
    };
    let mut watcher = match notify::recommended_watcher(report) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::error!(%error, "files are not followed: changes take effect with `caxton apply` or SIGHUP");
            stop.cancelled().await;
            return;
        }
    };
    let builds = build::Builder::start(wakes.clone(), stop.clone());
    let mut watched = BTreeMap::new();
    loop {
        let now = Arc::clone(&followed.borrow_and_update());
        watch_folders(&mut watcher, &mut watched, now.folders(sources));
        let globs = if sources { now.source_globs() } else { Vec::new() };
        // A change between the first look at the files and this watch would be missed otherwise.
        let _ = wakes.send(Wake::File).await;
        let _ = wakes.send(Wake::Components).await;
        loop {
            let first = tokio::select! {
                () = stop.cancelled() => return,
                result = followed.changed() => {
                    if result.is_err() {
                        return;
                    }
                    break;
                }
                Some(path) = changed.recv() => path,
            };
            let mut paths = BTreeSet::from([first]);
            while let Ok(Some(path)) = tokio::time::timeout(REST, changed.recv()).await {
                paths.insert(path);
            }
            for (command, set) in &globs {
                if paths.iter().any(|path| is_source(path, &now.dir, set)) {
                    builds.ask(command.clone(), now.dir.clone());
                }
            }
            if paths.contains(&now.file) {
                let _ = wakes.send(Wake::File).await;
            }
            if paths.iter().any(|path| now.components.contains(path)) {
                let _ = wakes.send(Wake::Components).await;
            }
        }
    }
}

fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => true,
        EventKind::Access(_) => false,
    }
}

fn is_source(path: &Path, dir: &Path, globs: &GlobSet) -> bool {
    let Ok(relative) = path.strip_prefix(dir) else { return false };
    let built = relative.components().any(|part| NOT_SOURCES.iter().any(|name| part.as_os_str() == *name));
    !built && globs.is_match(relative)
}

/// Watches these folders and no others.
fn watch_folders(
    watcher: &mut RecommendedWatcher,
    watched: &mut BTreeMap<PathBuf, bool>,
    wanted: BTreeMap<PathBuf, bool>,
) {
    for (folder, deep) in std::mem::take(watched) {
        if wanted.get(&folder) == Some(&deep) {
            watched.insert(folder, deep);
        } else {
            // A folder that is gone is not watched any more anyway.
            let _ = watcher.unwatch(&folder);
        }
    }
    for (folder, deep) in wanted {
        if watched.contains_key(&folder) {
            continue;
        }
        let mode = if deep { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
        match watcher.watch(&folder, mode) {
            Ok(()) => {
                watched.insert(folder, deep);
            }
            Err(error) => tracing::warn!(folder = %folder.display(), %error, "a folder is not followed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_watched_from_their_fixed_part() {
        for (glob, folder) in [
            ("components/triage/**", "components/triage"),
            ("components/*/src/*.rs", "components"),
            ("src/main.rs", "src"),
            ("main.rs", ""),
            ("**", ""),
        ] {
            assert_eq!(fixed_part(glob), PathBuf::from(folder), "{glob}");
        }
    }

    #[test]
    fn what_builds_write_is_no_source() {
        let mut set = GlobSetBuilder::new();
        set.add(Glob::new("components/**").unwrap());
        let set = set.build().unwrap();
        for (path, source) in [
            ("/p/components/a/src/lib.rs", true),
            ("/p/components/target/a.rs", false),
            ("/p/components/dist/a.wasm", false),
            ("/p/other/a.rs", false),
            ("/q/components/a.rs", false),
        ] {
            assert_eq!(is_source(Path::new(path), Path::new("/p"), &set), source, "{path}");
        }
    }
}
