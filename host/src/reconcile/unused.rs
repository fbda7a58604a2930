//! What was made for a revision goes with it: its bytes, and what was compiled of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::Digest;
use caxton_control::plan::Component;

use super::Reconciler;

/// How often what is not used is looked for, beside when something has just come to be.
const TIDIED_EVERY: Duration = Duration::from_secs(3_600);

impl Reconciler {
    /// Removes the bytes and the compiled code of revisions that nobody asks for any more. With `starting`, nothing is
    /// being loaded yet.
    pub(super) fn tidy(&mut self, starting: bool) {
        self.tidied = Instant::now();
        let used = self.used();
        self.bytes.retain(&used, starting);
        let runtime = Arc::clone(&self.runtime);
        if starting {
            return runtime.remove_unused(&used, true);
        }
        tokio::task::spawn_blocking(move || runtime.remove_unused(&used, false));
    }

    /// The same now and then: what an agent uses in a folder that hosts share is to be marked as used.
    pub(super) fn tidy_now_and_then(&mut self) {
        if self.tidied.elapsed() >= TIDIED_EVERY {
            self.tidy(false);
        }
    }

    /// The bytes that somebody may ask for: of revisions that are kept, present or declared.
    fn used(&self) -> HashSet<Digest> {
        let kept = self.ledgers.values().flat_map(|ledger| {
            let open = ledger.open().into_iter().flat_map(|rollout| [rollout.from.digest, rollout.to.digest]);
            ledger.ran.iter().map(|side| side.digest).chain(open)
        });
        let present = self.entries.values().flat_map(|entry| entry.revisions.iter().map(|record| record.digest));
        let declared = self.wanted.values().filter_map(|wanted| match &wanted.component {
            Component::Found(digest) => Some(*digest),
            Component::Unusable(_) => None,
        });
        kept.chain(present).chain(declared).collect()
    }
}
