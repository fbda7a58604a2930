//! Handling the messages of a mailbox.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use caxton_control::mailbox::Lane;
use tokio::sync::oneshot;

use super::{Agent, InFlight, Revision};
use crate::store::{Commit, CommitError};
use crate::wasm::{Answer, Effects, Envelope, Fault, Inbox, Outcome, Sent, Work, wit};

/// A handling whose state has changed meanwhile runs again at most so often; each time at least one other
/// handling of the agent was committed.
const MAX_CONFLICTS: u32 = 64;

/// How one handling ended.
struct Ended {
    outcome: Outcome,
    /// What leaves now that it is committed, the reply included when it goes to a mailbox.
    sends: Vec<Sent>,
    cpu: Duration,
}

impl Ended {
    fn failed(outcome: Outcome, cpu: Duration) -> Self {
        Self { outcome, sends: Vec::new(), cpu }
    }
}

/// Handles what is ready, until nothing is.
pub(super) async fn work(mut agent: Arc<Agent>) {
    loop {
        match step(Arc::clone(&agent)).await {
            Step::Handled => {}
            Step::Ended => return,
            // A chain of messages stays in one task, which nobody has to wake.
            Step::GoOn(next) => agent = next,
        }
        // A mailbox that never runs dry must not keep others from this thread.
        tokio::task::coop::consume_budget().await;
    }
}

/// What a worker has done, and is to do.
enum Step {
    /// It handled a message, and there may be another.
    Handled,
    /// There was none.
    Ended,
    /// There is none any more, but this agent, which it sent something, has nobody who works for it.
    GoOn(Arc<Agent>),
}

/// Handles one message.
async fn step(agent: Arc<Agent>) -> Step {
    let Some((flight, lane, envelope)) = agent.take() else { return Step::Ended };
    let Some(next) = agent.handle(flight, lane, envelope).await else { return Step::Handled };
    if agent.leave() {
        return Step::GoOn(next);
    }
    next.work();
    Step::Handled
}

/// A worker whose work is done by somebody who waits for an answer: mostly that to the message just sent,
/// which then needs no task and no wake-up. Dropping it hands what is left to a task.
pub(super) struct Helping {
    agent: Arc<Agent>,
    state: State,
}

/// How far a helping worker is.
enum State {
    /// It has a message in hand.
    Busy(Pin<Box<dyn Future<Output = Step> + Send>>),
    /// It may take one.
    Free,
    /// It has ended.
    Ended,
}

impl Helping {
    /// Does the work of a worker of `agent`, which counts it already.
    pub(super) fn new(agent: &Arc<Agent>) -> Self {
        Self { agent: Arc::clone(agent), state: State::Free }
    }

    /// Waits for `answer` and works meanwhile, one message at a time.
    pub(super) async fn until<T>(mut self, mut answer: oneshot::Receiver<T>) -> Result<T, oneshot::error::RecvError> {
        std::future::poll_fn(|cx| {
            while let Poll::Ready(()) = self.poll_step(cx) {
                if let Poll::Ready(answer) = Pin::new(&mut answer).poll(cx) {
                    return Poll::Ready(answer);
                }
            }
            Pin::new(&mut answer).poll(cx)
        })
        .await
    }

    /// Ready when a message was handled, and there may be another.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let step = match &mut self.state {
            State::Ended => return Poll::Pending,
            State::Busy(step) => step,
            State::Free => {
                self.state = State::Busy(Box::pin(step(Arc::clone(&self.agent))));
                return Poll::Ready(());
            }
        };
        match step.as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Step::Handled) => self.state = State::Free,
            Poll::Ready(Step::Ended) => self.state = State::Ended,
            Poll::Ready(Step::GoOn(next)) => {
                self.agent = next;
                self.state = State::Free;
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Helping {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => {}
            State::Free => self.agent.resign(),
            State::Busy(step) => {
                let agent = Arc::clone(&self.agent);
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move {
                        match step.await {
                            Step::Handled => work(agent).await,
                            Step::GoOn(next) => work(next).await,
                            Step::Ended => {}
                        }
                    });
                }
            }
        }
    }
}

impl Agent {
    /// The next message, with the revision that is to handle it; none ends a worker.
    fn take(&self) -> Option<(InFlight, Lane<u64>, Envelope)> {
        let mut inbox = self.inbox.lock();
        let current = self.current.load_full();
        let taken = match &current {
            Some(current) if !inbox.paused && inbox.workers <= current.pool.max() => inbox.mailbox.take(),
            Some(_) | None => None,
        };
        let (Some(current), Some((lane, envelope))) = (current, taken) else {
            inbox.workers -= 1;
            return None;
        };
        // Counted under the lock, so that a handoff that pauses the mailbox sees either this or nothing.
        Some((self.in_flight(current), lane, envelope))
    }

    /// Ends a worker; what is ready meanwhile is left to a task.
    fn resign(self: &Arc<Self>) {
        if !self.leave() {
            tokio::spawn(work(Arc::clone(self)));
        }
    }

    /// Ends a worker if it has nothing to do.
    fn leave(&self) -> bool {
        let mut inbox = self.inbox.lock();
        let idle = inbox.paused || !inbox.mailbox.has_ready();
        if idle {
            inbox.workers -= 1;
        }
        idle
    }

    pub(super) fn in_flight(&self, revision: Arc<Revision>) -> InFlight {
        revision.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight { revision, commons: Arc::clone(&self.commons) }
    }

    /// Handles a message that was taken. Gives an agent that it sent something and that nobody works for yet.
    async fn handle(self: &Arc<Self>, flight: InFlight, lane: Lane<u64>, mut envelope: Envelope) -> Option<Arc<Self>> {
        let revision = Arc::clone(&flight.revision);
        let began = Instant::now();
        let ended = self.attempt(&revision, &mut envelope).await;
        if let Outcome::Fault(Fault::Interrupted) = ended.outcome {
            envelope.message.attempt += 1;
            self.inbox.lock().mailbox.put_back(lane, envelope);
            self.start_workers();
            return None;
        }
        let well = matches!(ended.outcome, Outcome::Reply(_) | Outcome::Done);
        let waited = began.saturating_duration_since(envelope.accepted);
        self.stats.ended(self.name.as_str(), well, waited, began.elapsed(), ended.cpu);
        if !well {
            self.tell_failure(&revision, &envelope, &ended.outcome);
        }
        let next = deliver(ended.sends);
        if let Some(waiter) = envelope.waiter {
            waiter.tell(Answer { revision: Some(Arc::clone(&revision.id)), outcome: ended.outcome });
        }
        self.inbox.lock().mailbox.done(lane);
        drop(flight);
        next
    }

    /// Runs the handler and commits its effects; again while what it read has changed meanwhile.
    async fn attempt(self: &Arc<Self>, revision: &Arc<Revision>, envelope: &mut Envelope) -> Ended {
        // How long it may take, and since when that counts: its own limit, or what its sender waits.
        let mut limit = revision.spec.limits.time;
        let began = Instant::now();
        let mut deadline = began + limit;
        if let Some(theirs) = envelope.deadline {
            if theirs <= began {
                return Ended::failed(Outcome::Gone("nobody waits for the answer any more"), Duration::ZERO);
            }
            if theirs < deadline {
                deadline = theirs;
                limit = theirs.saturating_duration_since(envelope.accepted);
            }
        }
        let work = Work {
            conversation: envelope.message.conversation_id.clone(),
            hops: envelope.hops,
            deadline,
            waiting: envelope.waiting.clone(),
            trace: envelope.trace.as_ref().map(crate::trace::Trace::child),
        };
        let mut cpu = Duration::ZERO;
        for _ in 0..MAX_CONFLICTS {
            let time = deadline.saturating_duration_since(Instant::now());
            if time.is_zero() {
                return Ended::failed(Outcome::Fault(Fault::Time { limit }), cpu);
            }
            let (result, effects, spent) = match self.call(revision, envelope, work.clone(), time).await {
                Ok(called) => called,
                // What is told is the whole of the time, not what was left of it for this call.
                Err(Fault::Time { .. }) => {
                    return Ended::failed(Outcome::Fault(Fault::Time { limit }), cpu);
                }
                Err(fault) => return Ended::failed(Outcome::Fault(fault), cpu),
            };
            cpu += spent;
            let reply = match result {
                Ok(reply) => reply,
                Err(failure) => return Ended::failed(Outcome::Gave(failure), cpu),
            };
            let (outcome, extra) = match self.route_reply(revision, envelope, reply) {
                Ok(routed) => routed,
                Err(error) => {
                    return Ended::failed(Outcome::BadReply(error.to_string()), cpu);
                }
            };
            match self.commit(revision, effects).await {
                Ok(mut sends) => {
                    sends.extend(extra);
                    return Ended { outcome, sends, cpu };
                }
                Err(CommitError::Conflict) => self.stats.count_conflict(),
                Err(error) => return Ended::failed(Outcome::NotCommitted(error.to_string()), cpu),
            }
        }
        Ended::failed(Outcome::NotCommitted("its state changed again and again while it was handled".to_owned()), cpu)
    }

    /// One call of the handler.
    async fn call(
        &self,
        revision: &Arc<Revision>,
        envelope: &Envelope,
        work: Work,
        time: Duration,
    ) -> Result<(Result<Option<wit::Reply>, wit::Failure>, Effects, Duration), Fault> {
        let mut lease = revision.pool.lease(work.deadline).await?;
        let result = tokio::select! {
            biased;
            result = lease.instance().handle(&envelope.message, work, time) => result,
            () = revision.interrupt.cancelled() => Err(Fault::Interrupted),
        };
        // After a fault the lease is dropped, and the instance with it.
        let result = result?;
        let (effects, cpu) = (lease.instance().take_effects(), lease.instance().cpu());
        lease.finish(true);
        Ok((result, effects, cpu))
    }

    /// Makes what a handler did to its state safe, and gives back what it sends.
    async fn commit(self: &Arc<Self>, revision: &Revision, effects: Effects) -> Result<Vec<Sent>, CommitError> {
        if effects.is_stateless() {
            return Ok(effects.sends);
        }
        // The instance is free while the disk works: another conversation may use it.
        self.inbox.lock().workers -= 1;
        self.start_workers();
        let committed = self.commit_call(revision, effects).await;
        self.inbox.lock().workers += 1;
        committed
    }

    /// The same for a call that no worker makes.
    pub(super) async fn commit_call(&self, revision: &Revision, effects: Effects) -> Result<Vec<Sent>, CommitError> {
        if effects.is_stateless() {
            return Ok(effects.sends);
        }
        let Effects { sends, writes, reads, .. } = effects;
        let commit = Commit {
            agent: self.name.shared(),
            reads,
            writes,
            state_bytes: Arc::clone(&self.state_bytes),
            quota: revision.spec.limits.state_bytes,
        };
        self.commons.store.commit(commit).await.map(|()| sends)
    }

    /// Tells the agent's log, and the sender of a request, why a message failed.
    fn tell_failure(&self, revision: &Revision, envelope: &Envelope, outcome: &Outcome) {
        let message = &envelope.message;
        let why = super::reply::describe(outcome);
        let text = format!("message {} from {} failed: {why}", message.id, message.sender);
        self.commons.note(revision, "error", &text, outcome);
        self.send_failure(envelope, &why);
    }
}

/// Delivers what was sent. Of the agents that nobody works for yet, one is left to the caller.
fn deliver(sends: Vec<Sent>) -> Option<Arc<Agent>> {
    let mut left: Option<Arc<dyn Inbox>> = None;
    for sent in sends {
        if let Some(inbox) = sent.put()
            && let Some(earlier) = left.replace(inbox)
        {
            earlier.work();
        }
    }
    let left: Arc<dyn Any + Send + Sync> = left?;
    Some(left.downcast().expect("agents are the only inboxes of a host"))
}
