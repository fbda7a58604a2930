//! Who takes part in a conversation.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Names in the order of the alphabet, each once.
///
/// Most conversations are between two whose names are short: those are in the record itself, so that a host with many
/// conversations reads no further memory for a message of one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Participants(SmallVec<[CompactString; 2]>);

impl Participants {
    /// Whether somebody takes part.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// How many take part.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody does.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(CompactString::as_str)
    }

    /// Adds one who is not there yet.
    pub(super) fn insert(&mut self, name: &str) {
        let at = self.0.partition_point(|known| known.as_str() < name);
        self.0.insert(at, CompactString::new(name));
    }

    /// Removes one.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|known| known != name);
    }
}
