//! Reports the ends of handlings to an agent's breaker, and its openings to operators.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use caxton_control::breaker::{Admission, BreakerState, Failing};

use super::fail::is_fault;
use super::queue::Slot;
use super::reply::describe;
use super::{AdmitError, Agent, Outcomes, Revision};
use crate::clock;
use crate::status::Opening;
use crate::wasm::{Envelope, HttpEnd, Outcome};

/// An HTTP call that is a trial. Dropping it before its end is told lets another be one.
pub(super) struct Trial(Arc<Agent>);

impl Trial {
    /// The call was answered: the breaker closes, whatever becomes of the rest of the body.
    pub(super) fn answered(self) {
        self.0.count_well();
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.inbox.lock().breaker.abandoned();
    }
}

/// Returns true if a revision failed at a message before.
pub(super) fn failing(envelope: &Envelope, revision: &Revision) -> Failing {
    let id = revision.id.to_string();
    if envelope.failed.iter().any(|failed| failed.revision == id) { Failing::Again } else { Failing::First }
}

impl Slot {
    /// Attempts at the message that failed.
    pub(super) fn failures(&self) -> u32 {
        match self {
            Self::Here(envelope) => failures(envelope),
            Self::Kept(place) => place.failed,
        }
    }
}

/// Attempts at a message that failed.
pub(super) fn failures(envelope: &Envelope) -> u32 {
    u32::try_from(envelope.failed.len()).unwrap_or(u32::MAX)
}

impl Agent {
    /// Refuses calls while the agent is left alone because it failed again and again.
    pub(crate) fn check_breaker(&self) -> Result<(), AdmitError> {
        let now = clock::steady_ms();
        let admission = self.inbox.lock().breaker.peek(now);
        self.admitted(admission, now)
    }

    /// The same for an HTTP call, which no mailbox makes a trial when one is due.
    pub(super) fn admit_call(self: &Arc<Self>) -> Result<Option<Trial>, AdmitError> {
        let now = clock::steady_ms();
        let admission = self.inbox.lock().breaker.admits(now);
        self.admitted(admission, now)?;
        Ok((admission == Admission::Trial).then(|| Trial(Arc::clone(self))))
    }

    fn admitted(&self, admission: Admission, now: u64) -> Result<(), AdmitError> {
        match admission {
            Admission::Yes | Admission::Trial => Ok(()),
            Admission::No { until } => {
                self.stats.count(Outcomes::Refused);
                Err(AdmitError::BreakerOpen { after: Duration::from_millis(until.saturating_sub(now)) })
            }
        }
    }

    /// Tells the breaker how an HTTP call ended.
    pub(super) fn count_call(&self, end: &HttpEnd, revision: &Arc<Revision>) {
        match &end.result {
            Ok(()) => {
                self.count_ended();
                self.count_well();
            }
            // Says nothing of the agent, neither well nor badly.
            Err(_) if end.by_caller => self.inbox.lock().breaker.abandoned(),
            Err(fault) => self.count_fault(&Outcome::Fault(fault.clone()), revision, None),
        }
    }

    /// Counts a handler that ended well. The breaker hears of it with the next fault, so that this takes no lock.
    pub(super) fn count_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the breaker that a handling ended well.
    fn count_well(&self) {
        let closed = self.inbox.lock().breaker.well();
        if closed {
            self.tell_closed("it handled a message again");
        }
    }

    /// Tells that the breaker closes, and why.
    pub(super) fn tell_closed(&self, why: &str) {
        tracing::info!(agent = %self.name, "its breaker closes: {why}");
        self.context.events.tell(Some(self.name.as_str()), "breaker.closed", serde_json::json!({}));
    }

    /// Returns true if its breaker is open, or lets through no more than a trial.
    pub(crate) fn is_left_alone(&self) -> bool {
        self.inbox.lock().breaker.state(clock::steady_ms()) != BreakerState::Closed
    }

    /// The failure that opened the breaker last; none when it is closed.
    pub(crate) fn opening(&self) -> Option<Opening> {
        let inbox = self.inbox.lock();
        let open = inbox.breaker.state(clock::steady_ms()) != BreakerState::Closed;
        inbox.opening.as_deref().filter(|_| open).cloned()
    }

    /// Closes the breaker, since another revision answers from now on.
    pub(super) fn trust(&self) {
        if self.inbox.lock().breaker.begin_anew() {
            self.tell_closed("another revision answers");
        }
    }

    /// Tells the breaker how a handling ended that failed; an HTTP call has no envelope. What a new revision does with its
    /// part of the traffic is its rollout's affair: it must not keep the other part from who handles it well.
    pub(super) fn count_fault(&self, outcome: &Outcome, revision: &Arc<Revision>, envelope: Option<&Envelope>) {
        let on_trial = !self.current().is_some_and(|current| Arc::ptr_eq(&current, revision));
        if !is_fault(outcome) || on_trial {
            self.inbox.lock().breaker.abandoned();
            return;
        }
        let failing = envelope.map_or(Failing::First, |envelope| failing(envelope, revision));
        let opening = {
            let mut inbox = self.inbox.lock();
            let trial = inbox.breaker.is_trying();
            inbox.breaker.ended(self.ended.swap(0, Ordering::Relaxed));
            if !inbox.breaker.fault(clock::steady_ms(), failing) {
                return;
            }
            let message = envelope.map(|envelope| envelope.message.id.clone());
            let attempt = envelope.map_or(1, |envelope| envelope.message.attempt);
            let opening = Opening { trial, message, attempt, reason: describe(outcome) };
            inbox.opening = Some(Box::new(opening.clone()));
            opening
        };
        let Opening { trial, message, attempt, reason } = &opening;
        let (of, after) =
            if *trial { ("stays open", "its trial failed") } else { ("opens", "it failed again and again") };
        let message_id = message.as_deref().unwrap_or_default();
        tracing::warn!(agent = %self.name, id = message_id, attempt, why = reason, "its breaker {of}: {after}");
        let data = serde_json::json!({ "reason": reason, "trial": trial, "message": message, "attempt": attempt });
        self.context.events.tell(Some(self.name.as_str()), "breaker.opened", data);
    }
}
