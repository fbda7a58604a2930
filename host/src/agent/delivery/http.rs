//! Calls of agents that speak HTTP themselves.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use caxton_control::RevisionId;
use caxton_control::breaker::FaultHistory;
use caxton_control::names::BudgetName;
use http_body::Body;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::agent::delivery::budget::within;
use crate::agent::delivery::conflict::refused;
use crate::agent::delivery::conversation_starts::BusyConversation;
use crate::agent::delivery::question::check_sends;
use crate::agent::delivery::replay_body::ReplayableRequest;
use crate::agent::error::AdmitError;
use crate::agent::mailbox::breaker::Trial;
use crate::agent::outcome_text::describe_conflict;
use crate::agent::shadow::HttpRecorder;
use crate::agent::state::commit::RefusedCommit;
use crate::agent::stats::HandlingEnd;
use crate::agent::{Agent, InFlight, Revision};
use crate::budgets::{Tree, TreeRoot};
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
    /// The tree that it began, if that has a budget.
    pub(crate) tree: Option<Tree>,
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
    tree: Option<Tree>,
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
        let Self { agent, flight, in_hand, arrived, run_started, trace, calls: _, tree } = self;
        tree.iter().for_each(|tree| tree.add_cpu(&agent.name, end.cpu));
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

/// Returns the conflict of a call that may run again, or the failure of one that may not.
fn conflict_of(unanswered: Unanswered<CommitFailure>) -> Result<Conflict, HttpFailure> {
    match unanswered {
        Unanswered::BrokenOff(key, effects, _ended) => Ok(effects.into_conflict(key)),
        Unanswered::Refused(CommitFailure::Conflict(conflict), _ended) => Ok(*conflict),
        Unanswered::Refused(CommitFailure::Other(why), ended) => {
            ended(Fault::Host(why.clone()).into());
            Err(HttpFailure::NotCommitted(why))
        }
        Unanswered::Fault(fault) => Err(fault.into()),
    }
}

impl Agent {
    /// Calls the agent. Its effects are committed before its response is returned; the rest of the body comes while it
    /// is read. While the request is kept whole, the handler runs again after a conflict.
    pub(crate) async fn call_http<B>(
        self: &Arc<Self>,
        mut request: http::Request<B>,
        conversation: Option<String>,
        (trace, budget): (Option<Trace>, Option<BudgetName>),
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
        let tree = self.begin_tree(budget.as_ref(), &new_id(), || TreeRoot::outside(&conversation));
        let agent = Arc::clone(self);
        let call = CallInHand { agent, flight, in_hand, arrived, run_started: arrived, trace, calls, tree };
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
        let tree = in_call.tree.clone();
        let deadline = within(tree.as_ref(), in_call.arrived + revision.spec.limits.time);
        // After the lease: the wait for an instance is no part of the handler's time.
        in_call.run_started = Instant::now();
        let recorder = self.record(&revision, 0).map(|one| HttpRecorder::new(one, &request, conversation));
        revision.begin_run(in_call.calls.as_deref(), again.is_some());
        let run = self.run_context(again.as_deref_mut(), &[], yields);
        let committer = self.committer(&revision, recorder.clone(), run.ticket);
        let late = self.late_committer(&committer, &revision, (recorder.as_ref(), run.ticket));
        let call = HttpCall {
            request: recorded(request, recorder.clone()),
            work: CallContext {
                conversation: conversation.to_owned(),
                hops: 0,
                deadline,
                trace: in_call.trace.clone(),
                tree: tree.clone(),
                host: recorder.as_ref().map(|recorder| recorder.outside()),
                commit_mode: CommitMode::Through(Arc::clone(&committer)),
                run,
                calls: in_call.calls.clone(),
            },
            time: deadline.saturating_duration_since(in_call.run_started),
            interrupt: revision.interrupt.clone(),
            failure: self.instance_failure(&revision, FaultHistory::First),
            guests: self.context.guests.clone(),
            late,
        };
        // Shared between this function and the end of the body, whichever takes it first.
        let in_call = Arc::new(Mutex::new(Some(in_call)));
        let commit = |effects| committer(effects, true);
        let mut response = match call.run(lease, commit, CallInHand::ended(&in_call)).await {
            Ok(response) => response,
            Err(unanswered) => {
                return Err(match (conflict_of(unanswered), in_call.lock().take()) {
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
        Ok(HttpAnswer { response, revision: Arc::clone(&revision.id), deadline, tree })
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

    /// Returns the function that commits what comes after the head: without the ticket, which ends with the head, so that
    /// it may wait for keys that others have reserved.
    fn late_committer(
        self: &Arc<Self>,
        committer: &Committer,
        revision: &Arc<Revision>,
        (recorder, ticket): (Option<&Arc<HttpRecorder>>, Option<u64>),
    ) -> Committer {
        ticket.map_or_else(|| Arc::clone(committer), |_| self.committer(revision, recorder.cloned(), None))
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
}
