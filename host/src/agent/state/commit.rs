//! Turns the effects of handlers into commits, and gives them to the store.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use crate::agent::{Agent, Revision};
use crate::message::{Effects, Outgoing, TimerCancel};
use crate::store::{Add, Commit, CommitError, CommitRequest, Committed, StateChange};

/// A commit that was refused, with its change.
pub(in crate::agent) struct RefusedCommit {
    pub(in crate::agent) error: CommitError,
    pub(in crate::agent) state: Option<StateChange>,
}

impl Agent {
    /// Returns the change that effects make to the agent's state; moves messages and cancelled timers to `sends` and
    /// `cancels`.
    pub(in crate::agent) fn change(
        &self,
        revision: &Revision,
        (sends, cancels): (&mut Vec<Outgoing>, &mut Vec<TimerCancel>),
        effects: Effects,
    ) -> Option<StateChange> {
        let Effects { sends: sent, cancels: cancelled, writes, adds, reads, reads_uncommitted, .. } = effects;
        (*sends, *cancels) = (sent, cancelled);
        // A read alone needs no check: it matters only if a message or a cancelled timer follows from it.
        let follows = reads_uncommitted || !sends.is_empty() || !cancels.is_empty();
        if writes.is_empty() && adds.is_empty() && (reads.is_empty() || !follows) {
            return None;
        }
        Some(StateChange {
            reads,
            writes,
            expired: Vec::new(),
            // The sums are computed under the lock, when the commit is given to the store.
            adds: adds.into_iter().map(|(key, by)| (key, Add { by, sum: 0 })).collect(),
            version: 0,
            quota: revision.spec.limits.state_bytes,
        })
    }

    pub(in crate::agent) fn submit(&self, request: CommitRequest) {
        if let Some(state) = &request.commit.state {
            // Before the values can be read: a shadow must not take them for those of an earlier message.
            self.note_writes(state.written());
        }
        self.pending.submit(&self.context.store, request.counted_in(&self.backlog));
    }

    /// Records the result of a commit that changes the state: what it wrote is in the store, or is not kept.
    pub(in crate::agent) fn settled(&self, state: &StateChange, state_bytes: Option<u64>) {
        if let Some(bytes) = state_bytes {
            self.state_bytes.store(bytes, Ordering::Relaxed);
        }
        self.pending.settled(state);
    }

    /// Changes the agent's state and sends messages, outside of any handling; returns when it is durable.
    pub(crate) async fn commit(&self, state: Option<StateChange>, sends: Vec<Outgoing>) -> Result<(), CommitError> {
        self.commit_under((None, false), state, (sends, Vec::new())).await.map_err(|refused| refused.error)
    }

    /// Commits a run under a ticket, or a part of it. Returns a refused change.
    pub(in crate::agent) async fn commit_under(
        &self,
        (ticket, is_part): (Option<u64>, bool),
        state: Option<StateChange>,
        (sends, cancels): (Vec<Outgoing>, Vec<TimerCancel>),
    ) -> Result<(), Box<RefusedCommit>> {
        let (sender, receiver) = oneshot::channel();
        // Weak: a commit in the store's queue must not keep a removed agent alive.
        let me = Weak::clone(&self.me);
        let done = Box::new(move |committed: Committed| {
            let Committed { result, sends, state, state_bytes, .. } = committed;
            if let (Some(agent), Some(state)) = (me.upgrade(), &state) {
                agent.settled(state, state_bytes);
            }
            if result.is_ok() {
                sends.into_iter().for_each(Outgoing::deliver);
            }
            // The caller may have been dropped.
            let _ = sender.send(result.map_err(|error| Box::new(RefusedCommit { error, state })));
        });
        let mut commit = Commit::new(self.name.shared());
        (commit.state, commit.cancels) = (state, cancels);
        (commit.ticket, commit.is_part, commit.within) = (ticket, is_part, ticket.into_iter().collect());
        self.submit(CommitRequest::new(commit, sends, done));
        // The sender is dropped only with the store's writer.
        let ended = || RefusedCommit { error: CommitError::Store("its writer ended".to_owned()), state: None };
        receiver.await.unwrap_or_else(|_| Err(Box::new(ended())))
    }
}
