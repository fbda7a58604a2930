//! The run of one revision through the messages of a rehearsal.

use std::sync::Arc;

use bytes::Bytes;
use caxton_control::rollout::comparison::Answer;
use tokio::time::{Instant, timeout_at};

use super::super::sandbox::{IdleHost, handle};
use super::overlay::StateOverlay;
use super::stored_answer::reply_only;
use crate::agent::Agent;
use crate::message::{GuestHost, Outcome};
use crate::store::RecentMessage;
use crate::wasm::Pool;

/// A revision with the copy of the state that it writes to.
pub(super) struct Runner {
    pub(super) pool: Arc<Pool>,
    pub(super) overlay: Arc<StateOverlay>,
    /// The number of messages handled.
    handled: usize,
    /// Set once it handles no more: it was interrupted in the middle of a message, or its writes exceed their bound.
    /// Its state is then not the one that the next message has to find.
    pub(super) is_exhausted: bool,
}

/// The outcome of a message that was rehearsed.
pub(super) enum RunOutcome {
    /// The message was handled, with this answer.
    Answered(Answer),
    /// The message failed by a fault of the revision.
    Failed(Outcome),
    /// The host failed.
    HostFailed,
    /// The writes exceed their bound, or the time is over.
    Exhausted,
}

impl Runner {
    /// Creates a runner on a fresh copy of the agent's state, with `saved` as the memory of a stateful revision.
    pub(super) fn new(agent: &Agent, pool: &Pool, saved: Option<Bytes>) -> Self {
        let pool = pool.for_copies(Arc::new(IdleHost { saved }) as Arc<dyn GuestHost>);
        Self {
            pool,
            overlay: StateOverlay::new(&agent.directory, agent.name.shared()),
            handled: 0,
            is_exhausted: false,
        }
    }

    /// Handles the messages not handled yet, and returns the outcome of the last; `None` if all were handled before.
    /// `until` interrupts it in the middle of a message.
    pub(super) async fn run_to_end(
        &mut self,
        messages: &[RecentMessage],
        until: Option<Instant>,
    ) -> Option<RunOutcome> {
        let mut last = None;
        for message in messages.get(self.handled..).unwrap_or_default() {
            // Messages after a gap would find a state that never was.
            if self.is_exhausted {
                return Some(RunOutcome::Exhausted);
            }
            let outcome = match until {
                None => self.run(message).await,
                Some(until) => timeout_at(until, self.run(message)).await.unwrap_or(RunOutcome::Exhausted),
            };
            self.is_exhausted = matches!(outcome, RunOutcome::Exhausted);
            // Counted even after a failure: a failed message leaves no effects, and the next one is due.
            self.handled += 1;
            last = Some(outcome);
        }
        last
    }

    /// Goes back to the first message. The state and the memory stay as they are.
    pub(super) fn restart(&mut self) {
        self.handled = 0;
    }

    async fn run(&self, message: &RecentMessage) -> RunOutcome {
        let outside = Arc::clone(&self.overlay) as Arc<dyn GuestHost>;
        let envelope = &message.envelope;
        self.overlay.begin(message.calls.as_deref());
        let handled = handle(&self.pool, &envelope.message, envelope.hops, outside).await;
        // Taken in any case: they are those of this message.
        let calls = self.overlay.take_calls();
        let (result, effects) = match handled {
            Ok(handled) => handled,
            Err(fault) if fault.is_guests() => return RunOutcome::Failed(Outcome::Fault(fault)),
            // Overload, for example, says nothing about the revision.
            Err(_) => return RunOutcome::HostFailed,
        };
        // The live path checks this when it routes the reply, which a copy does not reach.
        let limit = self.pool.who.spec.limits.message_bytes;
        match result {
            Err(failure) => RunOutcome::Failed(Outcome::Failed(failure)),
            Ok(Some(reply)) if reply.content.len() as u64 > limit => {
                let why = format!("it has {} bytes, more than limits.message ({limit})", reply.content.len());
                RunOutcome::Failed(Outcome::BadReply(why))
            }
            Ok(reply) if self.overlay.write(effects.writes, &effects.adds) => {
                RunOutcome::Answered(Answer { effects: calls, ..reply_only(reply.as_ref()) })
            }
            Ok(_) => RunOutcome::Exhausted,
        }
    }
}
