//! Dead letters that are to be handled after all, because an operator wants it.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_control::RevisionId;

use super::Agent;
use crate::context::HostContext;
use crate::store::{DeadFilter, Store};

/// What became of dead letters that were to be redelivered.
#[derive(Debug, Default)]
pub(crate) struct Redelivered {
    /// How many wait in their mailboxes again, by agent.
    pub(crate) agents: BTreeMap<String, u64>,
    /// Those that stay as they are.
    pub(crate) left: Vec<Left>,
}

/// Dead letters of an agent that cannot be redelivered now.
#[derive(Debug)]
pub(crate) struct Left {
    /// Whose.
    pub(crate) agent: String,
    /// How many.
    pub(crate) count: u64,
    /// Why, for a person.
    pub(crate) why: String,
}

/// Why nothing was redelivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedeliverError {
    /// Nobody has the name.
    #[error("the agent `{0}` is not declared, so its dead letters have nobody to go to")]
    NotDeclared(String),
    /// The agent takes no messages any more.
    #[error("`{0}` is an HTTP agent now and takes no messages")]
    Http(String),
    /// Another revision runs than was asked for.
    #[error("{} runs, not {asked}", runs.as_ref().map_or_else(|| format!("no revision of `{}`", asked.agent), ToString::to_string))]
    OtherRevision {
        /// What was asked for.
        asked: RevisionId,
        /// What runs.
        runs: Option<Arc<RevisionId>>,
    },
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
}

/// Lets dead letters wait in their agents' mailboxes again. `revision` is the one that has to run; it is of the
/// agent that `filter` names.
///
/// When `filter` names an agent that cannot take them, that is an error; those of agents that it does not name
/// are left as they are. Must not be dropped before its end: what is taken out of the store has yet to be put into a
/// mailbox.
pub(crate) async fn redeliver(
    context: &HostContext,
    filter: DeadFilter,
    revision: Option<RevisionId>,
) -> Result<Redelivered, RedeliverError> {
    let store = &context.store;
    // What becomes a dead letter again meanwhile has a higher number, and stays.
    let last = store.last_dead().map_err(RedeliverError::Store)?;
    let filter = DeadFilter { up_to: filter.up_to.min(last), ..filter };
    if let Some(name) = &filter.agent {
        taker(context, name, revision.as_ref())?;
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for found in count(store, &filter).await? {
        *counts.entry(found.0).or_default() += found.1;
    }
    let mut redelivered = Redelivered::default();
    for (name, count) in counts {
        match taker(context, &name, revision.as_ref()) {
            Ok(agent) => {
                let filter = DeadFilter { agent: Some(name.clone()), ..filter.clone() };
                let count = redeliver_to(store, &agent, filter).await?;
                redelivered.agents.insert(name, count);
            }
            Err(why) => redelivered.left.push(Left { agent: name, count, why: why.to_string() }),
        }
    }
    Ok(redelivered)
}

async fn count(store: &Arc<Store>, filter: &DeadFilter) -> Result<Vec<(String, u64)>, RedeliverError> {
    let (store, filter) = (Arc::clone(store), filter.clone());
    let counts = tokio::task::spawn_blocking(move || store.dead_counts(&filter)).await;
    let counts = counts.map_err(|error| RedeliverError::Store(error.to_string()))?.map_err(RedeliverError::Store)?;
    Ok(counts.into_iter().map(|found| (found.agent, found.count)).collect())
}

/// The agent of a name, if it can take them.
fn taker(context: &HostContext, name: &str, revision: Option<&RevisionId>) -> Result<Arc<Agent>, RedeliverError> {
    let routes = context.routes.load();
    let agent = routes.agent(name).ok_or_else(|| RedeliverError::NotDeclared(name.to_owned()))?;
    if agent.is_http() {
        return Err(RedeliverError::Http(name.to_owned()));
    }
    let runs = agent.current().map(|current| Arc::clone(&current.id));
    match revision {
        Some(asked) if runs.as_deref() != Some(asked) => {
            Err(RedeliverError::OtherRevision { asked: asked.clone(), runs })
        }
        Some(_) | None => Ok(Arc::clone(agent)),
    }
}

async fn redeliver_to(store: &Store, agent: &Arc<Agent>, mut filter: DeadFilter) -> Result<u64, RedeliverError> {
    let mut count = 0;
    loop {
        let revived = store.revive(filter.clone()).await.map_err(|error| RedeliverError::Store(error.to_string()))?;
        if revived.envelopes.is_empty() {
            return Ok(count);
        }
        filter.after = revived.last;
        count += revived.envelopes.len() as u64;
        agent.revive(revived.envelopes);
    }
}
