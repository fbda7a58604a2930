//! What the declaration wants followed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use caxton_control::Desired;

use super::pattern::Pattern;
use super::sources::LeftOut;

/// What is followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Followed {
    /// The declaration's file.
    pub(crate) file: PathBuf,
    /// The folder of the file.
    pub(crate) dir: PathBuf,
    /// Components of agents that follow theirs.
    pub(crate) components: BTreeSet<PathBuf>,
    /// Build commands with the patterns of their sources.
    pub(crate) builds: BTreeMap<String, BTreeSet<String>>,
    /// What is made and what the host keeps, which are never sources: all components, and the data folder.
    made: BTreeSet<PathBuf>,
}

impl Followed {
    /// What a declaration in this file wants followed. Both paths are absolute.
    pub(crate) fn new(file: &Path, dir: &Path, desired: &Desired) -> Self {
        let mut followed = Self { file: file.to_owned(), dir: dir.to_owned(), ..Self::default() };
        for spec in desired.agents.values() {
            let component = dir.join(&spec.component);
            if spec.reload.watch && !followed.components.contains(&component) {
                followed.components.insert(component.clone());
            }
            if let Some(build) = &spec.build {
                followed.builds.entry(build.command.clone()).or_default().extend(build.watch.iter().cloned());
                followed.made.insert(component);
            }
        }
        if !followed.builds.is_empty() {
            followed.made.insert(dir.join(&desired.store.path));
        }
        followed
    }

    /// The patterns of each build. Those that can mean nothing are told and left out.
    pub(crate) fn patterns(&self) -> BTreeMap<String, Vec<Pattern>> {
        let of = |patterns: &BTreeSet<String>| {
            let parsed = patterns.iter().filter_map(|written| {
                Pattern::parse(written, &self.dir)
                    .inspect_err(|why| tracing::error!("the pattern `{written}` of build.watch is not followed: {why}"))
                    .ok()
            });
            parsed.flatten().collect()
        };
        self.builds.iter().map(|(command, patterns)| (command.clone(), of(patterns))).collect()
    }

    /// What is no source now, whatever a pattern says.
    pub(crate) fn left_out(&self) -> LeftOut {
        LeftOut::new(&self.made)
    }
}
