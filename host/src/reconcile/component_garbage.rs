//! The removal of component bytes and compiled code that no revision needs any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::Digest;
use caxton_control::plan::ComponentFile;

use super::reconciler::Reconciler;

/// The interval of removals, in addition to those after a change.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(3_600);

impl Reconciler {
    /// Removes the bytes and the compiled code that no revision needs. With `starting`, temporary files are removed
    /// too: nothing is being loaded yet.
    pub(super) fn collect_garbage(&mut self, starting: bool) {
        self.garbage_collected_at = Instant::now();
        // Collected on this task, which alone changes the revisions.
        let used = self.used();
        self.archive.retain(&used, starting);
        let runtime = Arc::clone(&self.runtime);
        if starting {
            return runtime.remove_unused(&used, true);
        }
        // Deleting many files takes long, and the result is not needed.
        tokio::task::spawn_blocking(move || runtime.remove_unused(&used, false));
    }

    /// Removes unused files if that is due. In a folder that hosts share this also marks the used files as such.
    pub(super) fn collect_garbage_if_due(&mut self) {
        if self.garbage_collected_at.elapsed() >= GARBAGE_INTERVAL {
            self.collect_garbage(false);
        }
    }

    /// Returns the digests that may be needed: of revisions in a ledger, of live ones, and of declared components.
    fn used(&self) -> HashSet<Digest> {
        let kept = self.ledgers.values().flat_map(|ledger| {
            let open = ledger.open().into_iter().flat_map(|rollout| [rollout.from.digest, rollout.to.digest]);
            ledger.revisions.iter().map(|side| side.digest).chain(open)
        });
        let present =
            self.managed.values().flat_map(|managed| managed.revisions.iter().map(|revision| revision.digest));
        let declared = self.wanted.values().filter_map(|wanted| match &wanted.component {
            ComponentFile::Found(digest) => Some(*digest),
            ComponentFile::Unusable(_) => None,
        });
        kept.chain(present).chain(declared).collect()
    }
}
