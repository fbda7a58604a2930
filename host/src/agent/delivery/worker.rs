//! Workers: tasks that live while a mailbox has ready messages, and callers that wait for an answer.
//!
//! A mailbox has one worker as long as that gets on: messages that are handled in microseconds cost less one after the
//! other, in one instance, than side by side. When the worker has to wait, or is at it for longer than [`ALONE`],
//! another begins beside it, up to as many as there may be instances.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use caxton_control::mailbox::TakenMessage;
use tokio::sync::oneshot;

use crate::agent::mailbox::entry::QueuedMessage;
use crate::agent::{Agent, InFlight};
use crate::message::Deliver;
use crate::wasm::{HeldLease, Movable, is_guest_thread};

/// The time for which one worker handles messages before another starts beside it. A shorter one would start workers
/// for bursts that one worker finishes sooner than a second one starts.
const ALONE: Duration = Duration::from_millis(1);

impl Agent {
    /// Runs a worker, which is counted already, for a caller that waits: the first message is handled where the caller
    /// is, and so not behind all others.
    pub(crate) fn work_for_caller(self: &Arc<Self>) {
        let agent = Arc::clone(self);
        tokio::spawn(self.context.guests.movable(Box::pin(async move {
            match step(&agent, &mut HeldLease::default()).await {
                WorkerStep::Handled(_) => agent.end_worker(),
                WorkerStep::GoOn(next) => next.work(),
                WorkerStep::Ended => {}
            }
        })));
    }
}

/// Creates the task of a worker. Its instance stays with it as long as it works for one agent.
pub(in crate::agent) fn start(agent: Arc<Agent>, held_lease: HeldLease) -> Movable<()> {
    let guests = agent.context.guests.clone();
    guests.movable(Box::pin(work(agent, held_lease)))
}

/// Handles messages until none is ready.
async fn work(mut agent: Arc<Agent>, mut held_lease: HeldLease) {
    let mut worked = Duration::ZERO;
    loop {
        match step(&agent, &mut held_lease).await {
            WorkerStep::Handled(took) => {
                worked += took;
                if worked > ALONE {
                    worked = Duration::ZERO;
                    // Asked at each interval and not once: the backlog may need more than two.
                    agent.start_another();
                }
            }
            WorkerStep::Ended => return,
            // A chain of messages stays in one task, which saves a wake-up for each.
            WorkerStep::GoOn(next) => (agent, worked, held_lease) = (next, Duration::ZERO, HeldLease::default()),
        }
        if is_guest_thread() {
            // The guest that computed is done: the next message is handled where messages are.
            let workers = agent.context.workers.clone();
            workers.spawn(start(agent, held_lease));
            return;
        }
        // A mailbox that never runs dry must not keep others from this thread.
        tokio::task::coop::consume_budget().await;
    }
}

/// The result of one step of a worker.
enum WorkerStep {
    /// A message was handled in this time, and there may be another.
    Handled(Duration),
    /// The mailbox had no ready message.
    Ended,
    /// The mailbox has no ready message any more; this agent was sent one and has no worker.
    GoOn(Arc<Agent>),
}

/// Handles one message.
async fn step(agent: &Arc<Agent>, held_lease: &mut HeldLease) -> WorkerStep {
    // Before a message is in hand: what is sent and written meanwhile waits in memory.
    agent.backlog.until_low().await;
    let Some((flight, taken)) = agent.take() else { return WorkerStep::Ended };
    let (took, next) = handle(agent, flight, taken, held_lease).await;
    let Some(next) = next else { return WorkerStep::Handled(took) };
    // Only if nothing is left here: otherwise this worker stays, and the other agent gets one of its own.
    if agent.end_worker_if_idle() {
        return WorkerStep::GoOn(next);
    }
    next.work();
    WorkerStep::Handled(took)
}

/// Handles a message that was taken, and lets another worker start while it waits.
async fn handle(
    agent: &Arc<Agent>,
    flight: InFlight,
    taken: TakenMessage<u64, QueuedMessage>,
    held_lease: &mut HeldLease,
) -> (Duration, Option<Arc<Agent>>) {
    let mut handled = pin!(agent.handle_message(flight, taken, held_lease));
    let mut wait = Wait { agent, is_waiting: false };
    std::future::poll_fn(|cx| {
        // Before the poll: the worker is at work during it, whatever it waited for.
        wait.end();
        let polled = handled.as_mut().poll(cx);
        if polled.is_pending() {
            wait.begin();
        }
        polled
    })
    .await
}

/// A worker that may wait for something, until this is dropped.
struct Wait<'a> {
    agent: &'a Agent,
    is_waiting: bool,
}

impl Wait<'_> {
    fn begin(&mut self) {
        // Told when it waits and not before: most handlers never do, and a second worker would cost a wake-up.
        self.is_waiting = true;
        self.agent.worker_waits();
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.agent.mailbox.worker_resumes();
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The message in hand is lost to its conversation, which would wait for ever: the host ends instead.
            self.agent.context.tasks.fail("mailbox", "a worker panicked; the line before says where");
        }
        self.end();
    }
}

/// A worker that runs in the task of a caller which waits for an answer: mostly that to the message just sent, which
/// then needs no task and no wake-up. Dropping it hands the rest to a task.
pub(in crate::agent) struct CallerWorker {
    agent: Arc<Agent>,
    state: CallerWorkerState,
}

/// The state of a caller's worker.
enum CallerWorkerState {
    /// A message is in hand.
    Busy(Movable<WorkerStep>),
    /// A message may be taken.
    Free,
    /// The worker has ended.
    Ended,
}

impl CallerWorker {
    /// Creates the worker of `agent`, which counts it already.
    pub(in crate::agent) fn new(agent: &Arc<Agent>) -> Self {
        Self { agent: Arc::clone(agent), state: CallerWorkerState::Free }
    }

    /// Waits for `answer` and works meanwhile, one message at a time.
    pub(in crate::agent) async fn until<T>(
        mut self,
        mut answer: oneshot::Receiver<T>,
    ) -> Result<T, oneshot::error::RecvError> {
        std::future::poll_fn(|cx| {
            // The answer is looked at after each step: the first message is mostly the caller's own.
            while let Poll::Ready(()) = self.poll_step(cx) {
                if let Poll::Ready(answer) = Pin::new(&mut answer).poll(cx) {
                    return Poll::Ready(answer);
                }
            }
            Pin::new(&mut answer).poll(cx)
        })
        .await
    }

    /// Polls the current step. Ready when a message was handled and there may be another.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let step = match &mut self.state {
            CallerWorkerState::Ended => return Poll::Pending,
            CallerWorkerState::Busy(step) => step,
            CallerWorkerState::Free => {
                let agent = Arc::clone(&self.agent);
                let guests = agent.context.guests.clone();
                let step = Box::pin(async move { step(&agent, &mut HeldLease::default()).await });
                self.state = CallerWorkerState::Busy(guests.movable(step));
                return Poll::Ready(());
            }
        };
        match Pin::new(step).poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(WorkerStep::Handled(_)) => self.state = CallerWorkerState::Free,
            Poll::Ready(WorkerStep::Ended) => self.state = CallerWorkerState::Ended,
            Poll::Ready(WorkerStep::GoOn(next)) => {
                self.agent = next;
                self.state = CallerWorkerState::Free;
            }
        }
        Poll::Ready(())
    }
}

impl Drop for CallerWorker {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, CallerWorkerState::Ended) {
            CallerWorkerState::Ended => {}
            CallerWorkerState::Free => self.agent.end_worker(),
            CallerWorkerState::Busy(step) => {
                let agent = Arc::clone(&self.agent);
                // Not on the caller's thread, which belongs to HTTP.
                self.agent.context.workers.spawn(async move {
                    match step.await {
                        WorkerStep::Handled(_) => start(agent, HeldLease::default()).await,
                        WorkerStep::GoOn(next) => start(next, HeldLease::default()).await,
                        WorkerStep::Ended => {}
                    }
                });
            }
        }
    }
}
