//! Differences between two answers, as the management API shows them.

use caxton_control::rollout::comparison::{AnswerDifference, IgnoredPaths};

use crate::api_types::PathDifference;

/// The most paths that are learned to differ by nature: answers with random names would add one with every message.
pub(super) const MAX_LEARNED: usize = 1_000;
/// The longest path that is shown, in characters. A path repeats keys of the answer, which may be of any length.
const MAX_PATH: usize = 300;

/// Adds paths at which a revision differs from itself to those that are ignored, and returns the new ones.
pub(super) fn learn(ignore: &mut IgnoredPaths, differences: &[AnswerDifference]) -> Vec<String> {
    let before = ignore.paths().len();
    ignore.learn(differences);
    ignore.paths().split_off(before)
}

/// Returns a difference as the API shows it.
pub(super) fn shown(found: AnswerDifference) -> PathDifference {
    PathDifference { path: shortened(&found.path), stable: found.stable, candidate: found.candidate }
}

/// Returns a path of a length that can be shown.
pub(super) fn shortened(path: &str) -> String {
    match path.char_indices().nth(MAX_PATH) {
        Some((end, _)) => format!("{}…", &path[..end]),
        None => path.to_owned(),
    }
}
