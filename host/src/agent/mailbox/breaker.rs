//! The breaker of a mailbox: the ends of handlings are reported to it, and its changes to operators.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use caxton_control::breaker::{Admission, BreakerState, FaultHistory};

use crate::agent::mailbox::Mailbox;
use crate::agent::outcome_text::{describe, is_fault};
use crate::agent::{AdmitError, Agent, Outcomes, Revision};
use crate::api_types::BreakerOpening;
use crate::clock;
use crate::message::{Envelope, Outcome};
use crate::wasm::HttpEnd;

/// An HTTP call that is a trial. Dropping it before its end is known lets another be one.
pub(in crate::agent) struct Trial(Arc<Agent>);

impl Trial {
    /// Closes the breaker: the call was answered, whatever becomes of the rest of the body.
    pub(in crate::agent) fn answered(self) {
        self.0.report_success();
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.0.mailbox.abandon_trial();
    }
}

/// Returns `Repeated` if the revision failed at the message before.
pub(in crate::agent) fn fault_history(envelope: &Envelope, revision: &Revision) -> FaultHistory {
    let id = revision.id.to_string();
    if envelope.failed.iter().any(|failed| failed.revision == id) {
        FaultHistory::Repeated
    } else {
        FaultHistory::First
    }
}

impl Mailbox {
    /// Releases the trial of a message that was neither handled nor failed, so that another can be one.
    pub(in crate::agent) fn abandon_trial(&self) {
        self.lock().breaker.abandoned();
    }
}

impl Agent {
    /// Refuses calls while the breaker is open.
    pub(crate) fn check_breaker(&self) -> Result<(), AdmitError> {
        let now = clock::steady_ms();
        // Only a look: a message becomes the trial when a worker takes it, and not before.
        let admission = self.mailbox.lock().breaker.peek(now);
        self.check_admission(admission, now)
    }

    /// Refuses HTTP calls while the breaker is open. Returns the trial if the call is one.
    pub(in crate::agent) fn admit_call(self: &Arc<Self>) -> Result<Option<Trial>, AdmitError> {
        let now = clock::steady_ms();
        let admission = self.mailbox.lock().breaker.admits(now);
        self.check_admission(admission, now)?;
        // Dropped by whatever path ends the call, so that a trial is never lost.
        Ok((admission == Admission::Trial).then(|| Trial(Arc::clone(self))))
    }

    fn check_admission(&self, admission: Admission, now: u64) -> Result<(), AdmitError> {
        match admission {
            Admission::Yes | Admission::Trial => Ok(()),
            Admission::No { until } => {
                self.stats.count(Outcomes::Refused);
                Err(AdmitError::BreakerOpen { after: Duration::from_millis(until.saturating_sub(now)) })
            }
        }
    }

    /// Reports the end of an HTTP call to the breaker.
    pub(in crate::agent) fn report_call(&self, end: &HttpEnd, revision: &Arc<Revision>) {
        match &end.result {
            Ok(()) => {
                self.count_success();
                self.report_success();
            }
            // Says nothing of the agent, neither well nor badly.
            Err(_) if end.by_caller => self.mailbox.abandon_trial(),
            Err(fault) => self.report_fault(&Outcome::Fault(fault.clone()), revision, None),
        }
    }

    /// Counts a handler that succeeded. The breaker learns of it with the next fault, so that this takes no lock.
    pub(in crate::agent) fn count_success(&self) {
        // Relaxed: the breaker needs the number to be about right when a fault comes.
        self.mailbox.successes.fetch_add(1, Ordering::Relaxed);
    }

    /// Reports a success to the breaker.
    fn report_success(&self) {
        // A statement of its own, so that the event is emitted without the lock.
        let closed = self.mailbox.lock().breaker.succeeded();
        if closed {
            self.emit_breaker_closed("it handled a message again");
        }
    }

    /// Emits `breaker.closed`.
    pub(in crate::agent) fn emit_breaker_closed(&self, why: &str) {
        tracing::info!(agent = %self.name, "its breaker closes: {why}");
        self.context.events.emit(Some(self.name.as_str()), "breaker.closed", serde_json::json!({}));
    }

    /// Returns `true` if the breaker is open or half-open.
    pub(crate) fn is_breaker_open(&self) -> bool {
        self.mailbox.lock().breaker.state(clock::steady_ms()) != BreakerState::Closed
    }

    /// Returns the failure that opened the breaker last; `None` while it is closed.
    pub(crate) fn opening(&self) -> Option<BreakerOpening> {
        let state = self.mailbox.lock();
        let open = state.breaker.state(clock::steady_ms()) != BreakerState::Closed;
        state.opening.as_deref().filter(|_| open).cloned()
    }

    /// Closes the breaker, because another revision handles messages from now on.
    pub(in crate::agent) fn reset_breaker(&self) {
        if self.mailbox.lock().breaker.reset() {
            self.emit_breaker_closed("another revision answers");
        }
    }

    /// Reports a failed handling to the breaker; an HTTP call has no envelope. Failures of a candidate are left to its
    /// rollout: they must not open the breaker of the revision beside it.
    pub(in crate::agent) fn report_fault(
        &self,
        outcome: &Outcome,
        revision: &Arc<Revision>,
        envelope: Option<&Envelope>,
    ) {
        // Compared with stable, and not looked up in the split, which may have ended meanwhile.
        let is_candidate = !self.current().is_some_and(|current| Arc::ptr_eq(&current, revision));
        if !is_fault(outcome) || is_candidate {
            self.mailbox.abandon_trial();
            return;
        }
        let history = envelope.map_or(FaultHistory::First, |envelope| fault_history(envelope, revision));
        let opening = {
            let mut state = self.mailbox.lock();
            let trial = state.breaker.is_trying();
            // The successes first: they came before the fault.
            state.breaker.count_successes(self.mailbox.successes.swap(0, Ordering::Relaxed));
            if !state.breaker.fault(clock::steady_ms(), history) {
                return;
            }
            let message = envelope.map(|envelope| envelope.message.id.clone());
            let attempt = envelope.map_or(1, |envelope| envelope.message.attempt);
            let opening = BreakerOpening { trial, message, attempt, reason: describe(outcome) };
            state.opening = Some(Box::new(opening.clone()));
            opening
        };
        // Without the lock: events and logs take their own.
        let BreakerOpening { trial, message, attempt, reason } = &opening;
        let (of, after) =
            if *trial { ("stays open", "its trial failed") } else { ("opens", "it failed again and again") };
        let message_id = message.as_deref().unwrap_or_default();
        tracing::warn!(agent = %self.name, id = message_id, attempt, why = reason, "its breaker {of}: {after}");
        let data = serde_json::json!({ "reason": reason, "trial": trial, "message": message, "attempt": attempt });
        self.context.events.emit(Some(self.name.as_str()), "breaker.opened", data);
    }
}
