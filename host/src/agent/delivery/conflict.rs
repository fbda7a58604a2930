//! Conflicts: a handler that read a key which another changed meanwhile runs again, with its keys reserved.
//!
//! ```text
//! first run -> commit -> conflict: it read a key that another has written since
//!    '-- or broken off: it read a key that is reserved, and was about to do something that follows from it
//! second run: its keys are reserved; what it asks again is answered from the first
//!    '-- conflict all the same: it touched another key, or read what was never committed
//! third run: the new keys too, and not before all that was written to them is safe
//!    '-- conflict: the code `conflict`
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use crate::agent::Agent;
use crate::agent::delivery::handling::Handling;
use crate::agent::mailbox::entry::QueuedMessage;
use crate::agent::outcome_text::MAX_RUNS;
use crate::message::{
    Conflict, ConflictHistory, Envelope, KeyReservations, Outcome, RequestLog, Reservation, RunContext,
};
use crate::store::StateChange;

/// A run that has nothing to be committed.
pub(in crate::agent) enum FailedAttempt {
    /// A failure.
    Failed(Outcome),
    /// A conflict with a run that changes what this one read.
    Conflict(Conflict),
    /// The host had no memory for the rest of the run. Nothing of it is left but the answers to its requests.
    Starved(RequestLog),
}

impl From<Outcome> for FailedAttempt {
    fn from(outcome: Outcome) -> Self {
        Self::Failed(outcome)
    }
}

/// Returns the conflict of a run whose changes were refused.
pub(in crate::agent) fn refused(
    key: String,
    state: Option<&StateChange>,
    answers: RequestLog,
    partly: bool,
) -> Conflict {
    let touched = state.into_iter().flat_map(|state| state.reads.keys().chain(state.written()));
    Conflict { key, keys: touched.cloned().collect(), requests: answers, partly_committed: partly }
}

impl KeyReservations for Agent {
    fn is_reserved(&self, key: &str, within: &[u64]) -> bool {
        self.pending.is_reserved(key, within)
    }

    fn release(&self, ticket: u64) {
        self.pending.release(&self.context.store, ticket);
    }
}

impl Agent {
    /// Records a run that ended in a conflict. Returns the key as an error if it was the last run.
    pub(in crate::agent) fn note_conflict(
        &self,
        again: Option<Box<ConflictHistory>>,
        conflict: Conflict,
    ) -> Result<Box<ConflictHistory>, String> {
        self.stats.count_conflict();
        let Conflict { key, keys, requests, partly_committed: _ } = conflict;
        let mut again = again.unwrap_or_else(|| self.new_history());
        again.runs += 1;
        // Counted per attempt: a later attempt at the message begins with none.
        if again.runs >= MAX_RUNS {
            return Err(key);
        }
        // All keys of all runs: a run may come back to a path that an earlier one took.
        again.keys.extend(keys);
        again.requests = requests.for_next_run();
        Ok(again)
    }

    /// Lets the handler run again in its turn after a run ended in a conflict.
    pub(in crate::agent) fn run_again(
        self: &Arc<Self>,
        handling: Handling,
        mut envelope: Box<Envelope>,
        conflict: Conflict,
    ) {
        match self.note_conflict(envelope.conflicts.take(), conflict) {
            Err(key) => self.failed(handling, envelope, Outcome::Conflict(key)),
            Ok(again) => {
                self.mailbox.abandon_trial();
                let (ticket, keys) = (again.reservation.ticket, again.keys.clone());
                let priority = (envelope.caller_tickets.clone(), again.runs > 1);
                envelope.conflicts = Some(again);
                let go_on = self.requeue_later(handling, envelope);
                self.pending.queue_run(&self.context.store, ticket, keys, priority, go_on);
            }
        }
    }

    /// Lets the handler run again whose commit came after a refused one, on whose memory it had built.
    pub(in crate::agent) fn ran_ahead(
        self: &Arc<Self>,
        handling: Handling,
        mut envelope: Box<Envelope>,
        answers: RequestLog,
    ) {
        // Not counted as a conflict: nothing that the handler did was wrong, and its next run builds on other memory.
        let mut again = envelope.conflicts.take().unwrap_or_else(|| self.new_history());
        again.requests = answers.for_next_run();
        let (ticket, keys) = (again.reservation.ticket, again.keys.clone());
        let place = (envelope.caller_tickets.clone(), again.runs > 1);
        envelope.conflicts = Some(again);
        self.mailbox.abandon_trial();
        if keys.is_empty() {
            return self.requeue_handling(handling, envelope, None);
        }
        let go_on = self.requeue_later(handling, envelope);
        self.pending.queue_run(&self.context.store, ticket, keys, place, go_on);
    }

    /// Returns the history of a message that has run once.
    fn new_history(&self) -> Box<ConflictHistory> {
        let me = Weak::clone(&self.me);
        let left = move |ticket| {
            if let Some(agent) = me.upgrade() {
                KeyReservations::release(&*agent, ticket);
            }
        };
        let (keys, requests, reservation) = (BTreeSet::new(), RequestLog::default(), Reservation::new(left));
        Box::new(ConflictHistory { runs: 0, keys, requests, reservation })
    }

    /// Returns a message to its place in the mailbox, later. Meanwhile only its own conversation waits for it: it is
    /// not in flight.
    fn requeue_later(self: &Arc<Self>, handling: Handling, envelope: Box<Envelope>) -> Box<dyn FnOnce() + Send> {
        let (taken, flight) = handling.into_taken(QueuedMessage::InMemory(envelope));
        // Not in flight while it waits, so that a handoff between revisions need not wait for it.
        drop(flight);
        let me = Weak::clone(&self.me);
        Box::new(move || {
            if let Some(agent) = me.upgrade() {
                agent.requeue(taken, None);
            }
        })
    }

    /// Reserves the keys of a run after a conflict. Returns `false` if another run has one of them by now.
    pub(in crate::agent) async fn reserve_keys(&self, again: Option<&ConflictHistory>) -> bool {
        let Some(again) = again else { return true };
        // Tried only when the run begins: keys that are reserved while it waits in the mailbox would stop others for
        // nothing.
        if !self.pending.begin(again.reservation.ticket) {
            return false;
        }
        if again.runs + 1 >= MAX_RUNS {
            // Nothing that it reads can be refused any more.
            self.pending.until_settled(&again.keys).await;
        }
        true
    }

    /// Lets a message wait whose run could not start.
    pub(in crate::agent) fn wait_for_keys(self: &Arc<Self>, handling: Handling, envelope: Box<Envelope>) {
        let Some(ticket) = envelope.conflicts.as_ref().map(|again| again.reservation.ticket) else { return };
        self.mailbox.abandon_trial();
        let go_on = self.requeue_later(handling, envelope);
        self.pending.requeue_run(&self.context.store, ticket, go_on);
    }

    /// Returns the reservations of a run. Takes the recorded requests of the runs before it.
    pub(in crate::agent) fn run_context(
        self: &Arc<Self>,
        again: Option<&mut ConflictHistory>,
        within: &[u64],
        yields: bool,
    ) -> RunContext {
        self.stats.count_run();
        let mut run = RunContext {
            reservations: Some(Arc::clone(self) as Arc<dyn KeyReservations>),
            // A run with a reservation does not give way again, or it might never get to its end.
            yields: yields && again.is_none(),
            is_repeatable: yields,
            own_tickets: within.to_vec(),
            ..RunContext::default()
        };
        if let Some(again) = again {
            run.ticket = Some(again.reservation.ticket);
            run.own_tickets.push(again.reservation.ticket);
            // Moved: if this run ends in a conflict as well, its log comes back with that.
            run.requests = std::mem::take(&mut again.requests);
        }
        run
    }
}
