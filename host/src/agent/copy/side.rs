//! A revision that handles the messages of a rehearsal on a copy of the state.

use std::sync::Arc;

use bytes::Bytes;
use caxton_control::rollout::compare::Answer;
use tokio::time::{Instant, timeout_at};

use super::super::Agent;
use super::given::reply_only;
use super::handle;
use super::overlay::Overlay;
use super::replay::Nothing;
use crate::store::RecentMessage;
use crate::wasm::{Outcome, Outside, Pool};

/// A revision with the copy of the state that it writes to.
pub(super) struct Side {
    pub(super) pool: Arc<Pool>,
    pub(super) overlay: Arc<Overlay>,
    /// The number of messages that it has handled.
    handled: usize,
    /// Set once it handles no more: its time was over in the middle of a message, or its writes exceed their bound.
    pub(super) ended: bool,
}

/// The outcome of a message that was rehearsed.
pub(super) enum Took {
    /// The message was handled, with this answer.
    Well(Answer),
    /// The message failed.
    Failed(Outcome),
    /// The host could not do its part.
    Unknown,
    /// The writes exceed their bound, or the time is over.
    Full,
}

impl Side {
    /// Starts a revision on a fresh copy of the agent's state, with `saved` as the memory of a stateful one.
    pub(super) fn new(agent: &Agent, pool: &Pool, saved: Option<Bytes>) -> Self {
        let pool = pool.for_copies(Arc::new(Nothing { saved }) as Arc<dyn Outside>);
        Self { pool, overlay: Overlay::new(&agent.directory, agent.name.shared()), handled: 0, ended: false }
    }

    /// Handles the messages that it has not handled yet, and returns the outcome of the last; none if it has handled them all.
    /// `until` interrupts it in the middle of a message.
    pub(super) async fn reach(&mut self, messages: &[RecentMessage], until: Option<Instant>) -> Option<Took> {
        let mut last = None;
        for message in messages.get(self.handled..).unwrap_or_default() {
            if self.ended {
                return Some(Took::Full);
            }
            let took = match until {
                None => self.take(message).await,
                Some(until) => timeout_at(until, self.take(message)).await.unwrap_or(Took::Full),
            };
            self.ended = matches!(took, Took::Full);
            self.handled += 1;
            last = Some(took);
        }
        last
    }

    /// Goes back to the first message, with the state and the memory as they are by now.
    pub(super) fn begin_again(&mut self) {
        self.handled = 0;
    }

    async fn take(&self, message: &RecentMessage) -> Took {
        let outside = Arc::clone(&self.overlay) as Arc<dyn Outside>;
        let envelope = &message.envelope;
        let (result, effects) = match handle(&self.pool, &envelope.message, envelope.hops, outside).await {
            Ok(said) => said,
            Err(fault) if fault.is_guests() => return Took::Failed(Outcome::Fault(fault)),
            Err(_) => return Took::Unknown,
        };
        let limit = self.pool.who.spec.limits.message_bytes;
        match result {
            Err(failure) => Took::Failed(Outcome::Gave(failure)),
            Ok(Some(reply)) if reply.content.len() as u64 > limit => {
                let why = format!("it has {} bytes, more than limits.message ({limit})", reply.content.len());
                Took::Failed(Outcome::BadReply(why))
            }
            Ok(reply) if self.overlay.write(effects.writes, &effects.adds) => Took::Well(reply_only(reply.as_ref())),
            Ok(_) => Took::Full,
        }
    }
}
