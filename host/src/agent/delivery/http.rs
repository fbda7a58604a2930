//! Calls of agents that speak HTTP themselves.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use bytes::Bytes;
use caxton_control::RevisionId;
use caxton_control::breaker::FaultHistory;
use caxton_control::rollout::split::{SplitInput, Sticky};
use http_body::Body;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::agent::delivery::conflict::refused;
use crate::agent::delivery::conversation_starts::{BusyConversation, KnownStart};
use crate::agent::delivery::question::check_sends;
use crate::agent::delivery::replay_body::ReplayableRequest;
use crate::agent::error::AdmitError;
use crate::agent::mailbox::breaker::Trial;
use crate::agent::outcome_text::describe_conflict;
use crate::agent::shadow::HttpRecorder;
use crate::agent::state::commit::RefusedCommit;
use crate::agent::stats::HandlingEnd;
use crate::agent::{Agent, InFlight, Outcomes, Revision};
use crate::clock;
use crate::message::{
    CallContext, CallJournal, CallOrigin, CommitFailure, CommitMode, Committer, Conflict, ConflictHistory, Effects,
    Fault, Outcome, Outgoing, new_id,
};
use crate::store::CommitError;
use crate::telemetry::trace::Trace;
use crate::wasm::{BodyError, Ended, HttpCall, HttpEnd, HttpFailure, ResponseBody, Unanswered};

/// An HTTP agent's response, whose body may still be coming.
pub(crate) struct HttpAnswer {
    /// The response.
    pub(crate) response: http::Response<ResponseBody>,
    /// The revision that made it.
    pub(crate) revision: Arc<RevisionId>,
    /// The deadline of the body.
    pub(crate) deadline: Instant,
}

/// The reason for which an HTTP agent returned no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The call was not begun.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] HttpFailure),
}

/// A call in hand, until its end is known.
struct CallInHand {
    agent: Arc<Agent>,
    flight: InFlight,
    in_hand: Option<BusyConversation>,
    /// The time of its arrival.
    arrived: Instant,
    /// The start of its last run.
    run_started: Instant,
    trace: Option<Trace>,
    /// The journal of its calls over HTTP.
    calls: Option<Arc<CallJournal>>,
}

/// A run of a handler that brought no response.
enum FailedRun {
    Failed(HttpFailure),
    Conflict { call: CallInHand, again: Option<Box<ConflictHistory>>, conflict: Conflict },
}

impl FailedRun {
    /// Returns the failure of a call that does not run again.
    fn give_up(self) -> HttpFailure {
        match self {
            Self::Failed(failure) => failure,
            Self::Conflict { call, conflict, .. } => call.give_up(conflict.key),
        }
    }
}

impl CallInHand {
    /// Returns the callback for the handler's end, which does nothing if the call was taken out meanwhile.
    fn ended(shared: &Arc<Mutex<Option<Self>>>) -> Ended {
        let shared = Arc::clone(shared);
        Box::new(move |end| {
            // A statement of its own: `end` must not run under the lock.
            let call = shared.lock().take();
            if let Some(call) = call {
                call.end(end);
            }
        })
    }

    /// Ends a call that was in conflict too often.
    fn give_up(self, key: String) -> HttpFailure {
        let why = describe_conflict(&key);
        self.end(Fault::Reserved(key).into());
        HttpFailure::Conflict(why)
    }

    /// Counts the end of the call, and logs a failure.
    fn end(self, end: HttpEnd) {
        let Self { agent, flight, in_hand, arrived, run_started, trace, calls: _ } = self;
        let waited = run_started.saturating_duration_since(arrived);
        let succeeded = Some(end.result.is_ok());
        agent.stats.ended(HandlingEnd { succeeded, waited, took: run_started.elapsed(), cpu: end.cpu });
        agent.report_call(&end, &flight.revision);
        // A rollout judges the revision, which is not to be blamed for a caller that left.
        if !end.by_caller && end.result.as_ref().err().is_none_or(Fault::is_guests) {
            let took = end.result.is_ok().then(|| run_started.elapsed());
            flight.revision.measure(took, end.result.is_err());
        }
        if let Err(mut fault) = end.result {
            agent.stats.failed_with(fault.code());
            if let Fault::Time { limit, .. } = &mut fault {
                // The log names the setting, not the time that was left when the guest began.
                *limit = flight.revision.spec.limits.time;
            }
            let why = if end.by_caller { " because of what its caller did" } else { "" };
            let mut text = format!("an HTTP call failed{why}: {fault}");
            if let Some(trace) = trace {
                text.push_str(&format!("; its trace is {}", trace.id()));
            }
            flight.revision.log("error", &text, &Outcome::Fault(fault));
        }
        // Last, so that a handoff that waits for nothing in flight finds the figures complete.
        drop((flight, in_hand));
    }
}

/// Records the body of a request while it is read, if the call is recorded.
fn recorded<B>(
    request: http::Request<B>,
    recorder: Option<Arc<HttpRecorder>>,
) -> http::Request<impl Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
{
    request.map(|body| {
        body.map_frame(move |frame| {
            if let (Some(recorder), Some(data)) = (&recorder, frame.data_ref()) {
                recorder.read(data);
            }
            frame
        })
    })
}

impl Agent {
    /// Calls the agent. Its effects are committed before its response is returned; the rest of the body comes while it
    /// is read. While the request is kept whole, the handler runs again after a conflict.
    pub(crate) async fn call_http<B>(
        self: &Arc<Self>,
        mut request: http::Request<B>,
        conversation: Option<String>,
        trace: Option<Trace>,
    ) -> Result<HttpAnswer, HttpError>
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
    {
        let arrived = Instant::now();
        // First: a call that the breaker refuses costs nothing else.
        let trial = self.admit_call()?;
        let (flight, in_hand) = self.enter_when_open(conversation.as_deref(), arrived).await?;
        let conversation = conversation.unwrap_or_else(new_id);
        let (keeps_state, limits) = (flight.revision.pool.program.summary.keeps_state(), &flight.revision.spec.limits);
        let (most, deadline) = (limits.message_bytes, arrived + limits.time);
        if flight.revision.spec.allow.follows_message() {
            // The same for each run, and for copies of the call.
            request.extensions_mut().insert(CallOrigin::now());
        }
        let calls = self.open_journal(&flight.revision);
        let call = CallInHand { agent: Arc::clone(self), flight, in_hand, arrived, run_started: arrived, trace, calls };
        if !keeps_state {
            // Nothing that it does is in conflict with others.
            let answer = self.run_call(call, request, &conversation, (None, false)).await;
            let answer = answer.map_err(FailedRun::give_up)?;
            trial.into_iter().for_each(Trial::answered);
            return Ok(answer);
        }
        // A body of unknown size may exceed what is held, and then its handler cannot run again.
        let yields = request.body().size_hint().upper().is_some_and(|upper| upper <= most);
        let replayable = ReplayableRequest::new(request, most, &self.context.memory);
        let mut next = (call, None);
        loop {
            let (call, again) = next;
            let broken = match self.run_call(call, replayable.request(), &conversation, (again, yields)).await {
                Ok(answer) => {
                    trial.into_iter().for_each(Trial::answered);
                    return Ok(answer);
                }
                Err(broken) => broken,
            };
            let FailedRun::Conflict { call, again, conflict } = broken else { return Err(broken.give_up().into()) };
            // A part of the call is committed, or its request is gone: a second run would not be the same call.
            if conflict.partly_committed || !replayable.is_whole() {
                self.stats.count_conflict();
                return Err(call.give_up(conflict.key).into());
            }
            let key = conflict.key.clone();
            let again = match self.note_conflict(again, conflict) {
                Ok(again) => again,
                Err(key) => return Err(call.give_up(key).into()),
            };
            if tokio::time::timeout_at(deadline.into(), self.reserve_keys_for_run(&again)).await.is_err() {
                return Err(call.give_up(key).into());
            }
            next = (call, Some(again));
        }
    }

    /// Runs the handler once.
    async fn run_call<B>(
        self: &Arc<Self>,
        mut in_call: CallInHand,
        request: http::Request<B>,
        conversation: &str,
        (mut again, yields): (Option<Box<ConflictHistory>>, bool),
    ) -> Result<HttpAnswer, FailedRun>
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin + Send + 'static,
    {
        let deadline = in_call.arrived + in_call.flight.revision.spec.limits.time;
        let lease =
            self.lease(&mut in_call.flight, true, deadline).await.map_err(|fault| FailedRun::Failed(fault.into()))?;
        let revision = Arc::clone(&in_call.flight.revision);
        let deadline = in_call.arrived + revision.spec.limits.time;
        // After the lease: the wait for an instance is no part of the handler's time.
        in_call.run_started = Instant::now();
        let recorder = self.record(&revision, 0).map(|one| HttpRecorder::new(one, &request, conversation));
        revision.begin_run(in_call.calls.as_deref(), again.is_some());
        let run = self.run_context(again.as_deref_mut(), &[], yields);
        let committer = self.committer(&revision, recorder.clone(), run.ticket);
        let call = HttpCall {
            request: recorded(request, recorder.clone()),
            work: CallContext {
                conversation: conversation.to_owned(),
                hops: 0,
                deadline,
                trace: in_call.trace.clone(),
                host: recorder.as_ref().map(|recorder| recorder.outside()),
                commit_mode: CommitMode::Through(Arc::clone(&committer)),
                run,
                calls: in_call.calls.clone(),
            },
            time: deadline.saturating_duration_since(in_call.run_started),
            interrupt: revision.interrupt.clone(),
            failure: self.instance_failure(&revision, FaultHistory::First),
            guests: self.context.guests.clone(),
        };
        // Shared between this function and the end of the body, whichever takes it first.
        let in_call = Arc::new(Mutex::new(Some(in_call)));
        let commit = |effects| committer(effects, true);
        let mut response = match call.run(lease, commit, CallInHand::ended(&in_call)).await {
            Ok(response) => response,
            Err(unanswered) => {
                let conflict = match unanswered {
                    Unanswered::BrokenOff(key, effects, _ended) => Ok(effects.into_conflict(key)),
                    Unanswered::Refused(CommitFailure::Conflict(conflict), _ended) => Ok(*conflict),
                    Unanswered::Refused(CommitFailure::Other(why), ended) => {
                        ended(Fault::Host(why.clone()).into());
                        Err(HttpFailure::NotCommitted(why))
                    }
                    Unanswered::Fault(fault) => Err(fault.into()),
                };
                return Err(match (conflict, in_call.lock().take()) {
                    (Ok(conflict), Some(call)) => FailedRun::Conflict { call, again, conflict },
                    (Ok(conflict), None) => FailedRun::Failed(HttpFailure::Conflict(describe_conflict(&conflict.key))),
                    (Err(failure), _) => {
                        if let Some(recorder) = &recorder {
                            recorder.failed(&failure);
                        }
                        FailedRun::Failed(failure)
                    }
                });
            }
        };
        if let Some(recorder) = recorder {
            recorder.answered(&mut response);
        }
        Ok(HttpAnswer { response, revision: Arc::clone(&revision.id), deadline })
    }

    /// Returns the function that commits the effects of a call, with its response and before.
    fn committer(
        self: &Arc<Self>,
        revision: &Arc<Revision>,
        recorder: Option<Arc<HttpRecorder>>,
        ticket: Option<u64>,
    ) -> Committer {
        let (agent, revision) = (Arc::clone(self), Arc::clone(revision));
        Arc::new(move |mut effects, last| {
            let (agent, revision) = (Arc::clone(&agent), Arc::clone(&revision));
            if let Some(recorder) = &recorder {
                recorder.committing(agent.name.as_str(), &effects);
            }
            Box::pin(async move {
                let (answers, partly) = (std::mem::take(&mut effects.requests), effects.partly_committed);
                let committed = agent.commit_call(&revision, (ticket, !last), effects).await;
                committed.map_err(|not| match not.error {
                    CommitError::Conflict(key) => {
                        CommitFailure::Conflict(Box::new(refused(key, not.state.as_ref(), answers, partly)))
                    }
                    error => CommitFailure::Other(error.to_string()),
                })
            })
        })
    }

    /// Waits until a call may run again, with its keys to itself.
    async fn reserve_keys_for_run(&self, again: &ConflictHistory) {
        let (store, ticket) = (&self.context.store, again.reservation.ticket);
        let call = || {
            let (sender, called) = oneshot::channel::<()>();
            // The call may have been dropped meanwhile.
            let go_on = move || {
                let _ = sender.send(());
            };
            (Box::new(go_on), called)
        };
        let (go_on, mut called) = call();
        self.pending.queue_run(store, ticket, again.keys.clone(), (Vec::new(), again.runs > 1), go_on);
        loop {
            // The sender is dropped with the line only.
            let _ = called.await;
            if self.reserve_keys(Some(again)).await {
                return;
            }
            let (go_on, next) = call();
            called = next;
            self.pending.requeue_run(store, ticket, go_on);
        }
    }

    /// Commits the effects of an HTTP call and delivers what it sent; returns when they are durable. Returns a refused
    /// change.
    pub(in crate::agent) async fn commit_call(
        &self,
        revision: &Revision,
        part: (Option<u64>, bool),
        mut effects: Effects,
    ) -> Result<(), Box<RefusedCommit>> {
        // Until they are committed: they wait in the queue of the store's writer.
        let _held = effects.held.take();
        let lasts = effects.changes_state() || effects.reads_uncommitted || effects.has_timers();
        if !lasts && (effects.sends.is_empty() || !self.context.store.keeps_messages()) {
            check_sends(&self.context, effects.sends).into_iter().for_each(Outgoing::deliver);
            return Ok(());
        }
        let (mut sends, mut cancels) = (Vec::new(), Vec::new());
        let state = self.change(revision, (&mut sends, &mut cancels), effects);
        self.commit_under(part, state, (sends, cancels)).await
    }

    /// Counts a call as in flight once the agent's calls are not held, which they are while its state is converted.
    async fn enter_when_open(
        &self,
        conversation: Option<&str>,
        arrived: Instant,
    ) -> Result<(InFlight, Option<BusyConversation>), AdmitError> {
        loop {
            let resumed = self.calls.resumed.notified();
            tokio::pin!(resumed);
            // From here on it is woken, also between the look and the wait.
            resumed.as_mut().enable();
            let entered = self.enter_conversation(conversation)?;
            // Pairs with the fence of `set_handoff_paused`.
            fence(Ordering::SeqCst);
            if !self.calls.closed.load(Ordering::Relaxed) {
                return Ok(entered);
            }
            let deadline = arrived + entered.0.revision.spec.limits.time;
            // A handoff waits until nothing is in flight, so that a held call must not count.
            drop(entered);
            if tokio::time::timeout_at(deadline.into(), resumed).await.is_err() {
                return Err(AdmitError::Unavailable("its state is being converted"));
            }
        }
    }

    /// Counts a call as in flight on the revision that answers it, and its conversation as busy.
    fn enter_conversation(
        &self,
        conversation: Option<&str>,
    ) -> Result<(InFlight, Option<BusyConversation>), AdmitError> {
        // Without the conversation: an HTTP agent has no record of open ones.
        self.check_open(None)?;
        let Some(name) = conversation else {
            let talk = SplitInput { conversation: None, bound_to: None, since: 0 };
            return Ok((self.enter_as(talk, 0)?, None));
        };
        // Noted with each call, so that a rollout that begins later finds those that began before it.
        let (now, first) = (clock::steady_ms(), self.note_start(name));
        let (flight, in_hand) = self.conversation_starts.enter(name, |next_revision| {
            let flight = self.enter_as(SplitInput { conversation, bound_to: next_revision, since: now }, first)?;
            let number = flight.revision.id.number;
            Ok::<_, AdmitError>((flight, number))
        })?;
        Ok((flight, Some(in_hand)))
    }

    /// Counts a call as in flight. Its conversation began at `first`, by the steady clock.
    fn enter_as(&self, talk: SplitInput<'_>, first: u64) -> Result<InFlight, AdmitError> {
        let flight = self.enter_picked(|sticky, split| {
            let since = if sticky == Sticky::Conversation { first } else { talk.since };
            split.pick(sticky, SplitInput { since, ..talk })
        });
        let flight = flight.ok_or(AdmitError::Unavailable("no revision of it is ready"))?;
        // Not `>=`: the number includes this call.
        if flight.revision.in_flight() > self.most_in_flight(&flight.revision) {
            self.stats.count(Outcomes::Refused);
            return Err(AdmitError::Full { limit: self.spec.load().mailbox.depth });
        }
        Ok(flight)
    }

    /// Returns the start of a conversation by the steady clock, and stores it if conversations stay where they began.
    fn note_start(&self, name: &str) -> u64 {
        let (store, now) = (&self.context.store, clock::steady_ms());
        let timeout = self.context.conversations.timeout();
        let (is_sticky, over) = (self.sticky() == Sticky::Conversation, now.saturating_sub(timeout));
        let find = || {
            let kept = is_sticky.then(|| store.conversations().beginning(self.name.as_str(), name, over))?;
            kept.inspect_err(
                |error| tracing::error!(agent = %self.name, error, "when a conversation began is not known"),
            )
            .ok()?
        };
        let KnownStart { first, must_be_stored } = self.conversation_starts.note(name, now, timeout, find);
        if is_sticky && must_be_stored {
            store.conversations().keep_beginning(self.name.shared(), name.to_owned(), first, now, over);
        }
        first
    }
}
