//! A candidate that converts the state before it is rehearsed: on the copy of the state that the messages find then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::side::Side;
use crate::agent::state::migrate::migrate;
use crate::wasm::{Effects, NotCommitted, Outside};

impl Side {
    /// Lets the revision convert the copy of the state from the form that version `from` wrote, in steps as it would the
    /// state itself. Handles no messages if there is no room for what it writes, which says nothing of the revision.
    ///
    /// # Errors
    /// The reason for which it failed, for a person.
    pub(super) async fn migrate(&mut self, from: u32) -> Result<(), String> {
        let full = Arc::<AtomicBool>::default();
        let (overlay, is_full) = (Arc::clone(&self.overlay), Arc::clone(&full));
        let committer = move |effects: Effects, _| {
            let kept = if overlay.write(effects.writes, &effects.adds) {
                Ok(())
            } else {
                is_full.store(true, Ordering::Relaxed);
                Err(NotCommitted::Other("a rehearsal has no room for so much".to_owned()))
            };
            Box::pin(std::future::ready(kept)) as _
        };
        let outside = Arc::clone(&self.overlay) as Arc<dyn Outside>;
        let migrated = migrate(&self.pool, from, Arc::new(committer), Some(outside)).await;
        if full.load(Ordering::Relaxed) {
            self.ended = true;
            return Ok(());
        }
        migrated
    }
}
