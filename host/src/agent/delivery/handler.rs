//! The handling of a message: an instance, the call of the guest, the commit of its effects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::mailbox::TakenMessage;

use crate::agent::delivery::budget;
use crate::agent::delivery::conflict::{FailedAttempt, refused};
use crate::agent::delivery::handling::Handling;
use crate::agent::delivery::journal::{given_up, unless_given_up};
use crate::agent::delivery::question::check_sends;
use crate::agent::delivery::sends::{deliver, not_routed};
use crate::agent::delivery::shortage::may_run_again;
use crate::agent::delivery::time_budget::TimeBudget;
use crate::agent::mailbox::STORE_PAUSE;
use crate::agent::mailbox::breaker::fault_history;
use crate::agent::mailbox::entry::QueuedMessage;
use crate::agent::shadow::Recorder;
use crate::agent::state::memory::HeldMemory;
use crate::agent::{Agent, InFlight, Revision};
use crate::clock;
use crate::conversation::closed_question;
use crate::message::{
    Answer, CallContext, CommitMode, Deliver, Effects, Envelope, Failure, Fault, Outcome, Outgoing, Reply, RequestLog,
};
use crate::store::{Commit, CommitError, CommitGate as _, CommitRequest, Committed};
use crate::wasm::{HeldLease, Kind, Lease};

/// The cost of a call.
struct CallCost {
    cpu: Duration,
    /// The end of the call.
    ended: Instant,
}

/// The result of a call that ended without a fault, with the instance of a stateful agent.
type Called = (Result<Option<Reply>, Failure>, Effects, CallCost, Option<Lease>);

/// The result of a handler that succeeded.
struct HandlerSuccess {
    outcome: Outcome,
    /// The effects to commit, with the reply if it goes to a mailbox.
    effects: Effects,
    /// Set if it replied, even if the reply has no receiver.
    replied: bool,
    /// The instance with its memory, if the agent is stateful.
    memory: Option<Box<HeldMemory>>,
}

impl Agent {
    /// Handles a message that was taken. Returns the time that its handler took, and an agent that has messages and
    /// needs a worker.
    pub(in crate::agent) async fn handle_message(
        self: &Arc<Self>,
        flight: InFlight,
        taken: TakenMessage<u64, QueuedMessage>,
        held_lease: &mut HeldLease,
    ) -> (Duration, Option<Arc<Self>>) {
        let TakenMessage { lane, rank, since, follows, message } = taken;
        let mut envelope = match message.fetch(&self.context) {
            Ok(envelope) => envelope,
            Err((stored, error)) => {
                tracing::error!(agent = %self.name, seq = stored.seq, error, "a message cannot be read; it waits");
                drop(flight);
                self.mailbox.abandon_trial();
                let taken = TakenMessage { lane, rank, since, follows, message: QueuedMessage::Stored(stored) };
                self.requeue(taken, Some(clock::steady_ms() + STORE_PAUSE));
                return (Duration::ZERO, None);
            }
        };
        // After the message was read: the pick depends on its conversation.
        let (flight, next_revision) = self.pass_on(flight, &envelope, follows, since);
        let flight = match self.fall_back_from_paused(flight, &envelope) {
            Ok(flight) => flight,
            Err(until) => {
                self.mailbox.abandon_trial();
                let (follows, message) = (Some(next_revision), QueuedMessage::InMemory(envelope));
                self.requeue(TakenMessage { lane, rank, since, follows, message }, Some(until));
                return (Duration::ZERO, None);
            }
        };
        if !envelope.is_call() {
            // So that the conversation is in memory by the time that the handler's messages are checked against it.
            self.context.conversations.prefetch(&envelope.message.conversation_id);
        }
        let mut handling = Handling {
            flight,
            lane,
            rank,
            since,
            next_revision,
            started: Instant::now(),
            started_at: clock::now_ms(),
            took: Duration::ZERO,
            cpu: Duration::ZERO,
            failed: None,
            recorder: None,
            answer: None,
            calls: None,
        };
        envelope.number_attempt();
        let result = match self.expired(&envelope) {
            Some(why) => Err(Outcome::Cancelled(why).into()),
            None if self.reserve_keys(envelope.conflicts.as_deref()).await => {
                self.attempt(&mut handling, &mut envelope, held_lease).await
            }
            None => {
                self.wait_for_keys(handling, envelope);
                return (Duration::ZERO, None);
            }
        };
        let took = handling.took;
        // Only where it is needed: its count would pass from core to core with each message.
        let stateful = (handling.revision().kind() == Kind::Stateful).then(|| Arc::clone(handling.revision()));
        let (mut next, memory) = self.conclude(handling, envelope, result);
        if let (Some(memory), Some(revision)) = (memory, stateful) {
            if self.is_save_due(&revision)
                && let Some(next) = next.take()
            {
                // A save takes longer than another agent's messages should wait.
                next.work();
            }
            // Not before the commit is given to the store: the next message's commit has to come after it.
            self.release_memory(&revision, *memory, held_lease).await;
        }
        (took, next)
    }

    /// Commits a successful run, lines a conflict up for another run, or handles the failure. Returns an agent whose
    /// mailbox has more to do, if there is one, and the instance of a stateful agent.
    fn conclude(
        self: &Arc<Self>,
        mut handling: Handling,
        envelope: Box<Envelope>,
        result: Result<HandlerSuccess, FailedAttempt>,
    ) -> (Option<Arc<Self>>, Option<Box<HeldMemory>>) {
        match result {
            Ok(mut success) => {
                self.count_success();
                let mut memory = success.memory.take();
                let next = self.settle(handling, envelope, success, memory.as_deref_mut());
                (next, memory)
            }
            Err(FailedAttempt::Conflict(conflict)) => {
                self.run_again(handling, envelope, conflict);
                (None, None)
            }
            Err(FailedAttempt::Starved(answers)) => {
                self.run_when_there_is_memory(handling, envelope, answers);
                (None, None)
            }
            Err(FailedAttempt::Failed(outcome)) => {
                handling.took = handling.started.elapsed();
                self.failed(handling, envelope, outcome);
                (None, None)
            }
        }
    }

    /// Runs the handler once.
    async fn attempt(
        self: &Arc<Self>,
        handling: &mut Handling,
        envelope: &mut Envelope,
        held_lease: &mut HeldLease,
    ) -> Result<HandlerSuccess, FailedAttempt> {
        let tree = self.take_tree(envelope)?;
        let (deadline, _) = handling.time(envelope);
        let lease = match held_lease.take(&handling.flight.revision.pool) {
            Some(lease) => lease,
            None => self.lease(&mut handling.flight, envelope.is_call(), deadline).await.map_err(Outcome::Fault)?,
        };
        let revision = &handling.flight.revision;
        // Again: the lease may have passed a call to stable, which has limits of its own.
        let (deadline, limit) = handling.time(envelope);
        handling.recorder = self.record(revision, envelope.hops);
        let work = CallContext {
            conversation: envelope.message.conversation_id.clone(),
            hops: envelope.hops,
            deadline,
            trace: envelope.trace.as_ref().map(crate::telemetry::trace::Trace::child),
            tree,
            host: handling.recorder.as_deref().map(Recorder::outside),
            commit_mode: CommitMode::WithResult,
            // An instance that keeps state in its memory is not ended in the middle.
            run: self.run_context(
                envelope.conflicts.as_deref_mut(),
                &envelope.caller_tickets,
                revision.kind() != Kind::Stateful,
            ),
            calls: self.begin_journal(envelope, revision),
        };
        // All of its time, also if an instance had to be started first, but no longer than its caller waits.
        let (now, allowed) = (Instant::now(), revision.spec.limits.time);
        let left = envelope.deadline.map_or(limit, |theirs| theirs.saturating_duration_since(now).min(allowed));
        let budget = TimeBudget { left: budget::time_left(envelope.tree(), left), total: limit, allowed };
        let (result, mut effects, lease) = match self.call(revision, lease, held_lease, envelope, work, budget).await {
            Ok((result, effects, CallCost { cpu, ended }, lease)) => {
                handling.cpu = cpu;
                handling.took = ended.saturating_duration_since(handling.started);
                if let Some(recorder) = &mut handling.recorder {
                    recorder.answered(self.name.as_str(), &result, &effects);
                }
                (result, effects, lease)
            }
            Err((Fault::Reserved(key), effects, _)) => return Err(FailedAttempt::Conflict(effects.into_conflict(key))),
            Err((fault, effects, _)) if may_run_again(&fault, envelope, &effects) => {
                return Err(FailedAttempt::Starved(effects.requests));
            }
            Err((fault, _, cpu)) => {
                handling.note_fault(&fault, cpu);
                return Err(Outcome::Fault(fault).into());
            }
        };
        let routed = result.map_err(Outcome::Failed).and_then(|reply| {
            handling.answer = self.answer_to_keep(reply.as_ref());
            handling.calls = self.calls_to_keep(envelope);
            let replied = reply.is_some();
            let routed = self.route_reply(&handling.flight.revision, envelope, reply);
            let routed = routed.map_err(|error| not_routed(&error, &envelope.message.sender));
            routed.map(|(outcome, extra)| (outcome, extra, replied))
        });
        let memory = match lease {
            Some(lease) => self.remember_handling(handling, envelope, lease, (routed.is_ok(), held_lease)).await?,
            None => None,
        };
        let (outcome, extra, replied) = routed?;
        effects.sends.extend(extra);
        Ok(HandlerSuccess { outcome, effects, replied, memory })
    }

    /// Commits the effects of a handler that succeeded, with the memory of a stateful agent.
    fn settle(
        self: &Arc<Self>,
        handling: Handling,
        envelope: Box<Envelope>,
        success: HandlerSuccess,
        mut memory: Option<&mut HeldMemory>,
    ) -> Option<Arc<Self>> {
        let HandlerSuccess { outcome, mut effects, replied, memory: _ } = success;
        let answers = std::mem::take(&mut effects.requests);
        let binding = self.binding(&handling, &envelope, &effects.sends, replied);
        let closes = if replied { None } else { closed_question(&envelope, &effects.sends) };
        let handled = handling.acknowledges(&envelope);
        // In the same commit: a notice exists if and only if its dead letter does.
        effects.sends.extend(self.notices_of_ends(&effects.sends));
        let keeps = self.context.store.keeps_messages();
        let remembers = memory.as_ref().is_some_and(|memory| self.has_to_commit(memory));
        let lasts = effects.changes_state() || effects.reads_uncommitted || effects.has_timers() || remembers;
        // After the question whether one is under way: none is by now, or was refused and has broken the line.
        if memory.as_ref().is_some_and(|memory| memory.is_broken()) {
            self.ran_ahead(handling, envelope, answers);
            return None;
        }
        // Nothing has to be durable: no commit, and no wait for the disk.
        if !lasts && (!keeps || (handled.is_none() && effects.sends.is_empty())) {
            let sends = check_sends(&self.context, effects.sends);
            if let Some(closed) = closes {
                self.context.conversations.close_question(&closed);
            }
            if let Some(binding) = binding {
                self.context.conversations.bind(self.name.as_str(), &binding, clock::steady_ms());
            }
            let now = handling.started + handling.took;
            return self.finish(handling, envelope, outcome, sends, now);
        }
        let held = effects.held.take();
        let (mut commit, mut sends) = (Commit::new(self.name.shared()), Vec::new());
        (commit.handled, commit.binding, commit.closes) = (handled, binding, closes.map(Box::new));
        commit.journal = envelope.seq.filter(|_| envelope.calls.as_ref().is_some_and(|calls| calls.has_rows()));
        commit.ticket = envelope.conflicts.as_ref().map(|again| again.reservation.ticket);
        commit.within = envelope.caller_tickets.iter().copied().chain(commit.ticket).collect();
        commit.state = self.change(handling.revision(), (&mut sends, &mut commit.cancels), effects);
        commit.memory = memory.as_mut().and_then(|memory| memory.take_snapshot());
        let place = memory.map(|memory| memory.place());
        let (counted, tree) = (self.count_memory(place.as_ref()), envelope.tree().cloned());
        let agent = self.arc();
        let done = Box::new(move |committed: Committed| {
            // First: the line of a refused commit is broken by now, and whoever waits for it may look at that.
            drop((counted, held));
            agent.committed(handling, envelope, (outcome, answers), committed);
        });
        self.submit(CommitRequest::new(commit, sends, done).in_line(place).of_tree(tree.as_ref()));
        None
    }

    /// Completes a message whose commit is decided, lines it up for another run, or handles the refusal.
    fn committed(
        self: &Arc<Self>,
        handling: Handling,
        envelope: Box<Envelope>,
        (outcome, answers): (Outcome, RequestLog),
        committed: Committed,
    ) {
        let Committed { result, sends, state, state_bytes, .. } = committed;
        if let Some(state) = &state {
            self.settled(state, state_bytes);
        }
        match result {
            Ok(()) => {
                if let Some(next) = self.finish(handling, envelope, outcome, sends, Instant::now()) {
                    next.work();
                }
            }
            Err(CommitError::Conflict(key)) => {
                self.run_again(handling, envelope, refused(key, state.as_ref(), answers, false));
            }
            Err(CommitError::Ahead) => self.ran_ahead(handling, envelope, answers),
            Err(error) => {
                let outcome = match error {
                    CommitError::Quota(_) | CommitError::Illegal(_) | CommitError::NotANumber(_) => {
                        Outcome::Refused(error.to_string())
                    }
                    _ => Outcome::NotCommitted(error.to_string()),
                };
                self.failed(handling, envelope, outcome);
            }
        }
    }

    /// Completes a message whose effects are durable since `now`. Returns an agent that was sent messages and needs a
    /// worker.
    fn finish(
        &self,
        mut handling: Handling,
        envelope: Box<Envelope>,
        outcome: Outcome,
        sends: Vec<Outgoing>,
        now: Instant,
    ) -> Option<Arc<Self>> {
        self.stats.ended(handling.end(&envelope, Some(true), now));
        handling.measure_well();
        // Before the waiter is woken: a caller that reads its receiver's state next finds the messages delivered.
        let next = deliver(sends, now);
        self.keep_recent(&envelope.message, envelope.hops, (handling.answer.take(), handling.calls.take()));
        if let Some(waiter) = envelope.waiter {
            let answer = Answer { revision: Some(Arc::clone(&handling.revision().id)), outcome };
            if let Some(unheard) = waiter.resolve(answer) {
                self.send_notice_in_vain(&unheard.outcome, envelope.hops, envelope.tree.as_ref());
            }
        }
        if let Some(recorder) = handling.take_recorder() {
            recorder.enqueue_message(envelope.message);
        }
        // Last: it lets the next message of the conversation be handled, which must see all of the above.
        self.done(handling, true);
        next
    }

    /// Calls the guest once. Returns the instance of a stateful agent, and keeps that of another. A failed call returns
    /// its effects and its CPU time with its fault.
    async fn call(
        &self,
        revision: &Arc<Revision>,
        mut lease: Lease,
        held_lease: &mut HeldLease,
        envelope: &Envelope,
        work: CallContext,
        budget: TimeBudget,
    ) -> Result<Called, (Fault, Effects, Duration)> {
        let result = tokio::select! {
            // The result first: a handler that is done is not interrupted any more.
            biased;
            result = lease.instance().handle(&envelope.message, work, budget.left) => result,
            () = revision.interrupt.cancelled() => Err(Fault::Interrupted),
            why = given_up(envelope.calls.as_deref()) => Err(Fault::UnknownOutcome(why)),
        };
        let result = unless_given_up(result, envelope.calls.as_deref()).await;
        // After a fault the lease is dropped, and the instance with it.
        let result = match result.map_err(|fault| budget.explain(fault)) {
            Ok(result) => result,
            Err(fault) => {
                let cpu = lease.instance().cpu();
                self.charge_run(envelope, cpu);
                let fault = budget::explain(envelope, fault);
                let mut effects = lease.instance().take_effects();
                effects.called_out = lease.instance().has_called_out();
                // A timeout for the caller's sake is no fault of the agent, and not reported to its supervision.
                if fault.is_guests() {
                    lease.fail(&fault, self.instance_failure(revision, fault_history(envelope, revision)));
                }
                return Err((fault, effects, cpu));
            }
        };
        let instance = lease.instance();
        let (effects, spent) = (instance.take_effects(), CallCost { cpu: instance.cpu(), ended: instance.ended() });
        self.charge_run(envelope, spent.cpu);
        if revision.kind() == Kind::Stateful {
            // Another message must not be handled in it before the commit of this one is on its way.
            return Ok((result, effects, spent, Some(lease)));
        }
        lease.keep(held_lease);
        Ok((result, effects, spent, None))
    }
}
