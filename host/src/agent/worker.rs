//! Who works: tasks that live while a mailbox has something, and callers that wait for an answer.
//!
//! A mailbox has one worker as long as that gets on: messages that are handled in microseconds cost less one after the
//! other, in one instance, than side by side. When the worker has to wait, or is at it for longer than [`ALONE`], another
//! begins beside it, up to as many as there may be instances.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use caxton_control::mailbox::Taken;
use tokio::sync::oneshot;

use super::queue::Slot;
use super::{Agent, InFlight, InboxState};
use crate::clock;
use crate::wasm::{Inbox, Kept};

/// How long one worker handles messages before another begins beside it.
const ALONE: Duration = Duration::from_millis(1);

impl Agent {
    /// Starts as many workers as can do something.
    pub(super) fn start_workers(&self) {
        while self.may_start(&mut self.inbox.lock()) {
            self.start_worker();
        }
    }

    pub(super) fn start_worker(&self) {
        // Somebody holds this agent: it is asked to do something.
        if let Some(agent) = self.me.upgrade() {
            agent.work();
        }
    }

    /// Does the work of a worker, which is counted already, for somebody who waits for an answer: the first message is
    /// handled where that one is, and so not behind all others.
    pub(crate) fn work_for_caller(self: &Arc<Self>) {
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            match step(&agent, &mut Kept::default()).await {
                Step::Handled(_) => agent.resign(),
                Step::GoOn(next) => next.work(),
                Step::Ended => {}
            }
        });
    }

    /// Starts one more worker beside those that are at work, if it has something to do and may be.
    fn start_another(&self) {
        if self.may_start_another(&mut self.inbox.lock()) {
            self.start_worker();
        }
    }

    /// A worker has to wait: what is ready is for another.
    fn worker_waits(&self) {
        let start = {
            let mut inbox = self.inbox.lock();
            inbox.waiting_workers += 1;
            self.may_start(&mut inbox)
        };
        if start {
            self.start_worker();
        }
    }

    /// Counts one more worker if it has something to do, may be, and nobody else is at work, who would [come to
    /// it](self).
    pub(super) fn may_start(&self, inbox: &mut InboxState) -> bool {
        if !inbox.is_ready(clock::steady_ms()) {
            self.look_later(inbox);
            return false;
        }
        inbox.workers <= inbox.waiting_workers && self.count_worker(inbox)
    }

    /// The same beside those that are at work.
    pub(super) fn may_start_another(&self, inbox: &mut InboxState) -> bool {
        inbox.is_ready(clock::steady_ms()) && self.count_worker(inbox)
    }

    /// Counts one more worker if there may be one.
    fn count_worker(&self, inbox: &mut InboxState) -> bool {
        let most = self.traffic.load().as_ref().map_or(0, |traffic| traffic.max());
        let may = inbox.workers < most;
        inbox.workers += u32::from(may);
        may
    }
}

/// Handles what is ready, until nothing is.
pub(super) async fn work(mut agent: Arc<Agent>) {
    let mut worked = Duration::ZERO;
    // Its instance stays with it as long as it works for one agent.
    let mut kept = Kept::default();
    loop {
        match step(&agent, &mut kept).await {
            Step::Handled(took) => {
                worked += took;
                if worked > ALONE {
                    worked = Duration::ZERO;
                    agent.start_another();
                }
            }
            Step::Ended => return,
            // A chain of messages stays in one task, which nobody has to wake.
            Step::GoOn(next) => (agent, worked, kept) = (next, Duration::ZERO, Kept::default()),
        }
        // A mailbox that never runs dry must not keep others from this thread.
        tokio::task::coop::consume_budget().await;
    }
}

/// What a worker has done, and is to do.
enum Step {
    /// It handled a message in this time, and there may be another.
    Handled(Duration),
    /// There was none.
    Ended,
    /// There is none any more, but this agent, which it sent something, has nobody who works for it.
    GoOn(Arc<Agent>),
}

/// Handles one message.
async fn step(agent: &Arc<Agent>, kept: &mut Kept) -> Step {
    let Some((flight, taken)) = agent.take() else { return Step::Ended };
    let (took, next) = handle(agent, flight, taken, kept).await;
    let Some(next) = next else { return Step::Handled(took) };
    if agent.leave() {
        return Step::GoOn(next);
    }
    next.work();
    Step::Handled(took)
}

/// Handles a message that was taken; says meanwhile when this has to wait.
async fn handle(
    agent: &Arc<Agent>,
    flight: InFlight,
    taken: Taken<u64, Slot>,
    kept: &mut Kept,
) -> (Duration, Option<Arc<Agent>>) {
    let mut handled = pin!(agent.handle(flight, taken, kept));
    let mut wait = Wait { agent, waits: false };
    std::future::poll_fn(|cx| {
        wait.end();
        let polled = handled.as_mut().poll(cx);
        if polled.is_pending() {
            wait.begin();
        }
        polled
    })
    .await
}

/// A worker that may have to wait, until it is dropped.
struct Wait<'a> {
    agent: &'a Agent,
    waits: bool,
}

impl Wait<'_> {
    fn begin(&mut self) {
        self.waits = true;
        self.agent.worker_waits();
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.agent.inbox.lock().waiting_workers -= 1;
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Its conversation would wait for ever.
            self.agent.context.tasks.fail("mailbox", "a worker panicked; the line before says where");
        }
        self.end();
    }
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
                let agent = Arc::clone(&self.agent);
                self.state = State::Busy(Box::pin(async move { step(&agent, &mut Kept::default()).await }));
                return Poll::Ready(());
            }
        };
        match step.as_mut().poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Step::Handled(_)) => self.state = State::Free,
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
                self.agent.context.workers.spawn(async move {
                    match step.await {
                        Step::Handled(_) => work(agent).await,
                        Step::GoOn(next) => work(next).await,
                        Step::Ended => {}
                    }
                });
            }
        }
    }
}
