//! Memories that are not part of commits, although they are declared so.

use caxton_control::desired::SnapshotSpec;
use caxton_control::snapshot::SaveMode;
use serde_json::json;

use super::unsaved::Deferral;
use crate::agent::{Agent, Revision};
use crate::api_types::MemoryStatus;

impl Agent {
    /// Returns `true` if a memory of this size may be part of commits.
    pub(super) fn may_commit(&self, revision: &Revision, spec: &SnapshotSpec, bytes: u64) -> bool {
        let is_too_long = match &self.unsaved.lock().deferral {
            Some(Deferral::TooLong { revision: of, .. }) => *of == revision.id.number,
            Some(Deferral::TooLarge(_)) | None => false,
        };
        spec.save == SaveMode::Commit && bytes <= spec.commit_max_bytes && !is_too_long
    }

    /// Returns `true` if the memory is not part of commits, although it is declared so.
    pub(super) fn is_deferred(&self, revision: &Revision) -> bool {
        match &self.unsaved.lock().deferral {
            None => false,
            Some(Deferral::TooLarge(_)) => true,
            // Another revision may be faster.
            Some(Deferral::TooLong { revision: of, .. }) => *of == revision.id.number,
        }
    }

    /// Takes the memory out of commits, and reports it.
    pub(super) fn defer(&self, revision: &Revision, spec: &SnapshotSpec, deferral: Deferral) {
        let why = deferral.describe(spec);
        self.unsaved.lock().deferral = Some(deferral);
        let every = spec.save.in_force(true).to_string();
        tracing::warn!(agent = %self.name, "its memory is not part of its commits but saved {every}: {why}");
        let data = json!({ "revision": revision.id.number, "reason": why, "save": every });
        self.context.events.emit(Some(self.name.as_str()), "snapshot.deferred", data);
    }

    /// Makes the memory part of commits again, as far as it is declared so.
    pub(in crate::agent) fn undefer(&self) -> bool {
        self.unsaved.lock().deferral.take().is_some()
    }

    /// Returns the number of messages that are in the memory of the live instance and in no saved one.
    pub(in crate::agent) fn unsaved_messages(&self) -> u64 {
        self.unsaved.lock().messages().count
    }

    /// Notes that the memory of the live instance was saved, as it ends.
    pub(in crate::agent) fn note_all_saved(&self) {
        self.unsaved.lock().note_all_saved();
    }

    /// Returns how the agent's memory is saved, and what a crash would cost now.
    pub(crate) fn memory_status(&self) -> MemoryStatus {
        let spec = self.load_spec().snapshot.clone();
        let unsaved = self.unsaved.lock();
        let messages = unsaved.messages();
        // A deferral is of a time when the memory was to be part of commits.
        let deferral = unsaved.deferral.as_ref().filter(|_| spec.save == SaveMode::Commit);
        MemoryStatus {
            save: spec.save.to_string(),
            in_force: spec.save.in_force(deferral.is_some()).to_string(),
            deferred: deferral.map(|deferral| deferral.describe(&spec)),
            saved_bytes: unsaved.bytes,
            unsaved_messages: messages.count,
            unsaved_ms: (messages.count > 0).then(|| crate::clock::millis(messages.age)),
        }
    }
}
