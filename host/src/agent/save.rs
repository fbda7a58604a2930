//! Keeping what a stateful agent has in its memory.

use std::sync::Arc;
use std::time::Duration;

use super::{Agent, Revision};
use crate::clock;
use crate::store::{CommitError, Snapshot};
use crate::wasm::{Kind, Lease};

impl Agent {
    /// Saves the memory of a stateful agent whose instance was idle for `age`, and ends the instance. Does
    /// nothing for others, and nothing when a message is being handled.
    pub(crate) async fn save_idle(&self, revision: &Revision, age: Duration) -> Result<(), String> {
        if revision.kind() != Kind::Stateful {
            return Ok(());
        }
        match revision.pool.lease_idle(age) {
            Some(lease) => self.save(revision, lease).await,
            None => Ok(()),
        }
    }

    /// The same when the agent ends: waits for the message that is being handled.
    pub(crate) async fn save_last(&self, revision: &Revision) -> Result<(), String> {
        if revision.kind() != Kind::Stateful {
            return Ok(());
        }
        match revision.pool.lease_at_rest().await {
            Some(lease) => self.save(revision, lease).await,
            None => Ok(()),
        }
    }

    async fn save(&self, revision: &Revision, mut lease: Lease) -> Result<(), String> {
        match lease.instance().save(revision.spec.limits.time).await {
            Ok(Some(Ok(data))) => {
                let snapshot = Snapshot { revision: revision.id.number, saved_at: clock::now_ms(), data };
                // Dropping the lease ends the instance; giving it back keeps what could not be saved.
                if let Err(error) = self.keep_snapshot(snapshot).await {
                    lease.finish(true);
                    return Err(format!("its memory could not be kept: {error}"));
                }
                Ok(())
            }
            Ok(Some(Err(why))) => {
                lease.finish(true);
                Err(format!("it refused to save its memory: {why}"))
            }
            Ok(None) => Ok(()),
            Err(fault) => Err(format!("saving its memory: {fault}")),
        }
    }

    /// Keeps what a stateful agent saved as it handed over, also for the revision that did.
    pub(crate) async fn keep_handoff(&self, snapshot: Arc<Snapshot>) -> Result<(), CommitError> {
        self.commons.store.keep_handoff(self.name.shared(), snapshot).await
    }

    /// Keeps what the agent saved last, by whichever revision, as what this one hands over.
    pub(crate) async fn keep_saved_as_handoff(&self, revision: u64) -> Result<(), CommitError> {
        self.commons.store.keep_saved_as_handoff(self.name.shared(), revision).await
    }

    /// Drops what a stateful agent saved last; what revisions handed over stays.
    pub(crate) async fn discard(&self) -> Result<(), CommitError> {
        self.commons.store.discard(self.name.shared()).await
    }

    /// Makes what a revision saved as it handed over the agent's memory again.
    pub(crate) async fn take_back(&self, revision: u64) -> Result<(), CommitError> {
        self.commons.store.take_back(self.name.shared(), revision).await
    }

    /// Keeps what a stateful agent saved.
    pub(crate) async fn keep_snapshot(&self, snapshot: Snapshot) -> Result<(), CommitError> {
        self.commons.store.save_snapshot(self.name.shared(), snapshot).await
    }
}
