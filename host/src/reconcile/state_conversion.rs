//! The conversion of an agent's state to another format while its mailbox is paused.
//!
//! ```text
//! copy the state (unfinished) --> migrate, or restore an earlier state --> hand off the memory --> finished
//!        '-- any failure, or the end of the host: the copy is restored, and the rollout goes back
//! ```
//! Traffic moves only after the end. Until then only the migration writes to the state, so that restoring the copy
//! loses nothing.

use std::sync::Arc;
use std::time::Duration;

use caxton_control::RevisionId;
use caxton_control::format::Conversion;
use caxton_control::rollout::{Ledger, MemoryHandover, Rollout};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::handoff::{hand_off, take_back};
use super::managed::ManagedAgent;
use super::reconciler::Reconciler;
use super::task_report::{MoveError, TaskReport};
use crate::agent::{Agent, Revision};
use crate::context::HostContext;
use crate::store::{KeepState, StateCopy};

/// The pause before another attempt to save or restore a state: most such errors are of a full disk.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The data that move from one revision to another together with all traffic.
pub(super) enum MovedData {
    /// The keys of the state only.
    State,
    /// The memory of a stateful agent as well, which the new revision restores or discards.
    Memory(MemoryHandover),
    /// The memory that the new revision handed over earlier.
    Earlier,
}

/// A conversion to carry out, and the rollout that it belongs to.
pub(super) struct ConversionJob {
    pub(super) conversion: Conversion,
    pub(super) rollout: u64,
    /// The revision that had the traffic.
    pub(super) stable: u64,
    /// The time limit of the migration.
    pub(super) time_limit: Duration,
    /// Set if an earlier attempt was broken off: the copy of the state exists already.
    pub(super) is_resumed: bool,
    /// Breaks it off.
    pub(super) stop: CancellationToken,
}

impl ConversionJob {
    pub(super) fn of(rollout: &Rollout, conversion: Conversion, managed: &ManagedAgent) -> Self {
        let (id, stable, time_limit) = (rollout.id, rollout.from.number, rollout.settings.timeout);
        Self {
            conversion,
            rollout: id,
            stable,
            time_limit,
            is_resumed: managed.conversion_unfinished,
            stop: CancellationToken::new(),
        }
    }

    fn keeps(&self) -> KeepState {
        let holds = self.conversion.state_versions.iter().copied().collect();
        KeepState { revision: self.stable, holds, rollout: self.rollout, unfinished: true }
    }
}

impl Reconciler {
    /// Moves data and all traffic to a revision.
    pub(super) fn move_data(&mut self, revision: &RevisionId, moves: MovedData, conversion: Option<Conversion>) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let Some(managed) = self.managed.get(&revision.agent) else { return };
        let converting = conversion.map(|conversion| ConversionJob::of(rollout, conversion, managed));
        let (agent, old) = (Arc::clone(&managed.agent), managed.agent.current());
        let context = Arc::clone(&self.context);
        if let (Some(converting), Some(managed)) = (&converting, self.managed.get_mut(&revision.agent))
            // Otherwise no task would be started that resets it.
            && managed.live(revision.number).is_some()
        {
            managed.conversion_stop = Some(converting.stop.clone());
        }
        if matches!(moves, MovedData::Earlier) {
            self.pause(&revision.agent, true);
        }
        self.spawn_work(revision, move |new, id| async move {
            let result = move_all(&context, &agent, old.as_ref(), &new, moves, converting).await;
            TaskReport::DataMoved { agent: id.agent, number: id.number, result }
        });
    }

    /// Takes in the result of a move of data.
    pub(super) fn take_data_move(&mut self, id: &RevisionId, result: Result<(), MoveError>) {
        let Some(managed) = self.managed.get_mut(&id.agent) else { return };
        if let Some(managed_revision) = managed.revision_mut(id.number) {
            managed_revision.busy = false;
        }
        managed.conversion_stop = None;
        managed.conversion_unfinished = result.as_ref().is_err_and(|failed| failed.unfinished);
        let (unfinished, retired) = (managed.conversion_unfinished, managed.retired.is_some());
        match result {
            Ok(()) => {
                // Before the mailbox resumes, so that the next message goes to the new revision.
                if self.move_all_traffic(id) {
                    self.publish();
                }
            }
            Err(MoveError { why, .. }) => self.fail(id, &why),
        }
        if !unfinished {
            return self.pause(&id.agent, false);
        }
        // Messages wait until the copy is restored. A rollout plans that; for an agent that is being removed there is
        // none.
        let stable = self.ledgers.get(&id.agent).and_then(Ledger::open).map(Rollout::stable);
        if let (true, Some(stable)) = (retired, stable) {
            self.restore_state(&stable);
        }
    }

    /// Saves a copy of the state before two revisions with different formats share the traffic.
    pub(super) fn keep_state(&mut self, revision: &RevisionId) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let (id, holds) = (rollout.id, rollout.state_versions.iter().copied().collect());
        let (context, candidate) = (Arc::clone(&self.context), rollout.candidate());
        let keep = KeepState { revision: revision.number, holds, rollout: id, unfinished: false };
        self.spawn_work(revision, move |_, revision| async move {
            let kept = context.store.state().copy(revision.agent.shared(), keep).await;
            let result = kept.map(|copy| emit_state_kept(&context, &revision, &candidate, &copy));
            let result = result.map_err(|error| format!("the state could not be kept: {error}"));
            if result.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            TaskReport::StateSaved { agent: revision.agent, number: revision.number, rollout: id, result }
        });
    }

    /// Restores the copy that was saved before an unfinished conversion.
    pub(super) fn restore_state(&mut self, revision: &RevisionId) {
        let Some(managed) = self.managed.get(&revision.agent) else { return };
        let agent = Arc::clone(&managed.agent);
        let reports = self.reports.0.clone();
        let (id, guard) = (revision.clone(), self.context.tasks.guard("rollout"));
        let under_way =
            self.managed.get_mut(&revision.agent).is_some_and(|e| std::mem::replace(&mut e.restoring, true));
        if under_way {
            return;
        }
        // Not through `work_on`, which needs a live revision: the one with this state may have ended.
        tokio::spawn(async move {
            let _guard = guard;
            let restored = agent.restore_state(id.number, None).await;
            let result = restored.map(|_| ()).map_err(|error| error.to_string());
            if result.is_err() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            // The reconciler is gone only when the host stops.
            let _ = reports.send(TaskReport::StateRestored { agent: id.agent, number: id.number, result }).await;
        });
    }

    /// Takes in that a copy of the state was saved.
    pub(super) fn take_saved_state(&mut self, id: &RevisionId, rollout: u64, result: Result<(), String>) {
        let Some(managed) = self.managed.get_mut(&id.agent) else { return };
        if let Some(managed_revision) = managed.revision_mut(id.number) {
            managed_revision.busy = false;
        }
        match result {
            Ok(()) => managed.state_saved_for = Some(rollout),
            // Not a failure of the rollout: the plan asks for the copy again.
            Err(why) => tracing::error!(agent = %id.agent, "{why}; the rollout waits for it"),
        }
    }

    /// Takes in that the copy of the state was restored.
    pub(super) fn take_restored_state(&mut self, id: &RevisionId, result: Result<(), String>) {
        let Some(managed) = self.managed.get_mut(&id.agent) else { return };
        managed.restoring = false;
        match result {
            Ok(()) => {
                managed.conversion_unfinished = false;
                let left = managed.retired.is_some() || self.ledgers.get(&id.agent).is_none_or(|l| l.open().is_none());
                tracing::info!(agent = %id.agent, "the state is as it was when {id} had it");
                self.context.events.emit(Some(id.agent.as_str()), "state.restored", json!({ "revision": id.number }));
                if left {
                    // Without a rollout, nothing else would resume the mailbox.
                    self.pause(&id.agent, false);
                }
            }
            Err(why) => {
                tracing::error!(agent = %id.agent, "the state cannot be put back as it was: {why}; messages wait");
            }
        }
    }
}

/// Converts the state if that is asked for, and then moves data to a revision.
async fn move_all(
    context: &Arc<HostContext>,
    agent: &Arc<Agent>,
    old: Option<&Arc<Revision>>,
    new: &Arc<Revision>,
    moves: MovedData,
    converting: Option<ConversionJob>,
) -> Result<(), MoveError> {
    let mut unfinished = converting.as_ref().is_some_and(|converting| converting.is_resumed);
    let moved = async {
        if let Some(converting) = &converting {
            // The old revision stops handling before its state is replaced; the new one handles those messages again.
            let ends = match old.filter(|_| matches!(moves, MovedData::Earlier)) {
                Some(old) => {
                    old.interrupt();
                    old.pool.lease_at_rest().await
                }
                None => None,
            };
            let converted = convert(context, agent, new, converting, &mut unfinished).await;
            if let Some(lease) = ends {
                lease.finish(true);
            }
            converted?;
        }
        match moves {
            MovedData::State => {}
            MovedData::Memory(memory) => {
                let old = old.ok_or("no revision of the agent runs")?;
                hand_off(agent, old, new, memory).await?;
            }
            MovedData::Earlier => take_back(agent, old, new).await?,
        }
        let Some(converting) = &converting else { return Ok(()) };
        // Last: until here a restart of the host restores the copy.
        let finished = context.store.state().finish_copy(agent.name().shared(), converting.stable).await;
        finished.map_err(|error| format!("the end of the conversion could not be kept: {error}"))
    };
    moved.await.map_err(|why: String| MoveError { why, unfinished })
}

/// Saves a copy of the state, and migrates the state or restores an earlier one. Sets `unfinished` once the state may
/// have changed.
async fn convert(
    context: &Arc<HostContext>,
    agent: &Arc<Agent>,
    new: &Arc<Revision>,
    converting: &ConversionJob,
    unfinished: &mut bool,
) -> Result<(), String> {
    let ConversionJob { conversion, stable, time_limit, is_resumed, stop, .. } = converting;
    let name = agent.name();
    let id = RevisionId { agent: name.clone(), number: *stable };
    if let Some(earlier) = &conversion.restores {
        let keep = (!is_resumed).then(|| converting.keeps());
        let restored = agent.restore_state(earlier.revision, keep).await;
        let restored = restored.map_err(|error| format!("the earlier state could not be put back: {error}"))?;
        *unfinished = true;
        tracing::info!(agent = %name, "{} has the state of {name}@{} ({} keys); the one of {id} is kept", new.id, earlier.revision, restored.keys);
        let data = json!({ "revision": new.id.number, "from": earlier.revision, "keys": restored.keys });
        context.events.emit(Some(name.as_str()), "state.restored", data);
        return Ok(());
    }
    if !is_resumed {
        let kept = context.store.state().copy(name.shared(), converting.keeps()).await;
        let copy = kept.map_err(|error| format!("the state could not be kept: {error}"))?;
        *unfinished = true;
        emit_state_kept(context, &id, &new.id, &copy);
    }
    if conversion.migrates {
        let (from, to) = (conversion.from, conversion.to);
        tracing::info!(agent = %name, "{} migrates the state from version {from} to {to}", new.id);
        let migrated = tokio::select! {
            // Checked first, so that a migration that was broken off never counts as done.
            biased;
            () = stop.cancelled() => Err("it was broken off".to_owned()),
            migrated = agent.migrate(new, from, *time_limit) => migrated,
        };
        let migrated = migrated.map_err(|why| format!("its migration failed: {why}"))?;
        tracing::info!(agent = %name, "{} migrated {} keys in {} steps", new.id, migrated.keys, migrated.steps);
        let data = json!({
            "revision": new.id.number, "from": from, "to": to, "keys": migrated.keys, "steps": migrated.steps,
        });
        context.events.emit(Some(name.as_str()), "state.migrated", data);
    }
    Ok(())
}

/// Emits `state.kept` for the copy of the state in the format of `stable`.
fn emit_state_kept(context: &HostContext, stable: &RevisionId, candidate: &RevisionId, copy: &StateCopy) {
    let (name, StateCopy { keys, bytes, holds, .. }) = (&stable.agent, copy);
    tracing::info!(agent = %name, "the state of {stable} is kept ({keys} keys, {bytes} bytes): {candidate} writes another format");
    let data = json!({ "revision": stable.number, "keys": keys, "bytes": bytes, "versions": holds });
    context.events.emit(Some(name.as_str()), "state.kept", data);
}
