//! The migration of the copy of the state before a rehearsal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::runner::Runner;
use crate::agent::state::migrate::migrate;
use crate::message::{CommitFailure, Effects, GuestHost};

impl Runner {
    /// Lets the revision migrate the copy of the state from version `from`, in steps as it would migrate the state
    /// itself. If the migrated state exceeds the bound of the copy, the runner is exhausted: that says nothing about
    /// the revision.
    ///
    /// # Errors
    /// The reason why the migration failed, for a person.
    pub(super) async fn migrate(&mut self, from: u32) -> Result<(), String> {
        let exceeds = Arc::<AtomicBool>::default();
        let (overlay, is_exceeded) = (Arc::clone(&self.overlay), Arc::clone(&exceeds));
        let committer = move |effects: Effects, _| {
            let committed = if overlay.write(effects.writes, &effects.adds) {
                Ok(())
            } else {
                is_exceeded.store(true, Ordering::Relaxed);
                Err(CommitFailure::Other("a rehearsal has no room for so much".to_owned()))
            };
            Box::pin(std::future::ready(committed)) as _
        };
        let outside = Arc::clone(&self.overlay) as Arc<dyn GuestHost>;
        let migrated = migrate(&self.pool, from, Arc::new(committer), Some(outside)).await;
        // Checked before the result: the failure that follows is the overlay's and not the revision's.
        if exceeds.load(Ordering::Relaxed) {
            self.is_exhausted = true;
            return Ok(());
        }
        migrated
    }
}
