//! The participants of a conversation.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A set of names, sorted.
///
/// Most conversations have two participants with short names: these are stored inline, so that a host with many
/// conversations touches no further memory for a message of one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
// Most conversations have two, which then need no allocation.
pub struct Participants(SmallVec<[CompactString; 2]>);

impl Participants {
    /// Returns `true` if `name` takes part.
    pub fn contains(&self, name: &str) -> bool {
        // Linear, since most conversations have two and none more than a hundred.
        self.0.iter().any(|known| known == name)
    }

    /// Returns the number of participants.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns `true` if there are none, as before the first message.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(CompactString::as_str)
    }

    /// Adds a name, which must not be in the set yet.
    pub(super) fn insert(&mut self, name: &str) {
        // Sorted, so that equal sets are equal records.
        let at = self.0.partition_point(|known| known.as_str() < name);
        self.0.insert(at, CompactString::new(name));
    }

    /// Removes a name, if present.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|known| known != name);
    }
}
