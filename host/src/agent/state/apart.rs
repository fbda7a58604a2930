//! Saves of memories apart from commits: of those that are too large for one, or are declared to be saved otherwise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use crate::agent::{Agent, Revision};
use crate::message::MemoryLine;
use crate::store::{CommitError, Snapshot};
use crate::wasm::{HeldLease, Lease};

impl Agent {
    /// Returns `true` if the instance should be asked for its memory apart from a commit.
    pub(crate) fn is_save_due(&self, revision: &Revision) -> bool {
        let mode = self.load_spec().snapshot.save.in_force(self.is_deferred(revision));
        let unsaved = self.unsaved.lock().messages();
        mode.is_due(unsaved) && !self.saves.lock().is_resting(Instant::now())
    }

    /// Saves the memory of an idle instance, which goes on, if that is due.
    pub(crate) async fn save_due(&self, revision: &Arc<Revision>) {
        if !self.is_save_due(revision) {
            return;
        }
        if let Some(lease) = revision.pool.lease_idle(Duration::ZERO) {
            self.save_apart(revision, lease, None, &mut HeldLease::default()).await;
        }
    }

    /// Saves the memory of an instance apart from commits, unless a save is being written. The instance goes on; one
    /// whose memory may be part of commits from now on goes on when it is written.
    pub(super) async fn save_apart(
        &self,
        revision: &Arc<Revision>,
        lease: Lease,
        saved: Option<Arc<Snapshot>>,
        kept: &mut HeldLease,
    ) {
        let Ok(writing) = Arc::clone(&self.memory.apart).try_lock_owned() else { return lease.keep(kept) };
        let (mut lease, snapshot) = match saved {
            Some(snapshot) => (lease, snapshot),
            None => match self.save(revision, lease).await {
                Ok((lease, Some(snapshot))) => (lease, snapshot),
                Ok((lease, None)) => return lease.keep(kept),
                Err(why) => return tracing::error!(agent = %self.name, "{why}"),
            },
        };
        let spec = self.load_spec().snapshot.clone();
        let memory = lease.instance().memory();
        let (line, is_same) = (Arc::clone(&memory.line), memory.note(&snapshot.data));
        let bytes = memory.bytes;
        let (is_kept, covers) = {
            let mut unsaved = self.unsaved.lock();
            (unsaved.note_saved(bytes) && is_same, unsaved.messages().count)
        };
        let mut write = ApartWrite {
            agent: self.arc(),
            revision: Arc::clone(revision),
            line,
            covers,
            at: Instant::now(),
            snapshot: (!is_kept).then_some(snapshot),
            lease: None,
            _writing: writing,
        };
        if self.may_commit(revision, &spec, bytes) {
            write.lease = Some(lease);
        } else {
            lease.keep(kept);
        }
        tokio::spawn(write.run());
    }
}

/// The write of a memory apart from commits.
struct ApartWrite {
    agent: Arc<Agent>,
    revision: Arc<Revision>,
    line: Arc<MemoryLine>,
    /// The messages in it that were in no saved one.
    covers: u64,
    /// The time of the save.
    at: Instant,
    /// The memory; `None` if the store has it.
    snapshot: Option<Arc<Snapshot>>,
    /// The instance, if its memory is part of commits from now on.
    lease: Option<Lease>,
    _writing: OwnedMutexGuard<()>,
}

impl ApartWrite {
    async fn run(mut self) {
        let agent = Arc::clone(&self.agent);
        // A memory must not be kept that builds on a commit which is refused.
        agent.memory.commits_settle().await;
        let written = if self.line.is_broken() {
            Err(CommitError::Ahead)
        } else {
            match self.snapshot.take() {
                Some(snapshot) => agent.context.store.snapshots().save(agent.name.shared(), snapshot).await,
                None => Ok(()),
            }
        };
        match written {
            Ok(()) => self.written(),
            // The instance ends, and what it had is restored as it was before.
            Err(CommitError::Ahead) => {}
            Err(error) => {
                agent.report_failed_save(&self.revision, &format!("its memory could not be kept: {error}"));
                agent.unsaved.lock().note_unwritten();
            }
        }
        if let Some(lease) = self.lease.take() {
            lease.finish(true);
        }
    }

    /// Notes that the memory is kept.
    fn written(&mut self) {
        let agent = &self.agent;
        agent.saves.lock().succeed();
        agent.unsaved.lock().note_written(&self.line, self.covers, self.at);
        let Some(lease) = &mut self.lease else { return };
        let memory = lease.instance().memory();
        memory.in_step = true;
        let bytes = memory.bytes;
        if agent.undefer() {
            let data = json!({ "revision": self.revision.id.number, "bytes": bytes });
            agent.context.events.emit(Some(agent.name.as_str()), "snapshot.in-commits", data);
        }
    }
}
