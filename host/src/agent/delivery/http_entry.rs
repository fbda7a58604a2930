//! The entry of a call to an HTTP agent: the revision that answers it, and its conversation.

use std::sync::atomic::{Ordering, fence};
use std::time::Instant;

use caxton_control::rollout::split::{SplitInput, Sticky};

use crate::agent::delivery::conversation_starts::{BusyConversation, KnownStart};
use crate::agent::error::AdmitError;
use crate::agent::{Agent, InFlight, Outcomes};
use crate::clock;

impl Agent {
    /// Counts a call as in flight once the agent's calls are not held, which they are while its state is converted.
    pub(super) async fn enter_when_open(
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
