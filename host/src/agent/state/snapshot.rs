//! Snapshots of the memory of stateful agents.
//!
//! A save that fails loses nothing by itself: the instance goes on, and the snapshot before stays. The failure is
//! reported as an event, in a metric and as an error, and the handoff or the stop that needed the save fails for it:
//! messages that the instance handled were acknowledged, and only its memory has them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use crate::agent::{Agent, Revision};
use crate::clock;
use crate::store::{CommitError, KeepState, RestoredState, Snapshot};
use crate::wasm::{Kind, Lease, NotSaved};

impl Agent {
    /// Saves the memory of a stateful agent whose instance was idle for `age`, and ends the instance. Does
    /// nothing for others, nothing when a message is being handled, and nothing for a while after a save that failed.
    /// After an error the instance goes on, unless it ended itself.
    pub(crate) async fn save_idle(&self, revision: &Revision, age: Duration) -> Result<(), String> {
        // Bounded by a pause: a guest that refuses would be asked at every sweep.
        let rests = self.saves.lock().is_resting(Instant::now());
        if revision.kind() != Kind::Stateful || rests {
            return Ok(());
        }
        match revision.pool.lease_idle(age) {
            Some(lease) => self.save_and_end(revision, lease).await,
            None => Ok(()),
        }
    }

    /// Saves the memory of an agent that ends: waits for the message that is being handled.
    pub(crate) async fn save_last(&self, revision: &Revision) -> Result<(), String> {
        if revision.kind() != Kind::Stateful {
            return Ok(());
        }
        match revision.pool.lease_at_rest().await {
            Some(lease) => self.save_and_end(revision, lease).await,
            None => Ok(()),
        }
    }

    /// Saves the memory of an agent when the host ends: waits for nothing. Fails if the instance has a message in hand,
    /// since its memory of the messages before is lost with it.
    pub(crate) async fn save_now(&self, revision: &Revision) -> Result<(), String> {
        if revision.kind() != Kind::Stateful {
            return Ok(());
        }
        match revision.pool.lease_idle(Duration::ZERO) {
            Some(lease) => self.save_and_end(revision, lease).await,
            // No instance, no memory: it was saved when the last one ended. A message in hand is not acknowledged.
            None if revision.pool.live() == 0 || self.unsaved_messages() == 0 => Ok(()),
            None => {
                Err(self.report_failed_save(revision, "it had a message in hand when its time was over (host.drain)"))
            }
        }
    }

    async fn save_and_end(&self, revision: &Revision, mut lease: Lease) -> Result<(), String> {
        if lease.instance().memory().in_step {
            // All that it has is committed, or never was.
            return Ok(());
        }
        let line = Arc::clone(&lease.instance().memory().line);
        let _writing = self.memory.apart.lock().await;
        let (lease, saved) = self.save(revision, lease).await?;
        let Some(snapshot) = saved else { return Ok(()) };
        self.memory.commits_settle().await;
        if line.is_broken() {
            return Ok(());
        }
        // Dropping the lease ends the instance; giving it back keeps what could not be saved.
        if let Err(error) = self.context.store.snapshots().save(self.name.shared(), snapshot).await {
            lease.finish(true);
            return Err(self.report_failed_save(revision, &format!("its memory could not be kept: {error}")));
        }
        self.saves.lock().succeed();
        self.note_all_saved();
        Ok(())
    }

    /// Lets an instance save its memory, at most `snapshot.max`; `None` if it has none. After an error, which is
    /// reported, the instance was given back or has ended.
    pub(crate) async fn save(
        &self,
        revision: &Revision,
        mut lease: Lease,
    ) -> Result<(Lease, Option<Arc<Snapshot>>), String> {
        let max = self.spec().snapshot.max_bytes;
        match lease.instance().save(max).await {
            Ok(Some(Ok(data))) => {
                // Before the bound is reached: above it a handoff fails, and nothing can be done at once.
                self.warn_if_near(data.len() as u64, max);
                let snapshot = Snapshot { revision: revision.id.number, saved_at: clock::now_ms(), data };
                Ok((lease, Some(Arc::new(snapshot))))
            }
            Ok(Some(Err(why))) => {
                lease.finish(true);
                let help = match why {
                    NotSaved::TooLarge { .. } => {
                        "; raise `snapshot.max`, which applies at once, or let it remember less"
                    }
                    NotSaved::Refused(_) => "",
                };
                Err(self.report_failed_save(revision, &format!("{why}{help}")))
            }
            Ok(None) => Ok((lease, None)),
            // The instance ends with the lease: after a fault it cannot be used.
            Err(fault) => Err(self.report_failed_save(revision, &format!("{fault}, and its instance ended with it"))),
        }
    }

    /// Reports a failed save, and delays the next of an idle instance. Returns the reason for a person.
    pub(crate) fn report_failed_save(&self, revision: &Revision, why: &str) -> String {
        self.saves.lock().fail(Instant::now());
        let labels = [("agent", self.name.to_string()), ("what", "save".to_owned())];
        metrics::counter!("caxton_snapshot_failures_total", &labels).increment(1);
        let data = json!({ "revision": revision.id.number, "reason": why });
        self.context.events.emit(Some(self.name.as_str()), "snapshot.not-saved", data);
        format!("{} did not save its memory: {why}; what was saved before is kept", revision.id)
    }

    /// Lets the next idle instance be saved at once: a save that failed for its bound may fit now.
    pub(in crate::agent) fn retry_save(&self) {
        self.saves.lock().end_rest();
    }

    /// Warns once of a memory that comes near its bound, before it is above it.
    fn warn_if_near(&self, bytes: u64, max: u64) {
        let comes_near = self.saves.lock().comes_near(bytes, max);
        // A statement of its own, so that nothing is logged under the lock.
        if comes_near {
            tracing::warn!(agent = %self.name, bytes, max, "an agent's memory comes near snapshot.max, above which it cannot be saved");
        }
    }

    /// Stores the snapshot that a stateful agent hands over, also for the revision that made it.
    pub(crate) async fn keep_handoff(&self, snapshot: Arc<Snapshot>) -> Result<(), CommitError> {
        let _writing = self.memory.apart.lock().await;
        self.context.store.snapshots().keep_handoff(self.name.shared(), snapshot).await
    }

    /// Stores the agent's last snapshot, of any revision, as the one that this revision hands over.
    pub(crate) async fn keep_saved_as_handoff(&self, revision: u64) -> Result<(), CommitError> {
        let _writing = self.memory.apart.lock().await;
        self.context.store.snapshots().keep_saved_as_handoff(self.name.shared(), revision).await
    }

    /// Drops the last snapshot of a stateful agent. Snapshots that revisions handed over stay.
    pub(crate) async fn discard_memory(&self) -> Result<(), CommitError> {
        let _writing = self.memory.apart.lock().await;
        self.context.store.snapshots().discard(self.name.shared()).await
    }

    /// Returns the snapshot that a revision handed over; `None` if it had none.
    pub(crate) fn handoff_memory(&self, revision: u64) -> Result<Option<Bytes>, String> {
        Ok(self.context.store.snapshots().handed_over(self.name.as_str(), revision)?.map(|snapshot| snapshot.data))
    }

    /// Restores the copy of the agent's state that was kept for a revision. `keep` first keeps the present state for
    /// the revision that wrote it.
    pub(crate) async fn restore_state(
        &self,
        revision: u64,
        keep: Option<KeepState>,
    ) -> Result<RestoredState, CommitError> {
        let bytes = Arc::clone(&self.state_bytes);
        self.context.store.state().restore(self.name.shared(), revision, keep, bytes).await
    }

    /// Restores the snapshot that a revision handed over as the agent's memory.
    pub(crate) async fn restore_handoff(&self, revision: u64) -> Result<(), CommitError> {
        let _writing = self.memory.apart.lock().await;
        self.context.store.snapshots().restore_handoff(self.name.shared(), revision).await
    }
}
