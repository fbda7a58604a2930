//! The handoff: the memory of a stateful agent moves from one revision to another.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::rollout::MemoryHandover;

use super::preparation::START_TIMEOUT;
use crate::agent::{Agent, Revision};
use crate::store::Snapshot;
use crate::wasm::Lease;

/// Returns to a revision the memory that it handed over earlier. Later changes by the `old` revision are dropped. The
/// mailbox is paused. If the memory cannot be restored, the old revision goes on as it was.
pub(super) async fn take_back(agent: &Agent, old: Option<&Arc<Revision>>, new: &Arc<Revision>) -> Result<(), String> {
    let old = old.filter(|old| !Arc::ptr_eq(old, new));
    let handed = agent.handoff_memory(new.id.number)?;
    // First: until the new instance runs, the old revision can go on as it was.
    start_with(new, handed.as_deref()).await?;
    if let Some(old) = old {
        // The messages that it is handling are handled again by the new revision.
        old.interrupt();
    }
    // Held until the memory is back in the store: the idle sweep would save the one that is to be dropped.
    let ends = match old {
        Some(old) => old.pool.lease_at_rest().await,
        None => None,
    };
    let taken = agent.restore_handoff(new.id.number).await;
    // Dropping the lease ends the old instance.
    drop(ends);
    taken.map_err(|error| format!("its memory could not be taken back: {error}"))
}

/// Starts an instance of a stateful agent with this memory, or with none.
async fn start_with(revision: &Arc<Revision>, memory: Option<&[u8]>) -> Result<(), String> {
    let stands = async {
        match memory {
            Some(memory) => revision.pool.start_with_state(memory).await,
            None => revision.pool.start_without_state().await,
        }
    };
    match tokio::time::timeout(START_TIMEOUT, stands).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => Err(fault.to_string()),
        Err(_) => Err(format!("its instance did not stand within {} s", START_TIMEOUT.as_secs())),
    }
}

/// Moves the memory of a stateful agent from its running revision to a ready one, or discards it. The mailbox is paused
/// and the old instance idle. After a failure the old revision still has everything.
pub(super) async fn hand_off(
    agent: &Agent,
    old: &Arc<Revision>,
    new: &Arc<Revision>,
    memory: MemoryHandover,
) -> Result<(), String> {
    let began = Instant::now();
    let handed = match memory {
        MemoryHandover::Migrate => migrate(agent, old, new).await,
        MemoryHandover::Discard => discard(agent, old, new).await,
    };
    // Failed handoffs are left out: they would hide the pause of those that succeed.
    if handed.is_ok() {
        metrics::histogram!("caxton_handoff_seconds", "agent" => agent.name().to_string()).record(began.elapsed());
    }
    handed
}

/// Restores the memory in the candidate while it is written to the store: the mailbox waits for the longer of the two.
/// Messages go to the candidate only after both, so that the memory is durable before any of its commits.
async fn migrate(agent: &Agent, old: &Arc<Revision>, new: &Arc<Revision>) -> Result<(), String> {
    let (lease, given) = save(agent, old).await?;
    let stands = async {
        match &given {
            SavedMemory::Memory(snapshot) => new.pool.start_with_state(&snapshot.data).await,
            SavedMemory::Before | SavedMemory::Nothing => new.pool.warm(1).await,
        }
    };
    // At the same time: the mailbox is paused until both are done.
    let (kept, stands) = tokio::join!(keep(agent, old, &given), tokio::time::timeout(START_TIMEOUT, stands));
    let stands = match stands {
        Ok(stands) => stands.map_err(|fault| fault.to_string()),
        Err(_) => Err(format!("it did not take up the memory within {} s", START_TIMEOUT.as_secs())),
    };
    // If both failed, the store's reason is the one that an operator has to act on.
    let handed = kept.and(stands);
    if handed.is_err() {
        give_back(lease);
    }
    handed
}

/// Starts the candidate without memory. The memory of the old revision is kept for an undo.
async fn discard(agent: &Agent, old: &Arc<Revision>, new: &Arc<Revision>) -> Result<(), String> {
    let (lease, kept) = match save(agent, old).await {
        Ok((lease, given)) => (lease, keep(agent, old, &given).await),
        Err(why) => (None, Err(why)),
    };
    if let Err(why) = kept {
        // Not an error: a revision that cannot save its memory may be the reason for discarding it.
        tracing::warn!(agent = %agent.name(), "{why}; an undo has only that");
        if let Err(why) = keep(agent, old, &SavedMemory::Before).await {
            give_back(lease);
            return Err(why);
        }
    }
    let stands = async {
        // Started before the memory is discarded: a candidate that does not start must not cost it.
        new.pool.start_without_state().await.map_err(|fault| fault.to_string())?;
        agent.discard_memory().await.map_err(|error| format!("the old memory could not be discarded: {error}"))
    };
    let handed = match tokio::time::timeout(START_TIMEOUT, stands).await {
        Ok(stands) => stands,
        Err(_) => Err(format!("it did not begin anew within {} s", START_TIMEOUT.as_secs())),
    };
    if handed.is_err() {
        give_back(lease);
    }
    handed
}

/// The memory that a revision hands over.
enum SavedMemory {
    /// The memory that was saved just now.
    Memory(Arc<Snapshot>),
    /// The memory that was saved earlier, when the instance ended.
    Before,
    /// The revision has no memory.
    Nothing,
}

/// Saves the memory of a revision. The instance is leased until the end of the handoff; there is none if it had ended.
async fn save(agent: &Agent, old: &Arc<Revision>) -> Result<(Option<Lease>, SavedMemory), String> {
    let Some(lease) = old.pool.lease_at_rest().await else { return Ok((None, SavedMemory::Before)) };
    let (lease, saved) = agent.save(old, lease).await?;
    Ok((Some(lease), saved.map_or(SavedMemory::Nothing, SavedMemory::Memory)))
}

/// Writes the memory to the store, as that of the agent and as the one that this revision handed over.
async fn keep(agent: &Agent, old: &Arc<Revision>, given: &SavedMemory) -> Result<(), String> {
    let kept = match given {
        SavedMemory::Memory(snapshot) => agent.keep_handoff(Arc::clone(snapshot)).await,
        SavedMemory::Before => agent.keep_saved_as_handoff(old.id.number).await,
        SavedMemory::Nothing => Ok(()),
    };
    kept.map_err(|error| match given {
        SavedMemory::Memory(_) => agent.report_failed_save(old, &format!("its memory could not be kept: {error}")),
        SavedMemory::Before | SavedMemory::Nothing => format!("the memory of {} could not be kept: {error}", old.id),
    })
}

/// Returns the instance to the old revision, which goes on with it.
fn give_back(lease: Option<Lease>) {
    if let Some(lease) = lease {
        lease.finish(true);
    }
}
