//! The format of an agent's data: the version that a revision writes, and other versions that it can read.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The highest version of a format.
// Beyond any real history, and within 32 bits.
pub(crate) const MAX_VERSION: u64 = 1_000_000;

/// The table `state`: the version of the format in which a revision writes its keys and its memory, and the other
/// versions that it can read. Version 0 is that of an agent without the table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StateFormat {
    /// The version that the revision writes.
    pub version: u32,
    /// The other versions that it can read.
    pub reads: BTreeSet<u32>,
}

impl StateFormat {
    /// Returns `true` if a revision of this format can read data of this version.
    pub fn can_read(&self, version: u32) -> bool {
        version == self.version || self.reads.contains(&version)
    }

    /// Returns the first of these versions that a revision of this format cannot read.
    pub fn unreadable(&self, versions: &BTreeSet<u32>) -> Option<u32> {
        versions.iter().copied().find(|version| !self.can_read(*version))
    }

    /// Returns `true` if revisions of the two formats can read each other's data.
    pub fn is_mutual(&self, other: &Self) -> bool {
        self.can_read(other.version) && other.can_read(self.version)
    }
}

/// A change of the format as traffic moves to a revision, carried out while the mailbox is paused and nothing is in
/// flight. A copy of the state before is stored under the number of the revision that had the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Conversion {
    /// The version that the revision before wrote.
    pub from: u32,
    /// The versions that the state may hold before.
    #[serde(rename = "holds")]
    pub state_versions: BTreeSet<u32>,
    /// The version that the new revision writes.
    pub to: u32,
    /// Set if the new revision migrates the state before its first message.
    pub migrates: bool,
    /// The stored copy that replaces the state, in an undo.
    pub restores: Option<RestoredState>,
}

/// A copy of the state that was stored when the format changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestoredState {
    /// The number of the revision that ran with it.
    pub revision: u64,
    /// The versions that it may hold.
    #[serde(rename = "holds")]
    pub state_versions: BTreeSet<u32>,
}

impl Conversion {
    /// Returns the versions that the state may hold once the new revision has written to it.
    pub fn state_versions_after(&self) -> BTreeSet<u32> {
        // A restored copy replaces everything, a migration rewrites everything; without both, old data stay among new.
        let kept = match &self.restores {
            Some(restored) => restored.state_versions.clone(),
            None if self.migrates => BTreeSet::new(),
            None => self.state_versions.clone(),
        };
        kept.into_iter().chain([self.to]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(version: u32, reads: &[u32]) -> StateFormat {
        StateFormat { version, reads: reads.iter().copied().collect() }
    }

    #[test]
    fn a_format_reads_its_own_and_the_named_versions() {
        // version, reads, held, the first that is unreadable
        for (version, reads, held, expected) in [
            (0, &[][..], &[][..], None),
            (0, &[], &[0], None),
            (0, &[], &[0, 1], Some(1)),
            (2, &[1], &[1, 2], None),
            (2, &[1], &[0, 2], Some(0)),
            (2, &[], &[1, 2], Some(1)),
        ] {
            let held: BTreeSet<u32> = held.iter().copied().collect();
            assert_eq!(format(version, reads).unreadable(&held), expected, "{version} {reads:?} {held:?}");
        }
        assert!(format(2, &[1]).is_mutual(&format(1, &[2])));
        assert!(!format(2, &[1]).is_mutual(&format(1, &[])));
        assert!(format(1, &[]).is_mutual(&format(1, &[])));
    }

    #[test]
    fn the_state_holds_old_and_new_versions_unless_migrated_or_restored() {
        let of = |migrates, restores| Conversion { from: 1, state_versions: [0, 1].into(), to: 2, migrates, restores };
        let kept = RestoredState { revision: 1, state_versions: [0].into() };
        assert_eq!(of(false, None).state_versions_after(), [0, 1, 2].into());
        assert_eq!(of(true, None).state_versions_after(), [2].into());
        assert_eq!(of(false, Some(kept)).state_versions_after(), [0, 2].into());
    }
}
