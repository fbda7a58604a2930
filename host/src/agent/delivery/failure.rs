//! The next step for a message whose handling failed: another attempt, or a dead letter.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use caxton_control::RevisionId;

use crate::agent::delivery::handling::Handling;
use crate::agent::mailbox::STORE_PAUSE;
use crate::agent::mailbox::entry::QueuedMessage;
use crate::agent::outcome_text::{code, describe, is_fault};
use crate::agent::{Agent, Outcomes};
use crate::bounds;
use crate::clock;
use crate::message::{Answer, Attempt, Cause, Envelope, Failure, Fault, Outcome};
use crate::store::{Commit, CommitRequest, Committed, DeadLetter, Failed, Handled};

/// The longest time until the next attempt that an agent may ask for: as long as a message may wait (SPEC §7).
const MAX_ASKED: Duration = Duration::from_secs(24 * 60 * 60);

/// The next step after a failure.
enum NextStep {
    /// Retries the message; the failed attempt counts.
    Again,
    /// Retries the message; the attempt does not count, since the host could not do its part.
    Later,
    /// Gives the message up.
    Never(&'static str),
}

fn next_step(outcome: &Outcome) -> NextStep {
    match outcome {
        Outcome::Failed(failure) => match failure.cause {
            // The guest says that the message itself is wrong, which another attempt does not change.
            Cause::Rejected => NextStep::Never("invalid"),
            Cause::Unavailable | Cause::Fault => NextStep::Again,
        },
        Outcome::Cancelled(_) => NextStep::Never("expired"),
        Outcome::NotCommitted(_) => NextStep::Later,
        Outcome::Fault(Fault::Overloaded | Fault::Restarting { .. } | Fault::HostMemory | Fault::Host(_)) => {
            NextStep::Later
        }
        // Another attempt would come to the same call and know no more of it.
        Outcome::Fault(Fault::UnknownOutcome(_)) => NextStep::Never("unknown-outcome"),
        // Another attempt finds no more of it.
        Outcome::Fault(Fault::OverBudget(_)) => NextStep::Never("budget-exceeded"),
        Outcome::Fault(_) | Outcome::BadReply(_) | Outcome::Refused(_) | Outcome::Conflict(_) => NextStep::Again,
        // Not failures.
        Outcome::Reply(_) | Outcome::Done => NextStep::Later,
    }
}

/// Returns the delay that the agent asked for.
fn requested_delay(outcome: &Outcome) -> Duration {
    match outcome {
        Outcome::Failed(Failure { retry_after_ms: Some(ms), .. }) => Duration::from_millis(*ms).min(MAX_ASKED),
        _ => Duration::ZERO,
    }
}

/// Returns `true` if the agent itself failed the message. Otherwise it was interrupted, or the host could not do its
/// part.
fn is_by_agent(outcome: &Outcome) -> bool {
    is_fault(outcome) || matches!(outcome, Outcome::Failed(_))
}

impl Agent {
    /// Handles a failure: tells the caller, or arranges the next attempt or the dead letter.
    pub(in crate::agent) fn failed(&self, mut handling: Handling, mut envelope: Box<Envelope>, outcome: Outcome) {
        // Another attempt is not bound to what this one saw.
        drop(envelope.conflicts.take());
        if let Some(calls) = &envelope.calls {
            calls.end_attempt();
        }
        if let Some(recorder) = handling.take_recorder()
            && matches!(&outcome, Outcome::Failed(_) | Outcome::Fault(_))
            && is_by_agent(&outcome)
        {
            recorder.enqueue_message(envelope.message.clone());
        }
        if let Some(code) = code(&outcome) {
            self.stats.failed_with(code);
        }
        if let Outcome::Fault(Fault::Interrupted) = outcome {
            // An interrupted run does not count as a failure, and its number is used up all the same.
            envelope.message.attempt += 1;
            self.stats.ended(handling.end(&envelope, None, Instant::now()));
            self.requeue_handling(handling, envelope, None);
            return;
        }
        // Before the next attempt is arranged: it must already find the breaker open.
        self.report_fault(&outcome, handling.revision(), Some(&envelope));
        handling.failed = is_by_agent(&outcome).then(|| is_fault(&outcome));
        let why = describe(&outcome);
        let revision = Arc::clone(&handling.revision().id);
        let text = format!("message {} from {} failed: {why}", envelope.message.id, envelope.message.sender);
        handling.revision().log("error", &text, &outcome);
        // A call is neither stored nor retried: its caller decides.
        if envelope.is_call() {
            handling.measure_failed();
            self.stats.ended(handling.end(&envelope, Some(false), Instant::now()));
            if let Some(waiter) = envelope.waiter {
                waiter.resolve(Answer { revision: Some(revision), outcome });
            }
            self.done(handling, false);
            return;
        }
        let (attempts, backoff) = {
            let spec = self.spec.load();
            (spec.mailbox.attempts, spec.mailbox.backoff)
        };
        match next_step(&outcome) {
            NextStep::Never(reason) => {
                envelope.failed.push(attempt(&handling, &envelope, &outcome, &why));
                self.give_up(handling, envelope, reason, why, outcome);
            }
            // The pause keeps a store that fails from being asked by all workers all the time.
            NextStep::Later => self.requeue_handling(handling, envelope, Some(clock::steady_ms() + STORE_PAUSE)),
            NextStep::Again => {
                envelope.failed.push(attempt(&handling, &envelope, &outcome, &why));
                let made = u32::try_from(envelope.failed.len()).unwrap_or(u32::MAX);
                if made >= attempts {
                    return self.give_up(handling, envelope, "attempts-exhausted", why, outcome);
                }
                // With jitter, so that messages that failed together do not come together again.
                let delay = backoff.delay(made, rand::random()).max(requested_delay(&outcome));
                self.try_again(handling, envelope, clock::steady_ms() + clock::millis(delay));
            }
        }
    }

    /// Records a failed attempt, and lets the message wait for the next.
    fn try_again(&self, handling: Handling, envelope: Box<Envelope>, again_at: u64) {
        self.stats.retried();
        self.stats.ended(handling.end(&envelope, None, Instant::now()));
        let (failed, tree) = (envelope.failed.last().cloned(), envelope.tree().cloned());
        // Without a store there is nothing to record, and nothing to wait for.
        let (Some(seq), Some(attempt)) = (envelope.seq.filter(|_| self.context.store.keeps_messages()), failed) else {
            handling.measure_failed();
            return self.requeue_handling(handling, envelope, Some(again_at));
        };
        let agent = self.arc();
        let done = Box::new(move |_: Committed| {
            // If it was not kept, a restart forgets that the attempt was made, and nothing else.
            let agent = Arc::clone(&agent);
            handling.measure_failed();
            agent.requeue_handling(handling, envelope, Some(again_at));
        });
        let mut commit = Commit::new(self.name.shared());
        commit.failed = Some(Failed { seq, attempt, again_at });
        self.context.store.submit(CommitRequest::new(commit, Vec::new(), done).of_tree(tree.as_ref()));
    }

    /// Returns a message in hand to the mailbox.
    pub(in crate::agent) fn requeue_handling(&self, handling: Handling, envelope: Box<Envelope>, due: Option<u64>) {
        let (taken, flight) = handling.into_taken(QueuedMessage::InMemory(envelope));
        drop(flight);
        self.requeue(taken, due);
    }

    /// Makes a dead letter of a message in hand, and tells its sender.
    fn give_up(
        &self,
        handling: Handling,
        envelope: Box<Envelope>,
        reason: &'static str,
        error: String,
        outcome: Outcome,
    ) {
        let sends = self.notices(&envelope, reason, &error);
        let agent = self.arc();
        let (revision, waiter) = (Arc::clone(&handling.revision().id), None);
        let mut envelope = envelope;
        // Kept out of the dead letter: a failed commit hands the envelope back, and the caller still waits.
        let waiter = std::mem::replace(&mut envelope.waiter, waiter);
        let ended = handling.end(&envelope, Some(false), Instant::now());
        let dead = DeadLetter { envelope, reason, error, at: clock::now_ms() };
        self.bury_with(dead, sends, move |buried| {
            handling.measure_failed();
            match buried {
                Ok(()) => {
                    agent.stats.ended(ended);
                    if let Some(waiter) = waiter {
                        waiter.resolve(Answer { revision: Some(revision), outcome });
                    }
                    agent.done(handling, false);
                }
                // Still in the mailbox: it is tried, or given up, again.
                Err(mut envelope) => {
                    envelope.waiter = waiter;
                    // The attempt is recorded again when the next one gives up; twice would count it twice.
                    envelope.failed.pop();
                    let again = Arc::clone(&agent);
                    again.requeue_handling(handling, envelope, Some(clock::steady_ms() + STORE_PAUSE));
                }
            }
        });
    }

    /// Makes a dead letter of a message that was never taken.
    pub(in crate::agent) fn bury(
        &self,
        mut envelope: Box<Envelope>,
        reason: &'static str,
        error: String,
        revision: Option<Arc<RevisionId>>,
    ) {
        let sends = self.notices(&envelope, reason, &error);
        let waiter = envelope.waiter.take();
        self.stats.count(Outcomes::Failed);
        let dead = DeadLetter { envelope, reason, error, at: clock::now_ms() };
        self.bury_with(dead, sends, move |_| {
            if let Some(waiter) = waiter {
                waiter.resolve(Answer { revision, outcome: Outcome::Cancelled(reason) });
            }
        });
    }

    pub(in crate::agent) fn bury_with(
        &self,
        dead: DeadLetter,
        sends: Vec<crate::message::Outgoing>,
        then: impl FnOnce(Result<(), Box<Envelope>>) + Send + 'static,
    ) {
        let (name, reason) = (self.name.shared(), dead.reason);
        tracing::debug!(agent = %self.name, id = dead.envelope.message.id, reason, "a dead letter");
        let done = Box::new(move |committed: Committed| {
            let Committed { result, sends, dead, .. } = committed;
            match (result, dead) {
                (Ok(()), _) => {
                    let labels = [("agent", name.to_string()), ("reason", reason.to_owned())];
                    metrics::counter!("caxton_dead_letters_total", &labels).increment(1);
                    sends.into_iter().for_each(crate::message::Outgoing::deliver);
                    then(Ok(()));
                }
                (Err(_), Some(dead)) => then(Err(dead.envelope)),
                // Cannot happen: the store hands a dead letter back with its refusal.
                (Err(_), None) => {}
            }
        });
        let mut commit = Commit::new(self.name.shared());
        let tree = dead.envelope.tree().cloned();
        commit.dead = Some(Box::new(dead));
        self.context.store.submit(CommitRequest::new(commit, sends, done).of_tree(tree.as_ref()));
    }
}

/// Returns the record of an attempt.
fn attempt(handling: &Handling, envelope: &Envelope, outcome: &Outcome, why: &str) -> Attempt {
    let mut error = why.to_owned();
    let diagnostics = if let Outcome::Fault(fault) = outcome { fault.diagnostics() } else { None };
    for more in diagnostics.iter().flat_map(|diagnostics| [diagnostics.stderr(), diagnostics.backtrace().trim_end()]) {
        if !more.is_empty() {
            error.push('\n');
            error.push_str(more);
        }
    }
    Attempt {
        number: envelope.message.attempt,
        at: handling.started_at,
        revision: handling.revision().id.to_string(),
        code: code(outcome).unwrap_or("handled").to_owned(),
        error: bounds::cut(error, bounds::ERROR),
        took_us: u64::try_from(handling.took.as_micros()).unwrap_or(u64::MAX),
        cpu_us: u64::try_from(handling.cpu.as_micros()).unwrap_or(u64::MAX),
    }
}

impl Handling {
    /// Returns the acknowledgement of the message in hand; `None` if the store does not have it.
    pub(in crate::agent) fn acknowledges(&self, envelope: &Envelope) -> Option<Handled> {
        let runs = envelope.conflicts.as_ref().map_or(1, |again| again.runs + 1);
        let bytes = envelope.message.content.len() as u64;
        envelope.seq.map(|seq| Handled { seq, revision: self.revision().id.number, runs, bytes })
    }
}
