//! Handling the messages of a mailbox.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use caxton_control::breaker::Admission;
use caxton_control::mailbox::Taken;

use super::breaker::failing;
use super::conflict::{Ended, refused};
use super::handling::Handling;
use super::inbox;
use super::queue::{STORE_PAUSE, Slot, prefetch_next};
use super::shadow::Recorder;
use super::{AdmitError, Agent, InFlight, Revision};
use crate::clock;
use crate::store::{Closed, Commit, CommitError, Committed};
use crate::wasm::{
    Answer, Commits, Conflict, Effects, Envelope, Fault, Inbox, Kept, Kind, Lease, Outcome, Sent, Work, wit,
};

/// The time that a call is given.
#[derive(Debug, Clone, Copy)]
struct Given {
    /// What is left of it when the handler begins.
    left: Duration,
    /// All of it, the wait for an instance included: less than is allowed where the caller waits no longer.
    whole: Duration,
    /// What the agent allows (`limits.time`).
    allowed: Duration,
}

impl Given {
    /// Says whose doing it is that the time ran out. An agent that had much less of it than it may take, because its
    /// caller waits no longer or others were before it, has done nothing wrong.
    fn explain(self, fault: Fault) -> Fault {
        match fault {
            // What is told is the whole of the time, not what was left of it for this call.
            Fault::Time { .. } if self.whole < self.allowed || self.left < self.allowed * 9 / 10 => {
                Fault::Patience { limit: self.whole }
            }
            Fault::Time { trail, .. } => Fault::Time { limit: self.whole, trail },
            fault => fault,
        }
    }
}

/// What a call took.
struct Spent {
    /// Its time on a core.
    cpu: Duration,
    /// When it ended.
    until: Instant,
}

/// What a handler was content with.
struct Content {
    outcome: Outcome,
    /// What leaves when it is committed, the reply included when it goes to a mailbox.
    effects: Effects,
    /// Whether it replied, be it to nobody.
    replied: bool,
}

impl Agent {
    /// The next message, with the revision that is to handle it; none ends a worker.
    pub(super) fn take(&self) -> Option<(InFlight, Taken<u64, Slot>)> {
        let mut inbox = self.inbox.lock();
        let traffic = self.traffic.load();
        let now = clock::steady_ms();
        let taken = match &*traffic {
            Some(traffic) if inbox.workers <= traffic.max() && inbox.is_ready(now) => {
                // It is ready, so this is the trial if one is due.
                let taken = match inbox.breaker.admits(now) {
                    Admission::Trial => inbox.mailbox.take_trial(Slot::failures),
                    Admission::Yes | Admission::No { .. } => inbox.mailbox.take(now),
                };
                if inbox.crowded {
                    self.fire_in_turn(&mut inbox, now);
                }
                taken
            }
            Some(_) | None => None,
        };
        let (Some(traffic), Some(taken)) = (&*traffic, taken) else {
            inbox.workers -= 1;
            self.look_later(&mut inbox);
            return None;
        };
        prefetch_next(&inbox.mailbox);
        // Counted under the lock, so that a handoff that pauses the mailbox sees either this or nothing.
        Some((self.in_flight(Arc::clone(traffic.stable())), taken))
    }

    /// Ends a worker; what is ready meanwhile is left to a task.
    pub(super) fn resign(self: &Arc<Self>) {
        if !self.leave() {
            Arc::clone(self).work();
        }
    }

    /// Ends a worker if it has nothing to do.
    pub(super) fn leave(&self) -> bool {
        let mut inbox = self.inbox.lock();
        let idle = !inbox.is_ready(clock::steady_ms());
        if idle {
            inbox.workers -= 1;
        }
        idle
    }

    pub(super) fn in_flight(&self, revision: Arc<Revision>) -> InFlight {
        revision.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight { revision }
    }

    /// Handles a message that was taken. Gives how long its handler took, and an agent that it sent something and that
    /// nobody works for yet.
    pub(super) async fn handle(
        self: &Arc<Self>,
        flight: InFlight,
        taken: Taken<u64, Slot>,
        kept: &mut Kept,
    ) -> (Duration, Option<Arc<Self>>) {
        let Taken { lane, rank, since, follows, message } = taken;
        let mut envelope = match self.fetch(message) {
            Ok(envelope) => envelope,
            Err((place, error)) => {
                tracing::error!(agent = %self.name, seq = place.seq, error, "a message cannot be read; it waits");
                drop(flight);
                self.inbox.lock().breaker.abandoned();
                let taken = Taken { lane, rank, since, follows, message: Slot::Kept(place) };
                self.again(taken, Some(clock::steady_ms() + STORE_PAUSE));
                return (Duration::ZERO, None);
            }
        };
        let (flight, goes_on) = self.pass_on(flight, &envelope, follows, since);
        let flight = match self.spare_workers(flight, &envelope) {
            Ok(flight) => flight,
            Err(until) => {
                self.inbox.lock().breaker.abandoned();
                let (follows, message) = (Some(goes_on), Slot::Here(envelope));
                self.again(Taken { lane, rank, since, follows, message }, Some(until));
                return (Duration::ZERO, None);
            }
        };
        if !envelope.is_call() {
            // There by the time its handler has said something.
            self.context.store.conversations.prefetch(&envelope.message.conversation_id);
        }
        let mut handling = Handling {
            flight,
            lane,
            rank,
            since,
            goes_on,
            began: Instant::now(),
            began_at: clock::now_ms(),
            took: Duration::ZERO,
            cpu: Duration::ZERO,
            failed: None,
            recorder: None,
            answer: None,
        };
        envelope.number_attempt();
        let result = match self.expired(&envelope) {
            Some(why) => Err(Outcome::Gone(why).into()),
            None if self.begin_again(envelope.again.as_deref()).await => {
                self.attempt(&mut handling, &mut envelope, kept).await
            }
            None => {
                self.wait_again(handling, envelope);
                return (Duration::ZERO, None);
            }
        };
        let took = handling.took;
        let next = self.conclude(handling, envelope, result);
        (took, next)
    }

    /// Arranges what follows from a run of the handler. Returns an agent whose mailbox has more to do, if there is one.
    fn conclude(
        self: &Arc<Self>,
        mut handling: Handling,
        envelope: Box<Envelope>,
        result: Result<Content, Ended>,
    ) -> Option<Arc<Self>> {
        match result {
            Ok(content) => {
                self.count_ended();
                self.settle(handling, envelope, content)
            }
            Err(Ended::Conflict(conflict)) => {
                self.conflicted(handling, envelope, conflict);
                None
            }
            Err(Ended::Failed(outcome)) => {
                handling.took = handling.began.elapsed();
                self.failed(handling, envelope, outcome);
                None
            }
        }
    }

    /// Runs the handler once.
    async fn attempt(
        self: &Arc<Self>,
        handling: &mut Handling,
        envelope: &mut Envelope,
        kept: &mut Kept,
    ) -> Result<Content, Ended> {
        let (deadline, _) = handling.time(envelope);
        let lease = match kept.take(&handling.flight.revision.pool) {
            Some(lease) => lease,
            None => self.lease(&mut handling.flight, envelope.is_call(), deadline).await.map_err(Outcome::Fault)?,
        };
        let revision = &handling.flight.revision;
        let (deadline, limit) = handling.time(envelope);
        handling.recorder = self.record(revision, envelope.hops);
        let work = Work {
            conversation: envelope.message.conversation_id.clone(),
            hops: envelope.hops,
            deadline,
            trace: envelope.trace.as_ref().map(crate::telemetry::trace::Trace::child),
            outside: handling.recorder.as_deref().map(Recorder::outside),
            commits: Commits::WithResult,
            // An instance that keeps state in its memory is not ended in the middle.
            run: self.run(envelope.again.as_deref_mut(), &envelope.within, revision.kind() != Kind::Stateful),
        };
        // All of its time, also if an instance had to be started first; but nobody waits longer for that.
        let left = envelope.deadline.map(|theirs| theirs.saturating_duration_since(Instant::now()));
        let allowed = revision.spec.limits.time;
        let given = Given { left: left.map_or(limit, |left| left.min(allowed)), whole: limit, allowed };
        let (result, mut effects) = match self.call(revision, lease, kept, envelope, work, given).await {
            Ok((result, effects, Spent { cpu, until })) => {
                handling.cpu = cpu;
                handling.took = until.saturating_duration_since(handling.began);
                if let Some(recorder) = &mut handling.recorder {
                    recorder.answered(self.name.as_str(), &result, &effects);
                }
                (result, effects)
            }
            Err((Fault::Reserved(key), effects, _)) => {
                return Err(Ended::Conflict(Conflict::broken_off(key, effects)));
            }
            Err((fault, _, cpu)) => {
                handling.cpu = cpu;
                if let Some(recorder) = &mut handling.recorder {
                    recorder.failed(&fault);
                }
                return Err(Outcome::Fault(fault).into());
            }
        };
        let reply = result.map_err(Outcome::Gave)?;
        handling.answer = self.answer_to_keep(reply.as_ref());
        let replied = reply.is_some();
        let routed = self.route_reply(revision, envelope, reply);
        let (outcome, extra) = routed.map_err(|error| not_routed(&error, &envelope.message.sender))?;
        effects.sends.extend(extra);
        Ok(Content { outcome, effects, replied })
    }

    /// Keeps what a handler was content with, and lets it take effect.
    fn settle(&self, handling: Handling, envelope: Box<Envelope>, content: Content) -> Option<Arc<Self>> {
        let Content { outcome, mut effects, replied } = content;
        let answers = std::mem::take(&mut effects.answers);
        let goes = self.goes_on(&handling, &envelope, &effects.sends, replied);
        let closes = if replied { None } else { Closed::of(&envelope, &effects.sends) };
        let handled = handling.acknowledges(&envelope);
        effects.sends.extend(self.notices_of_ends(&effects.sends));
        let keeps = self.context.store.keeps_messages();
        let lasts = effects.changes_state() || effects.ahead || effects.has_timers();
        if !lasts && (!keeps || (handled.is_none() && effects.sends.is_empty())) {
            let sends = self.context.judged(effects.sends);
            if let Some(closed) = closes {
                self.context.store.conversations.close_question(&closed);
            }
            if let Some(goes) = goes {
                self.context.store.conversations.stay(self.name.as_str(), &goes, clock::steady_ms());
            }
            let now = handling.began + handling.took;
            return self.finish(handling, envelope, outcome, sends, now);
        }
        let mut commit = Commit::new(self.name.shared(), Box::new(|_| ()));
        (commit.handled, commit.goes, commit.closes) = (handled, goes, closes.map(Box::new));
        commit.ticket = envelope.again.as_ref().map(|again| again.ticket.number);
        commit.within = envelope.within.iter().copied().chain(commit.ticket).collect();
        commit.state = self.change(handling.revision(), (&mut commit.sends, &mut commit.cancels), effects);
        let agent = self.shared();
        commit.done = Box::new(move |committed: Committed| {
            let Committed { result, sends, state, .. } = committed;
            if let Some(state) = &state {
                agent.pending.settled(state);
            }
            match result {
                Ok(()) => {
                    let agent = Arc::clone(&agent);
                    if let Some(next) = agent.finish(handling, envelope, outcome, sends, Instant::now()) {
                        next.work();
                    }
                }
                Err(CommitError::Conflict(key)) => {
                    agent.conflicted(handling, envelope, refused(key, state.as_ref(), answers, false));
                }
                Err(error) => {
                    let outcome = match error {
                        CommitError::Quota(_) | CommitError::Illegal(_) | CommitError::NotANumber(_) => {
                            Outcome::Refused(error.to_string())
                        }
                        _ => Outcome::NotCommitted(error.to_string()),
                    };
                    let agent = Arc::clone(&agent);
                    agent.failed(handling, envelope, outcome);
                }
            }
        });
        self.submit(commit);
        None
    }

    /// A handling ended well, and what it comes to is safe since `now`. Gives an agent that was sent something and
    /// that nobody works for yet.
    fn finish(
        &self,
        mut handling: Handling,
        envelope: Box<Envelope>,
        outcome: Outcome,
        sends: Vec<Sent>,
        now: Instant,
    ) -> Option<Arc<Self>> {
        self.stats.ended(handling.end(&envelope, Some(true), now));
        handling.measure_well();
        let next = inbox::deliver(sends, now);
        self.keep_recent(&envelope.message, envelope.hops, handling.answer.take());
        if let Some(waiter) = envelope.waiter {
            let answer = Answer { revision: Some(Arc::clone(&handling.revision().id)), outcome };
            if let Some(unheard) = waiter.tell(answer) {
                self.tell_in_vain(&unheard.outcome, envelope.hops);
            }
        }
        if let Some(recorder) = handling.take_recorder() {
            recorder.enqueue_message(envelope.message);
        }
        self.done(handling, true);
        next
    }

    /// A message is done with, and was handled well or is given up; the next of its conversation may come.
    pub(super) fn done(&self, handling: Handling, well: bool) {
        let (lane, goes_on, flight) = handling.into_lane();
        let (closed, start) = {
            let mut inbox = self.inbox.lock();
            let closed = well && inbox.breaker.well();
            inbox.mailbox.done(lane, Some(goes_on));
            (closed, self.may_start(&mut inbox))
        };
        drop(flight);
        if closed {
            self.tell_closed("it handled a message again");
        }
        if start {
            self.start_worker();
        }
    }

    /// One call of the handler. One that failed has its effects and its time on a core beside its fault.
    async fn call(
        &self,
        revision: &Arc<Revision>,
        mut lease: Lease,
        kept: &mut Kept,
        envelope: &Envelope,
        work: Work,
        given: Given,
    ) -> Result<(Result<Option<wit::Reply>, wit::Failure>, Effects, Spent), (Fault, Effects, Duration)> {
        let result = tokio::select! {
            biased;
            result = lease.instance().handle(&envelope.message, work, given.left) => result,
            () = revision.interrupt.cancelled() => Err(Fault::Interrupted),
        };
        // After a fault the lease is dropped, and the instance with it.
        let result = match result.map_err(|fault| given.explain(fault)) {
            Ok(result) => result,
            Err(fault) => {
                let cpu = lease.instance().cpu();
                // It holds up nobody else that a caller has no patience.
                let effects = lease.instance().take_effects();
                if fault.is_guests() {
                    lease.fail(&fault, failing(envelope, revision));
                }
                return Err((fault, effects, cpu));
            }
        };
        let instance = lease.instance();
        let (effects, spent) = (instance.take_effects(), Spent { cpu: instance.cpu(), until: instance.ended() });
        lease.keep(kept);
        Ok((result, effects, spent))
    }
}

/// Returns the outcome of a message whose reply does not reach its sender.
fn not_routed(error: &AdmitError, sender: &str) -> Outcome {
    match error {
        // The asker's state, not the agent's doing.
        AdmitError::Full { .. } | AdmitError::Unavailable(_) => {
            Outcome::NotCommitted(format!("its reply cannot go to `{sender}` now: {error}"))
        }
        AdmitError::UnknownReceiver(_)
        | AdmitError::NotAllowed { .. }
        | AdmitError::TooLarge { .. }
        | AdmitError::TooManyTimers { .. }
        | AdmitError::TooManyHops { .. }
        | AdmitError::Invalid(_)
        | AdmitError::BreakerOpen { .. }
        | AdmitError::NotKept(_)
        | AdmitError::KeyReused
        | AdmitError::NotUnderstood(_) => Outcome::BadReply(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_hurried_is_no_fault_of_the_agent() {
        let ms = Duration::from_millis;
        for (left, whole, guests) in [
            (1_000, 1_000, true),
            // An instance had to be found first.
            (950, 1_000, true),
            // Others were before it.
            (400, 1_000, false),
            // Its caller waits no longer.
            (200, 200, false),
            (990, 990, false),
        ] {
            let given = Given { left: ms(left), whole: ms(whole), allowed: ms(1_000) };
            let fault = given.explain(Fault::Time { limit: ms(left), trail: crate::wasm::Trail::default() });
            assert_eq!(fault.is_guests(), guests, "{given:?}");
            assert_eq!(fault.code(), "deadline-exceeded");
            assert!(fault.to_string().contains(&format!("{whole} ms")), "{fault}");
        }
        let given = Given { left: ms(1), whole: ms(1), allowed: ms(1_000) };
        assert!(given.explain(Fault::Cpu { limit: ms(1), trail: crate::wasm::Trail::default() }).is_guests());
    }
}
