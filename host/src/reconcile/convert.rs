//! Changing the format of an agent's state while its mailbox is held.
//!
//! ```text
//! keep the state as it is (unfinished) --> migrate, or put an earlier state in its place --> memory --> finished
//!        '-- anything fails, or the host ends: the rollout goes back, and the kept state is put back first
//! ```
//! Traffic moves after the end of it only. Until then nobody but the migration has written to the state, so that to put it
//! back loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use caxton_control::format::Conversion;
use caxton_control::rollout::{Ledger, Memory, Rollout};
use caxton_control::{AgentName, Desired, RevisionId};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::prepare::{hand_off, take_back};
use super::{Entry, Reconciler, Report};
use crate::agent::{Agent, Revision};
use crate::context::HostContext;
use crate::store::{KeepState, StateCopy, Store};

/// The pause after a state that could not be put back, before that is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The data that go from one revision to another with all the traffic.
pub(super) enum Moves {
    /// The keys alone.
    State,
    /// The memory of a stateful agent too, which the new revision takes up or discards.
    Memory(Memory),
    /// The memory that the new revision handed over before.
    Earlier,
}

/// A conversion to carry out, with the rollout that it belongs to.
pub(super) struct Converting {
    pub(super) conversion: Conversion,
    pub(super) rollout: u64,
    /// The revision that had the traffic.
    pub(super) stable: u64,
    /// The longest time that a migration may take.
    pub(super) time: Duration,
    /// An attempt before was broken off: the state as it was is kept already.
    pub(super) again: bool,
    /// Breaks it off.
    pub(super) stop: CancellationToken,
}

impl Converting {
    pub(super) fn of(rollout: &Rollout, conversion: Conversion, entry: &Entry) -> Self {
        let (id, stable, time) = (rollout.id, rollout.from.number, rollout.settings.timeout);
        Self { conversion, rollout: id, stable, time, again: entry.unfinished, stop: CancellationToken::new() }
    }

    fn keeps(&self) -> KeepState {
        let holds = self.conversion.holds.iter().copied().collect();
        KeepState { revision: self.stable, holds, rollout: self.rollout, unfinished: true }
    }
}

/// A move of data that failed.
pub(super) struct Failed {
    pub(super) why: String,
    /// The state is not as it was: the kept one has to be put back.
    pub(super) unfinished: bool,
}

impl Reconciler {
    /// Moves data and all the traffic to a revision.
    pub(super) fn move_data(&mut self, revision: &RevisionId, moves: Moves, conversion: Option<Conversion>) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let Some(entry) = self.entries.get(&revision.agent) else { return };
        let converting = conversion.map(|conversion| Converting::of(rollout, conversion, entry));
        let (agent, old) = (Arc::clone(&entry.agent), entry.agent.current());
        let context = Arc::clone(&self.context);
        if let (Some(converting), Some(entry)) = (&converting, self.entries.get_mut(&revision.agent))
            // Only then the work begins that ends it.
            && entry.live(revision.number).is_some()
        {
            entry.converting = Some(converting.stop.clone());
        }
        if matches!(moves, Moves::Earlier) {
            self.pause(&revision.agent, true);
        }
        self.work_on(revision, move |new, id| async move {
            let result = move_all(&context, &agent, old.as_ref(), &new, moves, converting).await;
            Report::HandedOff { agent: id.agent, number: id.number, result }
        });
    }

    /// Takes in how a move of data ended.
    pub(super) fn moved(&mut self, id: &RevisionId, result: Result<(), Failed>) {
        let Some(entry) = self.entries.get_mut(&id.agent) else { return };
        if let Some(record) = entry.record(id.number) {
            record.busy = false;
        }
        entry.converting = None;
        entry.unfinished = result.as_ref().is_err_and(|failed| failed.unfinished);
        let (unfinished, retired) = (entry.unfinished, entry.retired.is_some());
        match result {
            Ok(()) => {
                if self.switch(id) {
                    self.publish();
                }
            }
            Err(Failed { why, .. }) => self.fail(id, &why),
        }
        if !unfinished {
            return self.pause(&id.agent, false);
        }
        // Messages wait until the state is as it was, which a rollout sees to unless the agent leaves.
        let stable = self.ledgers.get(&id.agent).and_then(Ledger::open).map(Rollout::stable);
        if let (true, Some(stable)) = (retired, stable) {
            self.restore_state(&stable);
        }
    }

    /// Keeps the state as it is, since two revisions of different formats are about to have traffic.
    pub(super) fn keep_state(&mut self, revision: &RevisionId) {
        let Some(rollout) = self.ledgers.get(&revision.agent).and_then(Ledger::open) else { return };
        let (id, holds) = (rollout.id, rollout.holds.iter().copied().collect());
        let (context, candidate) = (Arc::clone(&self.context), rollout.candidate());
        let keep = KeepState { revision: revision.number, holds, rollout: id, unfinished: false };
        self.work_on(revision, move |_, revision| async move {
            let kept = context.store.keep_state(revision.agent.shared(), keep).await;
            let result = kept.map(|copy| tell_kept(&context, &revision, &candidate, &copy));
            let result = result.map_err(|error| format!("the state could not be kept: {error}"));
            if result.is_err() {
                tokio::time::sleep(RETRY).await;
            }
            Report::StateKept { agent: revision.agent, number: revision.number, rollout: id, result }
        });
    }

    /// Puts the state back that was kept before an unfinished conversion.
    pub(super) fn restore_state(&mut self, revision: &RevisionId) {
        let Some(entry) = self.entries.get(&revision.agent) else { return };
        let agent = Arc::clone(&entry.agent);
        let reports = self.reports.0.clone();
        let (id, guard) = (revision.clone(), self.context.tasks.guard("rollout"));
        let under_way =
            self.entries.get_mut(&revision.agent).is_some_and(|e| std::mem::replace(&mut e.restoring, true));
        if under_way {
            return;
        }
        // Not work on a revision: the one that ran with it may not stand.
        tokio::spawn(async move {
            let _guard = guard;
            let restored = agent.restore_state(id.number, None).await;
            let result = restored.map(|_| ()).map_err(|error| error.to_string());
            if result.is_err() {
                tokio::time::sleep(RETRY).await;
            }
            // The reconciler is gone only when the host stops.
            let _ = reports.send(Report::StateRestored { agent: id.agent, number: id.number, result }).await;
        });
    }

    /// Takes in that a state is kept.
    pub(super) fn state_kept(&mut self, id: &RevisionId, rollout: u64, result: Result<(), String>) {
        let Some(entry) = self.entries.get_mut(&id.agent) else { return };
        if let Some(record) = entry.record(id.number) {
            record.busy = false;
        }
        match result {
            Ok(()) => entry.state_kept = Some(rollout),
            Err(why) => tracing::error!(agent = %id.agent, "{why}; the rollout waits for it"),
        }
    }

    /// Takes in that the state is as it was before an unfinished conversion.
    pub(super) fn state_restored(&mut self, id: &RevisionId, result: Result<(), String>) {
        let Some(entry) = self.entries.get_mut(&id.agent) else { return };
        entry.restoring = false;
        match result {
            Ok(()) => {
                entry.unfinished = false;
                let left = entry.retired.is_some() || self.ledgers.get(&id.agent).is_none_or(|l| l.open().is_none());
                tracing::info!(agent = %id.agent, "the state is as it was when {id} had it");
                self.context.events.tell(Some(id.agent.as_str()), "state.restored", json!({ "revision": id.number }));
                if left {
                    // No rollout lets them go on.
                    self.pause(&id.agent, false);
                }
            }
            Err(why) => {
                tracing::error!(agent = %id.agent, "the state cannot be put back as it was: {why}; messages wait");
            }
        }
    }
}

/// The agents whose states were being converted when the host ended, and whose rollouts go on with that. All other states
/// that are not finished are put back as they were, before anybody uses them or forgets the copies. Blocks for that.
pub(super) fn unfinished(
    store: &Store,
    ledgers: &BTreeMap<AgentName, Ledger>,
    desired: &Desired,
) -> BTreeSet<AgentName> {
    let copies = store.unfinished_state_copies().unwrap_or_else(|error| {
        tracing::error!(error, "the states that were being converted cannot be read");
        Vec::new()
    });
    let mut on = BTreeSet::new();
    for (agent, copy) in copies {
        let known = ledgers.get_key_value(agent.as_str()).filter(|(name, ledger)| {
            desired.agents.contains_key(*name) && ledger.open().is_some_and(|rollout| rollout.id == copy.rollout)
        });
        if let Some((name, _)) = known {
            on.insert(name.clone());
            continue;
        }
        let restored = tokio::task::block_in_place(|| {
            let restored = store.restore_state(agent.as_str().into(), copy.revision, None, Arc::default());
            tokio::runtime::Handle::current().block_on(restored)
        });
        match restored {
            Ok(_) => tracing::info!(agent, "the state is as it was when {agent}@{} had it", copy.revision),
            Err(error) => tracing::error!(agent, %error, "the state cannot be put back as it was"),
        }
    }
    on
}

/// Moves data to a revision, with the conversion of the state that goes before.
async fn move_all(
    context: &Arc<HostContext>,
    agent: &Arc<Agent>,
    old: Option<&Arc<Revision>>,
    new: &Arc<Revision>,
    moves: Moves,
    converting: Option<Converting>,
) -> Result<(), Failed> {
    let mut unfinished = converting.as_ref().is_some_and(|converting| converting.again);
    let moved = async {
        if let Some(converting) = &converting {
            // What the old one has in hand is handled again, by the new one; until the end it handles nothing more.
            let ends = match old.filter(|_| matches!(moves, Moves::Earlier)) {
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
            Moves::State => {}
            Moves::Memory(memory) => {
                let old = old.ok_or("no revision of the agent runs")?;
                hand_off(agent, old, new, memory).await?;
            }
            Moves::Earlier => take_back(agent, old, new).await?,
        }
        let Some(converting) = &converting else { return Ok(()) };
        let finished = context.store.finish_state_copy(agent.name().shared(), converting.stable).await;
        finished.map_err(|error| format!("the end of the conversion could not be kept: {error}"))
    };
    moved.await.map_err(|why: String| Failed { why, unfinished })
}

/// Keeps the state as it is, and migrates it or puts an earlier one in its place. `unfinished` is set once the state may
/// be another than it was.
async fn convert(
    context: &Arc<HostContext>,
    agent: &Arc<Agent>,
    new: &Arc<Revision>,
    converting: &Converting,
    unfinished: &mut bool,
) -> Result<(), String> {
    let Converting { conversion, stable, time, again, stop, .. } = converting;
    let name = agent.name();
    let id = RevisionId { agent: name.clone(), number: *stable };
    if let Some(earlier) = &conversion.restores {
        let keep = (!again).then(|| converting.keeps());
        let restored = agent.restore_state(earlier.revision, keep).await;
        let restored = restored.map_err(|error| format!("the earlier state could not be put back: {error}"))?;
        *unfinished = true;
        tracing::info!(agent = %name, "{} has the state of {name}@{} ({} keys); the one of {id} is kept", new.id, earlier.revision, restored.keys);
        let data = json!({ "revision": new.id.number, "from": earlier.revision, "keys": restored.keys });
        context.events.tell(Some(name.as_str()), "state.restored", data);
        return Ok(());
    }
    if !again {
        let kept = context.store.keep_state(name.shared(), converting.keeps()).await;
        let copy = kept.map_err(|error| format!("the state could not be kept: {error}"))?;
        *unfinished = true;
        tell_kept(context, &id, &new.id, &copy);
    }
    if conversion.migrates {
        let (from, to) = (conversion.from, conversion.to);
        tracing::info!(agent = %name, "{} migrates the state from version {from} to {to}", new.id);
        let migrated = tokio::select! {
            biased;
            () = stop.cancelled() => Err("it was broken off".to_owned()),
            migrated = agent.migrate(new, from, *time) => migrated,
        };
        let migrated = migrated.map_err(|why| format!("its migration failed: {why}"))?;
        tracing::info!(agent = %name, "{} migrated {} keys in {} steps", new.id, migrated.keys, migrated.steps);
        let data = json!({
            "revision": new.id.number, "from": from, "to": to, "keys": migrated.keys, "steps": migrated.steps,
        });
        context.events.tell(Some(name.as_str()), "state.migrated", data);
    }
    Ok(())
}

/// Tells that the state of a revision is kept, since another of a new format follows it.
fn tell_kept(context: &HostContext, stable: &RevisionId, candidate: &RevisionId, copy: &StateCopy) {
    let (name, StateCopy { keys, bytes, holds, .. }) = (&stable.agent, copy);
    tracing::info!(agent = %name, "the state of {stable} is kept ({keys} keys, {bytes} bytes): {candidate} writes another format");
    let data = json!({ "revision": stable.number, "keys": keys, "bytes": bytes, "versions": holds });
    context.events.tell(Some(name.as_str()), "state.kept", data);
}
