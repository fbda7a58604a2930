//! The redelivery of dead letters, at the request of an operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_control::RevisionId;

use super::HostDirectory;
use crate::agent::Agent;
use crate::store::{DeadFilter, Store};

/// The result of a redelivery.
#[derive(Debug, Default)]
pub(crate) struct Redelivered {
    /// The number of redelivered messages by agent.
    pub(crate) agents: BTreeMap<String, u64>,
    /// The dead letters that stay as they are.
    pub(crate) left: Vec<NotRedelivered>,
}

/// The dead letters of an agent that cannot be redelivered now.
#[derive(Debug)]
pub(crate) struct NotRedelivered {
    pub(crate) agent: String,
    pub(crate) count: u64,
    /// The reason for a person.
    pub(crate) why: String,
}

/// The reason for which nothing was redelivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedeliverError {
    /// A name that no agent has.
    #[error("the agent `{0}` is not declared, so its dead letters have nobody to go to")]
    NotDeclared(String),
    /// An agent that accepts no messages any more.
    #[error("`{0}` is an HTTP agent now and takes no messages")]
    Http(String),
    /// A revision other than the one that was asked for.
    #[error("{} runs, not {asked}", runs.as_ref().map_or_else(|| format!("no revision of `{}`", asked.agent), ToString::to_string))]
    OtherRevision { asked: RevisionId, runs: Option<Arc<RevisionId>> },
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
}

impl HostDirectory {
    /// Puts dead letters into their agents' mailboxes again. `revision` is the one that has to run; it is of the agent
    /// that `filter` names. Dead letters of agents that `filter` does not name and that cannot take them are left as
    /// they are. `repeats_calls` has their calls over HTTP made again that have no success on record. Must not be dropped before its end: what is taken out of the store has yet to be put into a mailbox.
    ///
    /// # Errors
    /// The agent that `filter` names cannot take them, or the store failed.
    pub(crate) async fn redeliver(
        &self,
        filter: DeadFilter,
        revision: Option<RevisionId>,
        repeats_calls: bool,
    ) -> Result<Redelivered, RedeliverError> {
        let store = &self.context.store;
        // What becomes a dead letter again meanwhile has a higher number, and stays.
        let last = store.dead_letters().last().map_err(RedeliverError::Store)?;
        let filter = DeadFilter { up_to: filter.up_to.min(last), ..filter };
        // Before anything is taken out, so that a request for one agent fails as a whole.
        if let Some(name) = &filter.agent {
            self.receiver_for_redelivery(name, revision.as_ref())?;
        }
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for found in count(store, &filter).await? {
            *counts.entry(found.0).or_default() += found.1;
        }
        let mut redelivered = Redelivered::default();
        for (name, count) in counts {
            match self.receiver_for_redelivery(&name, revision.as_ref()) {
                Ok(agent) => {
                    let filter = DeadFilter { agent: Some(name.clone()), ..filter.clone() };
                    let count = redeliver_to(store, &agent, filter, repeats_calls).await?;
                    redelivered.agents.insert(name, count);
                }
                Err(why) => redelivered.left.push(NotRedelivered { agent: name, count, why: why.to_string() }),
            }
        }
        Ok(redelivered)
    }

    /// Returns the agent of a name if it can take them.
    fn receiver_for_redelivery(&self, name: &str, revision: Option<&RevisionId>) -> Result<Arc<Agent>, RedeliverError> {
        let routes = self.routes.load();
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
}

async fn count(store: &Arc<Store>, filter: &DeadFilter) -> Result<Vec<(String, u64)>, RedeliverError> {
    let (store, filter) = (Arc::clone(store), filter.clone());
    // The query reads all dead letters, which would block the runtime.
    let counts = tokio::task::spawn_blocking(move || store.dead_letters().counts(&filter)).await;
    let counts = counts.map_err(|error| RedeliverError::Store(error.to_string()))?.map_err(RedeliverError::Store)?;
    Ok(counts.into_iter().map(|found| (found.agent, found.count)).collect())
}

async fn redeliver_to(
    store: &Store,
    agent: &Arc<Agent>,
    mut filter: DeadFilter,
    repeats_calls: bool,
) -> Result<u64, RedeliverError> {
    let mut count = 0;
    loop {
        let revived = store
            .dead_letters()
            .revive(filter.clone(), repeats_calls)
            .await
            .map_err(|error| RedeliverError::Store(error.to_string()))?;
        if revived.envelopes.is_empty() {
            return Ok(count);
        }
        filter.after = revived.last;
        count += revived.envelopes.len() as u64;
        // Before the next portion: what the store has revived would wait for the next start otherwise.
        agent.revive(revived.envelopes);
    }
}
