//! The memory of a stateful agent, message by message.
//!
//! ```text
//! handler -> save -> changed: part of the commit; as it was: no part of it
//!    |         '-- above `commit-max`, or saved otherwise: a commit without it, and a save apart when one is due
//!    '-- failure, conflict, refused commit: the instance ends, and the next restores what is committed
//! ```
//! The next message is handled while the commit is on its way. If it is refused, so are all after it that built on its
//! memory; those messages are handled again. A memory that is saved otherwise than with commits goes on after a failure
//! as it is: to end its instance would lose what the messages before it left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::desired::SnapshotSpec;
use caxton_control::snapshot::SaveMode;

use super::unsaved::Deferral;
use crate::agent::delivery::handling::Handling;
use crate::agent::mailbox::breaker::fault_history;
use crate::agent::{Agent, Revision};
use crate::clock;
use crate::message::{Cause, Envelope, Failure, Fault, LinePlace, Outcome};
use crate::store::Snapshot;
use crate::wasm::{HeldLease, Lease, NotSaved};

/// The instance that has handled a message of a stateful agent, until its commit is given to the store.
pub(in crate::agent) struct HeldMemory {
    lease: Lease,
    place: LinePlace,
    /// The memory, if it is part of the commit.
    snapshot: Option<Box<Snapshot>>,
    /// The memory, if it was found to be too large for that.
    too_large: Option<Arc<Snapshot>>,
}

impl HeldMemory {
    /// Takes the memory for the commit.
    pub(in crate::agent) fn take_snapshot(&mut self) -> Option<Box<Snapshot>> {
        self.snapshot.take()
    }

    /// Returns the place of the commit among those of the instance.
    pub(in crate::agent) fn place(&self) -> LinePlace {
        self.place.clone()
    }

    /// Returns `true` once a commit was refused on which the memory builds.
    pub(in crate::agent) fn is_broken(&self) -> bool {
        self.place.line.is_broken()
    }

    /// Returns the CPU time of the save, and its end.
    fn cost(&mut self) -> (Duration, Instant) {
        let instance = self.lease.instance();
        (instance.cpu(), instance.ended())
    }

    /// Returns `true` if the instance was asked for its memory.
    fn was_saved(&self) -> bool {
        self.place.breaks || self.too_large.is_some()
    }
}

/// A commit with a memory, counted until it is decided.
pub(in crate::agent) struct CountedMemory(Option<Arc<Agent>>);

impl Drop for CountedMemory {
    fn drop(&mut self) {
        if let Some(agent) = self.0.take() {
            agent.memory.end();
        }
    }
}

impl Agent {
    /// Saves the memory that a message has left, and counts the time that this took; drops it if the message failed.
    pub(in crate::agent) async fn remember_handling(
        &self,
        handling: &mut Handling,
        envelope: &Envelope,
        lease: Lease,
        (is_well, kept): (bool, &mut HeldLease),
    ) -> Result<Option<Box<HeldMemory>>, Outcome> {
        if !is_well {
            self.undo_memory(lease, kept);
            return Ok(None);
        }
        let mut memory = self.remember(&handling.flight.revision, envelope, lease).await?;
        if memory.was_saved() {
            let (cpu, until) = memory.cost();
            handling.cpu += cpu;
            handling.took = until.saturating_duration_since(handling.started);
        }
        Ok(Some(Box::new(memory)))
    }

    /// Saves the memory of an instance that has handled a message well, if it is to be part of the commit.
    ///
    /// # Errors
    /// The memory could not be saved, so that the message cannot be committed. The instance has ended.
    async fn remember(
        &self,
        revision: &Arc<Revision>,
        envelope: &Envelope,
        mut lease: Lease,
    ) -> Result<HeldMemory, Outcome> {
        let spec = self.load_spec().snapshot.clone();
        let memory = lease.instance().memory();
        let (line, in_step, bytes) = (Arc::clone(&memory.line), memory.in_step, memory.bytes);
        self.unsaved.lock().follow(&line);
        let mut too_large = None;
        if spec.save == SaveMode::Commit && in_step && !self.is_deferred(revision) {
            // One that was restored is not saved to find that it is too large still: that may take long.
            if bytes > spec.commit_max_bytes {
                self.defer(revision, &spec, Deferral::TooLarge(bytes));
            } else {
                let (saver, data) = self.save_for_commit(revision, envelope, lease, &spec).await?;
                lease = saver;
                if let Some(data) = data {
                    let at = clock::now_ms();
                    let snapshot = Snapshot { revision: revision.id.number, saved_at: at, data };
                    if snapshot.data.len() as u64 <= spec.commit_max_bytes {
                        return Ok(self.hold(lease, snapshot));
                    }
                    self.defer(revision, &spec, Deferral::TooLarge(snapshot.data.len() as u64));
                    too_large = Some(Arc::new(snapshot));
                }
            }
        }
        lease.instance().memory().in_step = false;
        self.unsaved.lock().add();
        Ok(HeldMemory { lease, place: LinePlace { line, breaks: false }, snapshot: None, too_large })
    }

    /// Returns an instance whose memory is part of the commit, if it has changed.
    fn hold(&self, mut lease: Lease, snapshot: Snapshot) -> HeldMemory {
        let memory = lease.instance().memory();
        let is_same = memory.note(&snapshot.data);
        self.unsaved.lock().note_saved(memory.bytes);
        let place = LinePlace { line: Arc::clone(&memory.line), breaks: true };
        HeldMemory { lease, place, snapshot: (!is_same).then(|| Box::new(snapshot)), too_large: None }
    }

    /// Lets an instance save its memory for a commit; `None` if it is above `snapshot.max`.
    async fn save_for_commit(
        &self,
        revision: &Arc<Revision>,
        envelope: &Envelope,
        mut lease: Lease,
        spec: &SnapshotSpec,
    ) -> Result<(Lease, Option<bytes::Bytes>), Outcome> {
        let saved = tokio::select! {
            // The result first, as with the handler.
            biased;
            saved = lease.instance().save_for_commit(spec.max_bytes) => saved,
            () = revision.interrupt.cancelled() => Err(Fault::Interrupted),
        };
        match saved {
            Ok(Some(Ok(data))) => Ok((lease, Some(data))),
            Ok(None) => Err(Outcome::Fault(Fault::Host("the component exports no caxton:agent/snapshot".to_owned()))),
            Ok(Some(Err(NotSaved::TooLarge { bytes, max }))) => {
                self.report_failed_save(revision, &NotSaved::TooLarge { bytes, max }.to_string());
                self.defer(revision, spec, Deferral::TooLarge(bytes));
                Ok((lease, None))
            }
            Ok(Some(Err(refused @ NotSaved::Refused(_)))) => {
                let reason = refused.to_string();
                self.report_failed_save(revision, &reason);
                Err(Outcome::Failed(Failure { cause: Cause::Fault, reason, retry_after_ms: None }))
            }
            Err(fault) => {
                if fault.is_guests() {
                    self.report_failed_save(revision, &format!("{fault}, and its instance ended with it"));
                    if matches!(fault, Fault::Cpu { .. } | Fault::Fuel { .. } | Fault::Time { .. }) {
                        // The next attempt gets further: it is not asked for its memory.
                        let deferral = Deferral::TooLong { revision: revision.id.number, why: fault.to_string() };
                        self.defer(revision, spec, deferral);
                    }
                    lease.fail(&fault, self.instance_failure(revision, fault_history(envelope, revision)));
                }
                Err(Outcome::Fault(fault))
            }
        }
    }

    /// Returns an instance after a message that failed. It ends, with what the message left in its memory, unless it
    /// has what other messages left and nothing else has.
    fn undo_memory(&self, mut lease: Lease, kept: &mut HeldLease) {
        let commits = self.load_spec().snapshot.save == SaveMode::Commit;
        if commits && lease.instance().memory().in_step {
            drop(lease);
        } else {
            lease.keep(kept);
        }
    }

    /// Returns `true` if a message with no effects needs a commit: for its memory, or because it has seen one that is
    /// not committed yet.
    pub(in crate::agent) fn has_to_commit(&self, held: &HeldMemory) -> bool {
        held.snapshot.is_some() || (held.place.breaks && self.memory.any())
    }

    /// Counts the commit of a message until the returned guard is dropped, if the memory depends on it.
    pub(in crate::agent) fn count_memory(&self, place: Option<&LinePlace>) -> CountedMemory {
        let counts = place.is_some_and(|place| place.breaks);
        CountedMemory(counts.then(|| {
            self.memory.begin();
            self.arc()
        }))
    }

    /// Returns an instance once the commit of its message is given to the store, and saves its memory apart from
    /// commits if that is due.
    pub(in crate::agent) async fn release_memory(
        &self,
        revision: &Arc<Revision>,
        held: HeldMemory,
        kept: &mut HeldLease,
    ) {
        let HeldMemory { lease, too_large, .. } = held;
        if too_large.is_some() || self.is_save_due(revision) {
            self.save_apart(revision, lease, too_large, kept).await;
        } else {
            lease.keep(kept);
        }
    }

    /// Waits until nothing of the agent's memory is under way: the store has what was committed last.
    pub(crate) async fn until_memory_settles(&self) {
        self.memory.commits_settle().await;
        drop(self.memory.apart.lock().await);
    }
}
