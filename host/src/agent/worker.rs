//! Who works: tasks that live while a mailbox has something, and callers that wait for an answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::Agent;
use crate::wasm::Inbox;

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
    let Some((flight, taken)) = agent.take() else { return Step::Ended };
    let Some(next) = agent.handle(flight, taken).await else { return Step::Handled };
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
