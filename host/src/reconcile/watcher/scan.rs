//! A scan of the followed files, and the actions that follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::ops::BitOrAssign;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caxton_control::Digest;
use caxton_control::files::{BuildQueue, RefusedBuild, SourceChanges};

use super::baseline::SourceBaseline;
use super::inotify::{FileEvent, Inotify, WatchMask, WriteState};
use super::pattern::Pattern;
use super::sources::{SourceStamps, SourceTree, changed, no_match_warning};
use super::watch_set::WatchSet;
use super::watched_names::{EntryKind, WatchedNames};
use crate::reconcile::file_stamp::{FileStamp, OpenWrites};
use crate::reconcile::handle::Wake;
use crate::wasm::digest;

/// The coarsest timestamps of common file systems (FAT: two seconds). A file that is younger may have been written
/// again with the same timestamp.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(2_500);
/// The number of changed sources that a log line names.
const MAX_NAMED: usize = 3;

/// The parts that the next scan has to cover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ScanHints {
    /// The declaration and the components.
    files: bool,
    /// The sources of builds.
    sources: bool,
}

impl ScanHints {
    /// A scan of everything.
    pub(super) const ALL: Self = Self { files: true, sources: true };

    /// Returns `true` if a scan is due for any part.
    pub(super) fn any(self) -> bool {
        self.files || self.sources
    }
}

impl BitOrAssign for ScanHints {
    fn bitor_assign(&mut self, other: Self) {
        *self = Self { files: self.files || other.files, sources: self.sources || other.sources };
    }
}

/// The result of a scan.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    /// The reasons to wake the reconciler.
    pub(super) wakes: Vec<Wake>,
    /// Set if folders are watched that were not before: changes made in them before the watch may have been missed.
    pub(super) watches_new_folders: bool,
}

/// The watched folders with the names that matter in each.
type FolderNames = BTreeMap<PathBuf, BTreeSet<OsString>>;

/// The state of a file at a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScannedFile {
    stamp: Option<FileStamp>,
    /// Set if any later write has to change the stamp. It is not if the file is younger than [`TIMESTAMP_GRANULARITY`].
    is_certain: bool,
}

/// The followed files with their state at the last scan.
pub(super) struct WatchedFiles {
    followed: Arc<WatchSet>,
    writing: OpenWrites,
    /// The stamp and the digest of the declaration.
    file: (Option<FileStamp>, Option<Digest>),
    components: BTreeMap<PathBuf, ScannedFile>,
    named: BTreeMap<PathBuf, ScannedFile>,
    /// The names of the declaration, the components and the other files that it names, with the real paths of these files.
    names: FolderNames,
    files: BTreeSet<PathBuf>,
    sources: Option<BuildSources>,
}

/// The sources of all builds and the state of the builds.
struct BuildSources {
    builds: BuildQueue,
    patterns: BTreeMap<String, Vec<Pattern>>,
    marks: BTreeMap<String, SourceStamps>,
    names: FolderNames,
    files: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    /// Set if the builds ran at the start, after their sources were recorded.
    built: bool,
}

impl WatchedFiles {
    pub(super) fn new(followed: Arc<WatchSet>, before: Option<SourceBaseline>, writing: OpenWrites) -> Self {
        let sources = before.map(|SourceBaseline { marks, built }| BuildSources {
            builds: BuildQueue::default(),
            patterns: BTreeMap::new(),
            marks,
            names: FolderNames::new(),
            files: BTreeSet::new(),
            folders: BTreeSet::new(),
            built,
        });
        let mut watched = Self {
            followed: Arc::default(),
            writing,
            file: (None, None),
            components: BTreeMap::new(),
            named: BTreeMap::new(),
            names: FolderNames::new(),
            files: BTreeSet::new(),
            sources,
        };
        watched.follow(followed);
        watched
    }

    /// Replaces the set of followed files.
    pub(super) fn follow(&mut self, followed: Arc<WatchSet>) {
        if let Some(sources) = &mut self.sources {
            sources.declare(&self.followed, &followed);
        }
        self.followed = followed;
    }

    /// Returns the working folder of builds.
    pub(super) fn dir(&self) -> PathBuf {
        self.followed.dir.clone()
    }

    /// Returns the parts that the events concern, and notes files that are being written.
    pub(super) fn hints<'a>(&self, events: impl Iterator<Item = &'a FileEvent>) -> ScanHints {
        let mut hints = ScanHints::default();
        for event in events {
            match event {
                FileEvent::Overflow => {
                    tracing::debug!("the kernel's queue of file changes has overflowed; all files are scanned");
                    self.writing.forget();
                    hints = ScanHints::ALL;
                }
                FileEvent::Folder => hints = ScanHints::ALL,
                FileEvent::Entry { folders, name, file } => {
                    for folder in folders {
                        hints |= self.entry(folder, name, *file);
                    }
                }
            }
        }
        hints
    }

    fn entry(&self, folder: &Path, name: &OsStr, file: WriteState) -> ScanHints {
        let mut hints = ScanHints::default();
        if has(&self.names, folder, name) {
            hints.files = true;
            let path = folder.join(name);
            match file {
                WriteState::Written if self.files.contains(&path) => self.writing.note(&path, true),
                WriteState::Written | WriteState::Closed => self.writing.note(&path, false),
                WriteState::Neither => {}
            }
        }
        if let Some(sources) = &self.sources {
            hints.sources = has(&sources.names, folder, name)
                || sources.folders.contains(folder) && sources.may_be_source(&folder.join(name), file);
        }
        hints
    }

    /// Scans the parts that `hints` names. Blocks on the file system.
    pub(super) fn scan(&mut self, hints: ScanHints, inotify: Option<&mut Inotify>) -> ScanResult {
        let kind = EntryKind::now;
        if hints.files {
            let mut places = WatchedNames::new(&kind);
            places.follow(&self.followed.file);
            let files = self.followed.components.iter().chain(&self.followed.named);
            files.for_each(|path| _ = places.follow(path));
            (self.names, self.files) = (places.names, places.files);
        }
        if hints.sources
            && let Some(sources) = &mut self.sources
        {
            let mut places = WatchedNames::new(&kind);
            let patterns = sources.patterns.values().flatten();
            patterns.for_each(|pattern| _ = places.follow(&pattern.base));
            (sources.names, sources.files) = (places.names, places.files);
            // A build may rewrite sources while it runs; they are read when it has ended.
            if !sources.builds.is_running() {
                sources.scan(&self.followed);
            }
        }
        let watches_new_folders = inotify.is_some_and(|inotify| self.watch(inotify));
        // Read after the watch is set: a change made later causes an event.
        let wakes = if hints.files { self.scan_files() } else { Vec::new() };
        ScanResult { wakes, watches_new_folders }
    }

    /// Watches all folders that matter. Returns `true` if some were not watched before.
    fn watch(&self, inotify: &mut Inotify) -> bool {
        let mut wanted: BTreeMap<PathBuf, WatchMask> = BTreeMap::new();
        let of_sources = self.sources.iter().map(|sources| (&sources.names, &sources.files));
        let places: Vec<(&FolderNames, &BTreeSet<PathBuf>)> =
            std::iter::once((&self.names, &self.files)).chain(of_sources).collect();
        for folder in places.iter().flat_map(|(names, _)| names.keys()) {
            wanted.insert(folder.clone(), WatchMask::Names);
        }
        // After the names: a folder with files needs the closer of both masks.
        for folder in places.iter().flat_map(|(_, files)| *files).filter_map(|file| file.parent()) {
            wanted.insert(folder.to_owned(), WatchMask::Content);
        }
        for folder in self.sources.iter().flat_map(|sources| &sources.folders) {
            wanted.insert(folder.clone(), WatchMask::Content);
        }
        inotify.watch(&wanted)
    }

    fn scan_files(&mut self) -> Vec<Wake> {
        let mut wakes = Vec::new();
        let stamp = FileStamp::now(&self.followed.file);
        // The declaration is small and matters most, so that its content is compared even if its timestamps are
        // unchanged.
        let content = std::fs::read(&self.followed.file).ok().map(|bytes| digest(&bytes));
        // The stamp is compared as well: a file that is touched asks for another try after an error.
        if (stamp, content) != self.file {
            self.file = (stamp, content);
            wakes.push(Wake::File);
        }
        let examine = |path: &PathBuf| {
            let stamp = FileStamp::now(path);
            // A stamp of the future, or none, is no reason to look again and again.
            let is_certain = stamp.and_then(|stamp| stamp.age()).is_none_or(|age| age >= TIMESTAMP_GRANULARITY);
            (path.clone(), ScannedFile { stamp, is_certain })
        };
        for (paths, known, wake) in [
            (&self.followed.components, &mut self.components, Wake::Components),
            (&self.followed.named, &mut self.named, Wake::NamedFiles),
        ] {
            let seen: BTreeMap<PathBuf, ScannedFile> = paths.iter().map(examine).collect();
            let is_changed = |(path, now): (&PathBuf, &ScannedFile)| {
                known.get(path).is_none_or(|before| before.stamp != now.stamp || !before.is_certain)
            };
            if seen.iter().any(is_changed) {
                wakes.push(wake);
            }
            *known = seen;
        }
        wakes
    }

    /// Returns the build to start next, if one is due.
    pub(super) fn next_build(&mut self) -> Option<String> {
        self.sources.as_mut()?.builds.begin_next()
    }

    /// Reads the sources after a build has ended, to find changes made meanwhile.
    pub(super) fn built(&mut self) {
        if let Some(sources) = &mut self.sources {
            let changed = tokio::task::block_in_place(|| sources.read(&self.followed));
            let refused = sources.builds.ended(changed);
            warn_of_loops(&refused);
        }
    }
}

fn has(names: &FolderNames, folder: &Path, name: &OsStr) -> bool {
    names.get(folder).is_some_and(|names| names.contains(name))
}

impl BuildSources {
    /// Adopts a changed set of builds. The sources of a new build count as unchanged from now on.
    fn declare(&mut self, before: &WatchSet, now: &WatchSet) {
        if (&before.builds, &before.dir) == (&now.builds, &now.dir) {
            return;
        }
        self.patterns = now.patterns();
        // Before the first call nothing was followed, and the marks are those taken before the first builds.
        self.marks
            .retain(|command, _| before.builds.is_empty() || before.builds.get(command) == now.builds.get(command));
        self.builds.retain(|command| now.builds.contains_key(command));
        let excluded = now.excluded();
        for (command, patterns) in &self.patterns {
            for alternatives in patterns.chunk_by(|one, other| one.text == other.text) {
                let known = before.builds.get(command).is_some_and(|known| known.contains(&alternatives[0].text));
                // Once for each new pattern: a scan every few seconds would repeat the warning.
                if !known && let Some((message, help)) = no_match_warning(alternatives, &now.dir, &excluded) {
                    tracing::warn!(command, "{message}; {help}");
                }
            }
        }
    }

    /// Scans the sources while no build runs.
    fn scan(&mut self, followed: &WatchSet) {
        let changed = self.read(followed);
        if std::mem::take(&mut self.built) {
            self.builds.ran(changed);
            return;
        }
        for (command, changed) in changed {
            tracing::debug!(command, files = %first_names(changed.files()), "sources changed");
            self.builds.changed(&command);
        }
    }

    /// Reads the sources of all builds. Returns the changes since the last read, by build command.
    fn read(&mut self, followed: &WatchSet) -> BTreeMap<String, SourceChanges> {
        let excluded = followed.excluded();
        let mut all = BTreeMap::new();
        self.folders.clear();
        for (command, patterns) in &self.patterns {
            let mut tree = SourceTree::default();
            patterns.iter().for_each(|pattern| _ = tree.add(pattern, &excluded));
            self.folders.append(&mut tree.folders);
            // The sources of a new build have no earlier state to compare with.
            let differ = self.marks.get(command).map(|before| changed(before, &tree.files));
            if let Some(differ) = differ.filter(|differ| !differ.is_empty()) {
                all.insert(command.clone(), differ);
            }
            self.marks.insert(command.clone(), tree.files);
        }
        all
    }

    /// Returns `true` if this path may be a source or a folder with sources.
    fn may_be_source(&self, path: &Path, file: WriteState) -> bool {
        self.patterns.values().flatten().any(|pattern| {
            path.strip_prefix(&pattern.base).is_ok_and(|below| match file {
                WriteState::Neither => !pattern.is_excluded(below),
                WriteState::Written | WriteState::Closed => pattern.matches(below),
            })
        })
    }
}

/// Warns of builds that are not run again because they change their own sources.
fn warn_of_loops(refused: &[RefusedBuild]) {
    for refused in refused {
        tracing::warn!(
            command = refused.command,
            "the build changes its own sources ({}) and is not run again for that; name what it writes in no pattern of build.watch",
            first_names(refused.changed.iter())
        );
    }
}

/// Returns up to [`MAX_NAMED`] of these paths as text for a log line.
fn first_names<'a>(files: impl Iterator<Item = &'a PathBuf>) -> String {
    let all: Vec<String> = files.map(|path| path.display().to_string()).collect();
    let named = all[..all.len().min(MAX_NAMED)].join(", ");
    if all.len() > MAX_NAMED { format!("{named} and {} more", all.len() - MAX_NAMED) } else { named }
}
