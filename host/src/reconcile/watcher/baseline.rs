//! The state of all sources before the first builds.

use std::collections::BTreeMap;

use super::sources::{SourceStamps, SourceTree};
use super::watch_set::WatchSet;

/// The state of all sources at one moment. `built` says that the builds ran after it.
#[derive(Clone)]
pub(crate) struct SourceBaseline {
    pub(super) marks: BTreeMap<String, SourceStamps>,
    pub(super) built: bool,
}

impl SourceBaseline {
    /// Reads the current sources.
    pub(crate) fn now(watch_set: &WatchSet, built: bool) -> Self {
        let excluded = watch_set.excluded();
        let marks = watch_set.patterns().into_iter().map(|(command, patterns)| {
            let mut tree = SourceTree::default();
            patterns.iter().for_each(|pattern| _ = tree.add(pattern, &excluded));
            (command, tree.files)
        });
        Self { marks: marks.collect(), built }
    }
}
