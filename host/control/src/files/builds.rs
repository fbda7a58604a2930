//! Which builds are run when sources change, and when that ends.
//!
//! A build may write into its own sources, or into those of another. Files that change while nothing is built are
//! changed from outside, and begin a chain. Those that change during a build may be the build's own, or an edit in the
//! middle of it: the build is run once more, for it may have missed the edit. What changes in that second run is its own
//! doing, unless other files changed than before; and that, too, has an end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

/// Runs of one build in a chain: the first, and once more for what changed in the middle of it.
const RUNS: u32 = 2;
/// The same while each run finds files changed that were not before in this chain.
const MOST_RUNS: u32 = 4;

/// Builds that wait and the one that runs. They are run one after another.
#[derive(Debug, Clone, Default)]
pub struct Builds {
    waiting: VecDeque<String>,
    running: Option<String>,
    /// What happened to each build since the last change from outside.
    chain: BTreeMap<String, Link>,
}

#[derive(Debug, Clone, Default)]
struct Link {
    runs: u32,
    /// Sources that changed while something was built.
    changed: BTreeSet<PathBuf>,
}

/// A build that is not run although its sources changed, since it changes them itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its command.
    pub command: String,
    /// The sources that changed.
    pub changed: BTreeSet<PathBuf>,
}

impl Builds {
    /// Takes in sources that changed while nothing was built: by a person, or a program of theirs.
    pub fn changed(&mut self, command: &str) {
        if self.is_idle() {
            self.chain.clear();
        }
        self.ask(command);
    }

    /// Takes in that these builds were run, one after another, with the sources of each that changed meanwhile.
    pub fn ran<'a>(&mut self, commands: impl Iterator<Item = &'a str>, changed: BTreeMap<String, BTreeSet<PathBuf>>) {
        self.chain = commands.map(|command| (command.to_owned(), Link { runs: 1, changed: BTreeSet::new() })).collect();
        self.ended(changed);
    }

    /// Returns the build to run next, which then is running; none while one is, or when none is to be run.
    pub fn next(&mut self) -> Option<String> {
        if self.running.is_some() {
            return None;
        }
        let command = self.waiting.pop_front()?;
        self.chain.entry(command.clone()).or_default().runs += 1;
        self.running = Some(command.clone());
        Some(command)
    }

    /// Takes in the end of the build that ran, with the sources of each build that changed meanwhile. Returns what is
    /// not built for them.
    pub fn ended(&mut self, changed: BTreeMap<String, BTreeSet<PathBuf>>) -> Vec<Refused> {
        self.running = None;
        let mut refused = Vec::new();
        for (command, changed) in changed {
            let link = self.chain.entry(command.clone()).or_default();
            let others = !changed.is_subset(&link.changed);
            let again = link.runs < RUNS || (others && link.runs < MOST_RUNS);
            link.changed.extend(changed.iter().cloned());
            if again || self.waiting.contains(&command) {
                self.ask(&command);
            } else {
                refused.push(Refused { command, changed });
            }
        }
        refused
    }

    /// Forgets builds that are not declared any more.
    pub fn retain(&mut self, declared: impl Fn(&str) -> bool) {
        self.waiting.retain(|command| declared(command));
        self.chain.retain(|command, _| declared(command));
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

#[cfg(test)]
mod tests {
    use super::*;

    type Changed = BTreeMap<String, BTreeSet<PathBuf>>;

    fn files(command: &str, names: &[&str]) -> Changed {
        BTreeMap::from([(command.to_owned(), names.iter().map(PathBuf::from).collect())])
    }

    /// Runs everything that follows from a change of the sources of `first`; gives the builds in their order and those
    /// that were refused.
    fn run(
        builds: &mut Builds,
        first: &str,
        mut during: impl FnMut(&str, usize) -> Changed,
    ) -> (Vec<String>, Vec<String>) {
        builds.changed(first);
        let (mut ran, mut refused) = (Vec::new(), Vec::new());
        while let Some(command) = builds.next() {
            assert!(builds.next().is_none(), "one at a time");
            ran.push(command.clone());
            assert!(ran.len() < 100, "without end: {ran:?}");
            let changed = during(&command, ran.len());
            refused.extend(builds.ended(changed).into_iter().map(|refused| refused.command));
        }
        assert!(builds.is_idle());
        (ran, refused)
    }

    #[test]
    fn a_build_that_changes_nothing_is_run_once() {
        let mut builds = Builds::default();
        for _ in 0..3 {
            assert_eq!(run(&mut builds, "a", |_, _| Changed::new()), (vec!["a".to_owned()], vec![]));
        }
    }

    #[test]
    fn a_build_that_writes_into_its_sources_is_run_once_more() {
        let mut builds = Builds::default();
        // Again and again: each change from outside begins anew.
        for _ in 0..3 {
            let (ran, refused) = run(&mut builds, "a", |_, _| files("a", &["generated.rs"]));
            assert_eq!((ran, refused), (vec!["a".to_owned(); 2], vec!["a".to_owned()]));
        }
    }

    #[test]
    fn an_edit_in_the_middle_of_a_build_is_built() {
        let mut builds = Builds::default();
        let edits = |_: &str, run: usize| if run == 1 { files("a", &["main.rs"]) } else { Changed::new() };
        assert_eq!(run(&mut builds, "a", edits), (vec!["a".to_owned(); 2], vec![]));
        // Also in the second run of one that writes into its sources.
        let edits =
            |_: &str, run: usize| files("a", if run == 2 { &["generated.rs", "main.rs"] } else { &["generated.rs"] });
        assert_eq!(run(&mut builds, "a", edits), (vec!["a".to_owned(); 3], vec!["a".to_owned()]));
    }

    #[test]
    fn a_build_that_writes_new_names_ends_too() {
        let mut builds = Builds::default();
        let (ran, refused) = run(&mut builds, "a", |_, run| files("a", &[&format!("generated-{run}.rs")]));
        assert_eq!((ran.len(), refused), (4, vec!["a".to_owned()]));
    }

    #[test]
    fn builds_that_write_into_each_others_sources_end() {
        let mut builds = Builds::default();
        let other =
            |command: &str, _: usize| if command == "a" { files("b", &["b.rs"]) } else { files("a", &["a.rs"]) };
        let (ran, refused) = run(&mut builds, "a", other);
        assert_eq!(ran, ["a", "b", "a", "b"]);
        assert_eq!(refused, ["a"]);
    }

    #[test]
    fn what_one_build_makes_for_another_is_built_in_turn() {
        let mut builds = Builds::default();
        let next = |command: &str, _: usize| match command {
            "a" => files("b", &["b.rs"]),
            "b" => files("c", &["c.rs"]),
            _ => Changed::new(),
        };
        assert_eq!(run(&mut builds, "a", next), (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], vec![]));
    }

    #[test]
    fn builds_of_the_start_count() {
        let mut builds = Builds::default();
        builds.ran(["a", "b"].into_iter(), files("a", &["generated.rs"]));
        assert_eq!(builds.next().as_deref(), Some("a"), "once more, for an edit in the middle of the first");
        assert_eq!(builds.ended(files("a", &["generated.rs"])).len(), 1);
        assert!(builds.is_idle());
    }

    #[test]
    fn one_that_is_not_declared_any_more_is_not_run() {
        let mut builds = Builds::default();
        builds.changed("a");
        builds.changed("b");
        builds.retain(|command| command == "b");
        assert_eq!(builds.next().as_deref(), Some("b"));
        assert!(builds.is_running());
    }
}
