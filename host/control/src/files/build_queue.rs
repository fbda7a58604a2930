//! The queue of builds that run when sources change, with the rule that ends builds which change their own sources.
//!
//! Sources that change while nothing is built were changed by a person, and are built. Those that change during a build
//! were either edited by a person, and the build missed the edit, or written by the build itself. A build writes the
//! same files in each run and a person does not: a file that changed in five runs in a row belongs to the build, and
//! its changes during a run are ignored from then on. Files that appear and disappear in each run, under new names, are
//! bounded in the same way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

/// The number of consecutive runs in which a file has to change to belong to the build. A person who saves one file
/// during each of so many runs loses the last of these edits, so it must be more than is likely beside a slow build.
const IN_A_ROW: u32 = 5;

/// The differences between the sources of a build at two times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceChanges {
    /// Files with changed content.
    pub edited: BTreeSet<PathBuf>,
    /// Files that were added or removed.
    pub added_or_removed: BTreeSet<PathBuf>,
}

impl SourceChanges {
    /// Returns `true` if nothing differs.
    pub fn is_empty(&self) -> bool {
        self.edited.is_empty() && self.added_or_removed.is_empty()
    }

    /// Returns all files that differ.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.edited.iter().chain(&self.added_or_removed)
    }
}

/// The builds that wait and the one that runs. Builds run one after another.
#[derive(Debug, Clone, Default)]
pub struct BuildQueue {
    waiting: VecDeque<String>,
    running: Option<String>,
    /// Changes during builds, by the build that ran and the build whose sources changed.
    own_changes: BTreeMap<(String, String), OwnChanges>,
}

/// The history of sources that changed in consecutive runs.
#[derive(Debug, Clone, Default)]
struct OwnChanges {
    /// Files that changed in the last run, with the number of consecutive runs in which they did.
    in_a_row: BTreeMap<PathBuf, u32>,
    /// The number of consecutive runs in which new files were added or removed.
    runs_with_new_files: u32,
}

/// A build that is not run although its sources changed, because a build changes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedBuild {
    /// The build's command.
    pub command: String,
    /// The sources that changed.
    pub changed: BTreeSet<PathBuf>,
}

impl BuildQueue {
    /// Records that sources of a build changed while no build ran, and queues the build.
    pub fn changed(&mut self, command: &str) {
        if self.is_idle() {
            // A source that one build writes for another is built each time; only a cycle within one chain has to end.
            self.own_changes.retain(|(by, of), _| by == of);
        }
        self.enqueue(command);
    }

    /// Records builds that ran before this queue existed, with the sources that changed meanwhile.
    pub fn ran(&mut self, changed: BTreeMap<String, SourceChanges>) {
        for (command, changed) in changed {
            self.running = Some(command.clone());
            self.ended(BTreeMap::from([(command, changed)]));
        }
    }

    /// Returns the build to run next and marks it as running; `None` while one runs or if none waits.
    pub fn begin_next(&mut self) -> Option<String> {
        if self.running.is_some() {
            return None;
        }
        // One at a time: a build may use all cores, and two could write the same files.
        self.running = self.waiting.pop_front();
        self.running.clone()
    }

    /// Records the end of the running build, with the sources of each build that changed meanwhile, and queues these
    /// builds. Returns the ones that are refused for the first time.
    pub fn ended(&mut self, changed: BTreeMap<String, SourceChanges>) -> Vec<RefusedBuild> {
        // Taken before anything is queued: the build that has just ended may have to run again.
        let Some(by) = self.running.take() else { return Vec::new() };
        // A run without changes breaks the series: the files are no longer taken for the build's own.
        self.own_changes.retain(|(other, of), _| *other != by || changed.contains_key(of));
        let mut refused = Vec::new();
        for (command, changed) in changed {
            let own = self.own_changes.entry((by.clone(), command.clone())).or_default();
            let (again, is_news) = own.take(&changed);
            // A build that waits reads these changes anyway, so they are not refused.
            if again || self.waiting.contains(&command) {
                self.enqueue(&command);
            } else if is_news {
                refused.push(RefusedBuild { command, changed: changed.files().cloned().collect() });
            }
        }
        refused
    }

    /// Forgets builds that are no longer declared.
    pub fn retain(&mut self, declared: impl Fn(&str) -> bool) {
        self.waiting.retain(|command| declared(command));
        self.own_changes.retain(|(by, of), _| declared(by) && declared(of));
    }

    /// Returns `true` if no build runs or waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// Returns `true` if a build runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn enqueue(&mut self, command: &str) {
        // A waiting build reads all changes when it begins, so one entry is enough.
        if !self.waiting.iter().any(|waiting| waiting == command) {
            self.waiting.push_back(command.to_owned());
        }
    }
}

impl OwnChanges {
    /// Records the changes of another run. Returns whether to build them, and if not, whether that is to be reported.
    fn take(&mut self, changed: &SourceChanges) -> (bool, bool) {
        let before = std::mem::take(&mut self.in_a_row);
        let count = |file: &PathBuf| (file.clone(), before.get(file).map_or(1, |runs| runs.saturating_add(1)));
        self.in_a_row = changed.files().map(count).collect();
        // Any file that has not changed often enough to be the build's own was edited by a person.
        let has_foreign = |files: &BTreeSet<PathBuf>| files.iter().any(|file| self.in_a_row[file] < IN_A_ROW);
        if has_foreign(&changed.edited) {
            self.runs_with_new_files = 0;
            return (true, false);
        }
        // New names never reach the count of a single file, so runs with new names are counted as a whole.
        if has_foreign(&changed.added_or_removed) {
            self.runs_with_new_files = self.runs_with_new_files.saturating_add(1);
            return (self.runs_with_new_files < IN_A_ROW, self.runs_with_new_files == IN_A_ROW);
        }
        (false, self.in_a_row.values().any(|runs| *runs == IN_A_ROW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type All = BTreeMap<String, SourceChanges>;

    fn edited(command: &str, names: &[&str]) -> All {
        let changed = SourceChanges { edited: names.iter().map(PathBuf::from).collect(), ..SourceChanges::default() };
        BTreeMap::from([(command.to_owned(), changed)])
    }

    fn came(command: &str, names: &[&str]) -> All {
        let changed =
            SourceChanges { added_or_removed: names.iter().map(PathBuf::from).collect(), ..SourceChanges::default() };
        BTreeMap::from([(command.to_owned(), changed)])
    }

    /// Runs all builds that follow from a change of the sources of `first`. Returns them in order, and the refused
    /// ones.
    fn run(builds: &mut BuildQueue, first: &str, during: impl FnMut(&str, usize) -> All) -> (Vec<String>, Vec<String>) {
        builds.changed(first);
        go_on(builds, during)
    }

    fn go_on(builds: &mut BuildQueue, mut during: impl FnMut(&str, usize) -> All) -> (Vec<String>, Vec<String>) {
        let (mut ran, mut refused) = (Vec::new(), Vec::new());
        while let Some(command) = builds.begin_next() {
            assert!(builds.begin_next().is_none(), "one at a time");
            ran.push(command.clone());
            assert!(ran.len() < 100, "without end: {ran:?}");
            let changed = during(&command, ran.len());
            refused.extend(builds.ended(changed).into_iter().map(|refused| refused.command));
        }
        assert!(builds.is_idle());
        (ran, refused)
    }

    fn times(count: usize) -> Vec<String> {
        vec!["a".to_owned(); count]
    }

    #[test]
    fn a_build_without_side_effects_runs_once() {
        let mut builds = BuildQueue::default();
        for _ in 0..3 {
            assert_eq!(run(&mut builds, "a", |_, _| All::new()), (times(1), vec![]));
        }
    }

    #[test]
    fn a_build_that_writes_into_its_sources_is_detected() {
        let mut builds = BuildQueue::default();
        let generates = |_: &str, _: usize| edited("a", &["generated.rs"]);
        assert_eq!(run(&mut builds, "a", generates), (times(5), times(1)));
        // Known from then on, and not reported again.
        for _ in 0..3 {
            assert_eq!(run(&mut builds, "a", generates), (times(1), vec![]));
        }
        // One run without the change, and the next change counts as a person's.
        assert_eq!(run(&mut builds, "a", |_, _| All::new()), (times(1), vec![]));
        let edits = |_: &str, run: usize| if run == 1 { edited("a", &["generated.rs"]) } else { All::new() };
        assert_eq!(run(&mut builds, "a", edits), (times(2), vec![]));
    }

    #[test]
    fn an_edit_during_a_build_is_built() {
        let mut builds = BuildQueue::default();
        // One file edited during four consecutive runs.
        let edits = |_: &str, run: usize| if run <= 4 { edited("a", &["main.rs"]) } else { All::new() };
        assert_eq!(run(&mut builds, "a", edits), (times(5), vec![]));
        // Beside a build that writes into its sources, another file edited in each of many runs.
        let edits = |_: &str, run: usize| match run {
            1..=10 => edited("a", &["generated.rs", &format!("file-{run}.rs")]),
            _ => edited("a", &["generated.rs"]),
        };
        assert_eq!(run(&mut builds, "a", edits).0, times(11));
        // A file that was removed and created again.
        let edits = |_: &str, run: usize| if run <= 4 { came("a", &["main.rs"]) } else { All::new() };
        assert_eq!(run(&mut builds, "a", edits), (times(5), vec![]));
    }

    #[test]
    fn a_build_that_writes_files_with_new_names_ends() {
        let mut builds = BuildQueue::default();
        let (ran, refused) = run(&mut builds, "a", |_, run| came("a", &[&format!("generated-{run}.rs")]));
        assert_eq!((ran, refused), (times(5), times(1)));
    }

    #[test]
    fn builds_that_write_into_each_others_sources_end() {
        let mut builds = BuildQueue::default();
        let other = |command: &str, _: usize| match command {
            "a" => edited("b", &["b.rs"]),
            _ => edited("a", &["a.rs"]),
        };
        for _ in 0..3 {
            let (ran, refused) = run(&mut builds, "a", other);
            assert_eq!((ran.len(), refused), (9, vec!["b".to_owned()]));
        }
    }

    #[test]
    fn sources_written_by_one_build_for_another_are_built_each_time() {
        let mut builds = BuildQueue::default();
        let next = |command: &str, _: usize| match command {
            "a" => edited("b", &["b.rs"]),
            "b" => edited("c", &["c.rs"]),
            _ => All::new(),
        };
        for _ in 0..5 {
            let (ran, refused) = run(&mut builds, "a", next);
            assert_eq!((ran.concat(), refused), ("abc".to_owned(), vec![]));
        }
    }

    #[test]
    fn builds_recorded_at_startup_count() {
        let mut builds = BuildQueue::default();
        builds.ran(edited("a", &["generated.rs"]));
        assert_eq!(go_on(&mut builds, |_, _| edited("a", &["generated.rs"])), (times(4), times(1)));
    }

    #[test]
    fn an_undeclared_build_is_not_run() {
        let mut builds = BuildQueue::default();
        builds.changed("a");
        builds.changed("b");
        builds.retain(|command| command == "b");
        assert_eq!(builds.begin_next().as_deref(), Some("b"));
        assert!(builds.is_running());
    }
}
