//! Which builds are run when sources change, and when that ends.
//!
//! Sources that change while nothing is built were changed by a person, and are built. Those that change during a build
//! may have been edited in the middle of it, which it then has missed, or written by the build itself. A build writes the
//! same files in each run, and a person does not: a file that changed in five runs in a row is the build's own, and its
//! change in a run is none from then on. Files that come and go in each run, under new names, have an end as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

/// A file that changes in so many runs in a row is written by the build. A person who saves one file during each of so
/// many runs loses the last of these edits, so it must be more than happens to somebody who works while a slow build runs.
const IN_A_ROW: u32 = 5;

/// How the sources of a build differ from what they were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Files that were there and are, with another content.
    pub edited: BTreeSet<PathBuf>,
    /// Files that came or went.
    pub others: BTreeSet<PathBuf>,
}

impl Changed {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.edited.is_empty() && self.others.is_empty()
    }

    /// All files that differ.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.edited.iter().chain(&self.others)
    }
}

/// Builds that wait and the one that runs. They are run one after another.
#[derive(Debug, Clone, Default)]
pub struct Builds {
    waiting: VecDeque<String>,
    running: Option<String>,
    /// What changes during a build, by that build and the one whose sources they are.
    made: BTreeMap<(String, String), Made>,
}

/// Sources that change in one run after another.
#[derive(Debug, Clone, Default)]
struct Made {
    /// In how many runs in a row, up to the last one.
    in_a_row: BTreeMap<PathBuf, u32>,
    /// Runs in a row in which files came or went that did not before.
    came_or_went: u32,
}

/// A build that is not run although its sources changed, since a build changes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its command.
    pub command: String,
    /// The sources that changed.
    pub changed: BTreeSet<PathBuf>,
}

impl Builds {
    /// Takes in that sources of a build changed while nothing was built.
    pub fn changed(&mut self, command: &str) {
        if self.is_idle() {
            // What one build writes for another is built each time; only within one chain it may go in a circle.
            self.made.retain(|(by, of), _| by == of);
        }
        self.ask(command);
    }

    /// Takes in that builds were run before, with the sources of each that changed meanwhile.
    pub fn ran(&mut self, changed: BTreeMap<String, Changed>) {
        for (command, changed) in changed {
            self.running = Some(command.clone());
            self.ended(BTreeMap::from([(command, changed)]));
        }
    }

    /// Returns the build to run next, which then is running; none while one is, or when none is to be run.
    pub fn begin_next(&mut self) -> Option<String> {
        if self.running.is_some() {
            return None;
        }
        self.running = self.waiting.pop_front();
        self.running.clone()
    }

    /// Takes in the end of the build that ran, with the sources of each build that changed meanwhile. Returns what is
    /// not built for them, where that is news.
    pub fn ended(&mut self, changed: BTreeMap<String, Changed>) -> Vec<Refused> {
        let Some(by) = self.running.take() else { return Vec::new() };
        self.made.retain(|(other, of), _| *other != by || changed.contains_key(of));
        let mut refused = Vec::new();
        for (command, changed) in changed {
            let made = self.made.entry((by.clone(), command.clone())).or_default();
            let (again, is_news) = made.take(&changed);
            if again || self.waiting.contains(&command) {
                self.ask(&command);
            } else if is_news {
                refused.push(Refused { command, changed: changed.files().cloned().collect() });
            }
        }
        refused
    }

    /// Forgets builds that are not declared any more.
    pub fn retain(&mut self, declared: impl Fn(&str) -> bool) {
        self.waiting.retain(|command| declared(command));
        self.made.retain(|(by, of), _| declared(by) && declared(of));
    }

    /// Whether nothing is built and nothing waits for it.
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// Whether a build runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn ask(&mut self, command: &str) {
        if !self.waiting.iter().any(|waiting| waiting == command) {
            self.waiting.push_back(command.to_owned());
        }
    }
}

impl Made {
    /// Takes in what changed in another run. Says whether it is to be built, and if not, whether that is news.
    fn take(&mut self, changed: &Changed) -> (bool, bool) {
        let before = std::mem::take(&mut self.in_a_row);
        let count = |file: &PathBuf| (file.clone(), before.get(file).map_or(1, |runs| runs.saturating_add(1)));
        self.in_a_row = changed.files().map(count).collect();
        let of_others = |files: &BTreeSet<PathBuf>| files.iter().any(|file| self.in_a_row[file] < IN_A_ROW);
        if of_others(&changed.edited) {
            self.came_or_went = 0;
            return (true, false);
        }
        if of_others(&changed.others) {
            self.came_or_went = self.came_or_went.saturating_add(1);
            return (self.came_or_went < IN_A_ROW, self.came_or_went == IN_A_ROW);
        }
        (false, self.in_a_row.values().any(|runs| *runs == IN_A_ROW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type All = BTreeMap<String, Changed>;

    fn edited(command: &str, names: &[&str]) -> All {
        let changed = Changed { edited: names.iter().map(PathBuf::from).collect(), ..Changed::default() };
        BTreeMap::from([(command.to_owned(), changed)])
    }

    fn came(command: &str, names: &[&str]) -> All {
        let changed = Changed { others: names.iter().map(PathBuf::from).collect(), ..Changed::default() };
        BTreeMap::from([(command.to_owned(), changed)])
    }

    /// Runs everything that follows from a change of the sources of `first`; gives the builds in their order and those
    /// that were refused.
    fn run(builds: &mut Builds, first: &str, during: impl FnMut(&str, usize) -> All) -> (Vec<String>, Vec<String>) {
        builds.changed(first);
        go_on(builds, during)
    }

    fn go_on(builds: &mut Builds, mut during: impl FnMut(&str, usize) -> All) -> (Vec<String>, Vec<String>) {
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
    fn a_build_that_changes_nothing_is_run_once() {
        let mut builds = Builds::default();
        for _ in 0..3 {
            assert_eq!(run(&mut builds, "a", |_, _| All::new()), (times(1), vec![]));
        }
    }

    #[test]
    fn a_build_that_writes_into_its_sources_is_found_out() {
        let mut builds = Builds::default();
        let generates = |_: &str, _: usize| edited("a", &["generated.rs"]);
        assert_eq!(run(&mut builds, "a", generates), (times(5), times(1)));
        // Known from then on, and not told again.
        for _ in 0..3 {
            assert_eq!(run(&mut builds, "a", generates), (times(1), vec![]));
        }
        // Until it does so no more: then somebody else has changed the file.
        assert_eq!(run(&mut builds, "a", |_, _| All::new()), (times(1), vec![]));
        let edits = |_: &str, run: usize| if run == 1 { edited("a", &["generated.rs"]) } else { All::new() };
        assert_eq!(run(&mut builds, "a", edits), (times(2), vec![]));
    }

    #[test]
    fn an_edit_in_the_middle_of_a_build_is_built() {
        let mut builds = Builds::default();
        // In the middle of four runs in a row, of the same file.
        let edits = |_: &str, run: usize| if run <= 4 { edited("a", &["main.rs"]) } else { All::new() };
        assert_eq!(run(&mut builds, "a", edits), (times(5), vec![]));
        // Of one that writes into its sources, in many runs, each of another file.
        let edits = |_: &str, run: usize| match run {
            1..=10 => edited("a", &["generated.rs", &format!("file-{run}.rs")]),
            _ => edited("a", &["generated.rs"]),
        };
        assert_eq!(run(&mut builds, "a", edits).0, times(11));
        // And of one that was removed and made anew.
        let edits = |_: &str, run: usize| if run <= 4 { came("a", &["main.rs"]) } else { All::new() };
        assert_eq!(run(&mut builds, "a", edits), (times(5), vec![]));
    }

    #[test]
    fn a_build_that_writes_new_names_ends_too() {
        let mut builds = Builds::default();
        let (ran, refused) = run(&mut builds, "a", |_, run| came("a", &[&format!("generated-{run}.rs")]));
        assert_eq!((ran, refused), (times(5), times(1)));
    }

    #[test]
    fn builds_that_write_into_each_others_sources_end() {
        let mut builds = Builds::default();
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
    fn what_one_build_makes_for_another_is_built_each_time() {
        let mut builds = Builds::default();
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
    fn builds_of_the_start_count() {
        let mut builds = Builds::default();
        builds.ran(edited("a", &["generated.rs"]));
        assert_eq!(go_on(&mut builds, |_, _| edited("a", &["generated.rs"])), (times(4), times(1)));
    }

    #[test]
    fn one_that_is_not_declared_any_more_is_not_run() {
        let mut builds = Builds::default();
        builds.changed("a");
        builds.changed("b");
        builds.retain(|command| command == "b");
        assert_eq!(builds.begin_next().as_deref(), Some("b"));
        assert!(builds.is_running());
    }
}
