//! The ledgers of rollouts in the store, and the state conversions that the last host left unfinished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caxton_control::rollout::Ledger;
use caxton_control::{AgentName, Desired};

use crate::store::Store;

/// Reads the persisted ledgers. Each open rollout is notified that the host has restarted.
pub(super) fn load(store: &Store, now: u64) -> BTreeMap<AgentName, Ledger> {
    // The agents run all the same: calls matter more than the history of rollouts.
    let records = store.rollouts().ledgers().unwrap_or_else(|error| {
        tracing::error!(error, "the rollouts cannot be read; all agents begin with what is declared");
        Vec::new()
    });
    let mut ledgers = BTreeMap::new();
    for (agent, record) in records {
        match serde_json::from_str::<Ledger>(&record) {
            Ok(mut ledger) => {
                if let Some(rollout) = ledger.open_mut() {
                    let consequence = rollout.record_restart(now);
                    let copies = store.state().copies(&agent).unwrap_or_else(|error| {
                        tracing::error!(agent, error, "the states that are kept cannot be read");
                        Vec::new()
                    });
                    // A conversion is finished in the store first, so that the ledger may not know of it yet.
                    if copies.iter().any(|copy| copy.rollout == rollout.id && !copy.unfinished) {
                        rollout.record_conversion(now);
                    }
                    tracing::info!(agent, "rollout {} to {}: {consequence}", rollout.id, rollout.candidate());
                }
                ledgers.insert(ledger.agent.clone(), ledger);
            }
            // Not fatal: one unreadable ledger must not keep all other agents from running.
            Err(error) => {
                tracing::error!(agent, %error, "its rollouts cannot be read; it begins with what is declared");
            }
        }
    }
    ledgers
}

/// Returns the agents whose rollouts go on with a conversion of the state that the last host left unfinished. All other
/// unfinished conversions are undone here, before any agent uses the state or a ledger removes its copy. Blocks
/// meanwhile.
pub(super) fn unfinished_conversions(
    store: &Store,
    ledgers: &BTreeMap<AgentName, Ledger>,
    desired: &Desired,
) -> BTreeSet<AgentName> {
    let copies = store.state().unfinished_copies().unwrap_or_else(|error| {
        tracing::error!(error, "the states that were being converted cannot be read");
        Vec::new()
    });
    let mut continued = BTreeSet::new();
    for (agent, copy) in copies {
        let known = ledgers.get_key_value(agent.as_str()).filter(|(name, ledger)| {
            // Only a declared agent has a rollout that can finish the conversion.
            desired.agents.contains_key(*name) && ledger.open().is_some_and(|rollout| rollout.id == copy.rollout)
        });
        if let Some((name, _)) = known {
            continued.insert(name.clone());
            continue;
        }
        // Blocks on purpose: no agent may be registered before its state is whole.
        let restored = tokio::task::block_in_place(|| {
            let restored = store.state().restore(agent.as_str().into(), copy.revision, None, Arc::default());
            tokio::runtime::Handle::current().block_on(restored)
        });
        match restored {
            Ok(_) => tracing::info!(agent, "the state is as it was when {agent}@{} had it", copy.revision),
            Err(error) => tracing::error!(agent, %error, "the state cannot be put back as it was"),
        }
    }
    continued
}
